"""Small calls and big arrays, beside every peer."""

from __future__ import annotations

import contextlib
import importlib
import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from remote_exec import RemoteFunction, remote

from . import hosts, peers
from .harness import Bench, Sample, calls_timed, interleave, measured, seconds, timed, timer
from .peers import Peer

CALLS = 400  # of one side in one round: short, so that drift within a round is small
WARM_UP = 300
PAUSE_SECONDS = 1.0
SHARE = 5  # a fifth of the many calls is enough for those that take a millisecond or more for each
CHUNK_SIZES = (10, 50, 100, 200, 500, 1000, 2500)

Many = Callable[[int], object]  # runs so many calls


def _identity() -> RemoteFunction[[Any], Any]:
    @remote(max_workers=peers.WORKERS)
    def identity(x: Any) -> Any:
        return x

    return identity


def warm_calls(bench: Bench) -> None:
    """Blocking calls of a function that does nothing."""
    _by_place(bench)  # before there are threads of ours
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
        found = _latencies(bench.rounds(24), sides)
        pipe, pool = found["Pipe"], found["PPE(fork)"]
        for name, what in (("f(x)", "warm f(x)"), ("submit", "warm submit(x).result()")):
            mine = found[name]
            bench.at_most(f"{what}: median", mine, pool, limit=0.35, name="PPE(fork)")
            bench.at_most(f"{what}: median", mine, pipe, limit=1.5, name="Pipe, same pickles")
            bench.compared(
                f"{what}: p99",
                (mine.p99, seconds(mine.p99)),
                (pool.p99, f"PPE(fork) {seconds(pool.p99)}"),
                limit=1.0,
            )
        for peer in beside[2:]:
            bench.beside("warm f(x), for comparison", found["f(x)"], found[peer.name], name=peer.name)
        _after_a_pause(bench, sides, found)
    for name, cluster in peers.CLUSTERS.items():
        if peers.installed(bench, name):
            with cluster() as peer:
                found = _latencies(bench.rounds(6), {"f(x)": ours, name: peer.call})
                bench.beside("warm f(x), for comparison", found["f(x)"], found[name], name=name)


def _latencies(rounds: int, sides: Mapping[str, Callable[[int], Any]]) -> dict[str, Sample]:
    for call in sides.values():
        calls_timed(call, calls=WARM_UP)
    found = interleave(rounds, {name: _round(call) for name, call in sides.items()})
    return {name: Sample.of([time for times in each for time in times]) for name, each in found.items()}


def _round(call: Callable[[int], Any]) -> Callable[[], list[float]]:
    return lambda: calls_timed(call, calls=CALLS)


def _by_place(bench: Bench) -> None:
    """Where the scheduler puts the two ends decides what a round trip costs: it wakes another CPU, or it does not.

    So the ratio to the pipe is to be read beside this: each of these pipes is new, and goes where it likes.
    """
    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(bench.rounds(12)):
        with peers.pipe() as fresh:
            for _ in range(10):
                block = calls_timed(fresh.call, calls=50)
                times[hosts.processor(fresh.pid) == hosts.processor(os.getpid())] += block
    for together, found in times.items():
        if found:
            where = "one CPU" if together else "two CPUs"
            bench.figure(f"(the pipe with its two ends on {where})", "", peer=f"Pipe {Sample.of(found)}")


def _after_a_pause(
    bench: Bench, sides: Mapping[str, Callable[[int], Any]], warm: Mapping[str, Sample]
) -> None:
    """The machine's part of it is what the pipe, and a few lines of Python that call nobody, take then."""
    sides = {name: sides[name] for name in ("f(x)", "submit", "Pipe", "PPE(fork)")} | {"no call": _at_home}
    warm = {**warm, "no call": Sample.of(calls_timed(_at_home, calls=WARM_UP))}
    found = measured(bench.rounds(12), {name: _first_after_a_pause(call) for name, call in sides.items()})
    for name in ("f(x)", "submit"):
        what = f"{name}: first call after a second's pause"
        bench.at_most(what, found[name], warm[name], limit=3.0, name="warm")
        bench.beside(f"{what}, for comparison", found[name], found["Pipe"], name="Pipe after the same")
    for name in ("Pipe", "PPE(fork)", "no call"):
        bench.figure(
            f"the same pause, {name}",
            "",
            peer=f"{found[name]} after it, warm {seconds(warm[name].median)}",
            ratio=found[name].median / warm[name].median,
        )


def _at_home(x: int) -> str:
    """A few microseconds of the interpreter's own work."""
    return ",".join(sorted(f"{number * x:x}" for number in range(20)))


