"""Small calls and big arrays, beside every peer."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from typing import Any

from remote_exec import RemoteFunction, remote

from . import peers
from .harness import Bench, Latency, interleave, latency, median_times, seconds, timed
from .peers import Peer

CALLS = 1000
WARM_UP = 300
CHUNK_SIZES = (10, 50, 100, 200, 500, 1000)


def _identity() -> RemoteFunction[[Any], Any]:
    @remote(max_workers=peers.WORKERS)
    def identity(x: Any) -> Any:
        return x

    return identity


def warm_calls(bench: Bench) -> None:
    """Blocking calls of a function that does nothing."""
    with contextlib.ExitStack() as stack:
        beside = [
            stack.enter_context(p)
            for p in (peers.pipe(), peers.process_pool(), peers.process_pool("forkserver"))
        ]
        if peers.installed(bench, "loky"):
            beside.append(stack.enter_context(peers.loky()))
        ours = _identity()
        sides: dict[str, Callable[[int], Any]] = {
            "f(x)": ours,
            "submit": lambda x: ours.submit(x).result(),
            **{peer.name: peer.call for peer in beside},
        }
        found = _latencies(bench.rounds(9), sides)
        pipe, pool = found["Pipe"], found["PPE(fork)"]
        for name, what in (("f(x)", "warm f(x)"), ("submit", "warm submit(x).result()")):
            mine = found[name]
            bench.at_most(f"{what}: median", mine.median, pool.median, limit=0.35, name="PPE(fork)")
            bench.at_most(f"{what}: median", mine.median, pipe.median, limit=1.5, name="Pipe, same pickles")
            bench.at_most(f"{what}: p99", mine.p99, pool.p99, limit=1.0, name="PPE(fork)")
        for peer in beside[2:]:
            theirs = found[peer.name]
            bench.figure(
                "warm f(x), for comparison",
                str(found["f(x)"]),
                peer=f"{peer.name} {theirs}",
                ratio=found["f(x)"].median / theirs.median,
            )
        _after_a_pause(bench, sides, found)
    for name, make in (("Ray", peers.ray), ("Dask", peers.dask)):
        if peers.installed(bench, name):
            with make() as peer:
                found = _latencies(bench.rounds(3), {"f(x)": ours, name: peer.call})
                mine, theirs = found["f(x)"], found[name]
                bench.figure(
                    "warm f(x), for comparison",
                    str(mine),
                    peer=f"{name} {theirs}",
                    ratio=mine.median / theirs.median,
                )


def _latencies(rounds: int, sides: dict[str, Callable[[int], Any]]) -> dict[str, Latency]:
    for call in sides.values():
        latency(call, calls=WARM_UP)
    found = interleave(rounds, {name: _round(call) for name, call in sides.items()})
    return {name: Latency.over(each) for name, each in found.items()}


def _round(call: Callable[[int], Any]) -> Callable[[], Latency]:
    return lambda: latency(call, calls=CALLS)


def _after_a_pause(bench: Bench, sides: dict[str, Callable[[int], Any]], warm: dict[str, Latency]) -> None:
    names = ("f(x)", "submit", "Pipe", "PPE(fork)")
    firsts = interleave(bench.rounds(9), {name: _first_after_a_pause(sides[name]) for name in names})
    medians = {name: statistics.median(times) for name, times in firsts.items()}
    for name in ("f(x)", "submit"):
        bench.at_most(
            f"{name}: first call after a second's pause",
            medians[name],
            warm[name].median,
            limit=3.0,
            name="warm",
        )
    bench.figure(
        "the same pause, for comparison",
        "",
        peer=f"Pipe {seconds(medians['Pipe'])}, PPE(fork) {seconds(medians['PPE(fork)'])}",
    )


def _first_after_a_pause(call: Callable[[int], Any]) -> Callable[[], float]:
    def measure() -> float:
        for number in range(20):
            call(number)
        time.sleep(1.0)
        return timed(lambda: call(0))

    return measure


def many_calls(bench: Bench) -> None:
    """Ten thousand calls on two workers: submitted one by one, then gathered; and mapped."""
    count = 2000 if bench.quick else 10_000
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(peers.process_pool())
        others: list[Peer] = []
        if peers.installed(bench, "loky"):
            others.append(stack.enter_context(peers.loky()))
        ours = _identity()
        assert pool.executor is not None
        executor = pool.executor
        sides: dict[str, Callable[[], object]] = {
            "ours submit": lambda: _gather(ours.submit, count),
            "PPE submit": lambda: _gather(lambda x: executor.submit(peers.identity, x), count),
            **{f"{peer.name} submit": _gatherer(peer, count) for peer in others},
        }
        if hasattr(ours, "map"):
            mapped: Any = ours
            sides["ours map"] = lambda: list(mapped.map(range(count)))
        for size in CHUNK_SIZES:
            sides[f"PPE map, chunks of {size}"] = _mapper(executor, count, size)
        for side in list(sides)[:2]:
            sides[side]()
        found = median_times(bench.rounds(6), sides)
    bench.faster(
        f"{count:,} calls, submit then gather",
        found["ours submit"],
        found["PPE submit"],
        times=3,
        name="PPE submit",
    )
    for peer in others:
        theirs = found[f"{peer.name} submit"]
        bench.figure(
            f"{count:,} calls, submit then gather",
            seconds(found["ours submit"]),
            peer=f"{peer.name} submit {seconds(theirs)}",
            ratio=theirs / found["ours submit"],
        )
    if "ours map" not in found:
        raise RuntimeError("RemoteFunction.map is missing")
    bench.faster(f"{count:,} items, map", found["ours map"], found["PPE submit"], times=10, name="PPE submit")
    best = min((name for name in found if name.startswith("PPE map")), key=found.__getitem__)
    bench.faster(f"{count:,} items, map", found["ours map"], found[best], times=1 / 3, name=best)


def _gather(submit: Callable[[int], Any], count: int) -> list[Any]:
    return [future.result() for future in [submit(number) for number in range(count)]]


def _gatherer(peer: Peer, count: int) -> Callable[[], object]:
    executor = peer.executor
    assert executor is not None
    return lambda: _gather(lambda x: executor.submit(peers.identity, x), count)


def _mapper(executor: Any, count: int, size: int) -> Callable[[], object]:
    return lambda: list(executor.map(peers.identity, range(count), chunksize=size))


def arrays(bench: Bench) -> None:
    """A big NumPy array as argument and as result; each page is touched by who receives it."""
    size_bytes = (32 if bench.quick else 256) << 20

    @remote(max_workers=1)
    def take(array: Any) -> int:
        return int(array.view("u1")[::4096].sum())

    @remote(max_workers=1)
    def give(size: int) -> Any:
        import numpy

        return numpy.ones(size // 8)

    array = peers.fresh_array(size_bytes)
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(peers.process_pool())
        assert pool.executor is not None
        submit = pool.executor.submit
        argument: dict[str, Callable[[], object]] = {
            "ours": lambda: take(array),
            "PPE(fork)": lambda: submit(peers.checksum, array).result(),
        }
        result: dict[str, Callable[[], object]] = {
            "ours": lambda: peers.checksum(give(size_bytes)),
            "PPE(fork)": lambda: peers.checksum(submit(peers.fresh_array, size_bytes).result()),
        }
        if peers.installed(bench, "Ray"):
            stack.enter_context(peers.ray())
            import ray  # type: ignore[import-not-found]

            far_take, far_give = ray.remote(peers.checksum), ray.remote(peers.fresh_array)
            argument["Ray"] = lambda: ray.get(far_take.remote(array))
            result["Ray"] = lambda: peers.checksum(ray.get(far_give.remote(size_bytes)))
        for what, sides, times in (("argument", argument, 8.0), ("result", result, 6.0)):
            for side in sides.values():
                side()
            found = median_times(bench.rounds(7), sides)
            for name, limit in (("PPE(fork)", times), ("Ray", 1.0)):
                if name in found:
                    bench.faster(
                        f"array of {size_bytes >> 20} MiB as {what}",
                        found["ours"],
                        found[name],
                        times=limit,
                        name=name,
                    )
    making = statistics.median(timed(lambda: peers.fresh_array(size_bytes)) for _ in range(5))
    bench.figure(f"(making that array takes, in each `result` above, {seconds(making)})", "")