def _first_after_a_pause(call: Callable[[int], Any]) -> Callable[[], float]:
    def measure() -> float:
        for number in range(20):
            call(number)
        time.sleep(PAUSE_SECONDS)
        return timed(lambda: call(0))

    return measure


def many_calls(bench: Bench) -> None:
    """Ten thousand calls on two workers: submitted one by one, then gathered; and mapped."""
    count = 2000 if bench.quick else 10_000
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(peers.process_pool())
        loky = stack.enter_context(peers.loky()) if peers.installed(bench, "loky") else None
        ours = _identity()
        sides: dict[str, Many] = {
            "ours submit": lambda count: peers.submit_then_gather(ours.submit, count),
            "ours map": lambda count: list(ours.map(range(count))),
            "PPE(fork) submit": _gather(pool),
            **_mappers(pool),
        }
        found = _many(bench.rounds(12), sides, count)
        submit, mapped = f"{count:,} calls, submit then gather", f"{count:,} items, map"
        baseline = found["PPE(fork) submit"]
        bench.faster(submit, found["ours submit"], baseline, times=3, name="PPE(fork) submit")
        bench.faster(mapped, found["ours map"], baseline, times=10, name="PPE(fork) submit")
        best = min((name for name in found if " map, " in name), key=lambda name: found[name].median)
        bench.faster(mapped, found["ours map"], found[best], times=1 / 3, name=best)
        others = {name: cluster for name, cluster in peers.CLUSTERS.items() if peers.installed(bench, name)}
        if loky is not None:
            _beside(bench, ours, loky, count // SHARE)
    _beside_joblib(bench, ours, count)
    for cluster in others.values():
        with cluster() as peer:
            _beside(bench, ours, peer, count // SHARE)


def _many(rounds: int, sides: Mapping[str, Many], count: int) -> dict[str, Sample]:
    """Time so many calls of each side, each after a few that do not count: none pays for the others' turns."""

    def turn(side: Many) -> Callable[[], float]:
        def measure() -> float:
            side(count // 20)
            return timed(lambda: side(count))

        return measure

    return measured(rounds, {name: turn(side) for name, side in sides.items()})


def _gather(peer: Peer) -> Many:
    assert peer.gather is not None
    return peer.gather


def _beside(bench: Bench, ours: RemoteFunction[[Any], Any], peer: Peer, count: int) -> None:
    sides: dict[str, Many] = {
        "ours": lambda count: peers.submit_then_gather(ours.submit, count),
        peer.name: _gather(peer),
    }
    found = _many(bench.rounds(4), sides, count)
    what = f"{count:,} calls, submit then gather, for comparison"
    bench.beside(what, found["ours"], found[peer.name], name=peer.name)


def _beside_joblib(bench: Bench, ours: RemoteFunction[[Any], Any], count: int) -> None:
    if not peers.installed(bench, "joblib"):
        return
    joblib: Any = importlib.import_module("joblib")
    job = joblib.delayed(peers.identity)
    with joblib.Parallel(n_jobs=peers.WORKERS) as parallel:  # its batches grow by themselves
        sides: dict[str, Many] = {
            "ours": lambda count: list(ours.map(range(count))),
            "joblib": lambda count: parallel(job(number) for number in range(count)),
        }
        found = _many(bench.rounds(6), sides, count)
    what = f"{count:,} items, map, for comparison"
    bench.beside(what, found["ours"], found["joblib"], name="joblib, batch_size=auto")


def _mappers(pool: Peer) -> dict[str, Many]:
    def mapper(size: int) -> Many:
        executor = pool.executor
        assert executor is not None
        return lambda count: list(executor.map(peers.identity, range(count), chunksize=size))

    return {f"{pool.name} map, chunks of {size}": mapper(size) for size in CHUNK_SIZES}


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
        for side in (*argument.values(), *result.values()):
            side()  # forked before a cluster's threads are there
        if peers.installed(bench, "Ray"):
            stack.enter_context(peers.ray())
            ray: Any = importlib.import_module("ray")
            far_take, far_give = ray.remote(peers.checksum), ray.remote(peers.fresh_array)
            argument["Ray"] = lambda: ray.get(far_take.remote(array))
            result["Ray"] = lambda: peers.checksum(ray.get(far_give.remote(size_bytes)))
        for what, sides, times in (("argument", argument, 8.0), ("result", result, 6.0)):
            found = measured(bench.rounds(9), {name: timer(side) for name, side in sides.items()})
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
