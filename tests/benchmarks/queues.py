"""An agent with much in its queue still answers."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator

from remote_exec import RemoteFuture, get_future, list_futures, remote
from remote_exec.client.connections import connections

from . import hosts
from .harness import Bench, Sample, calls_timed, interleave, megabytes, seconds

ANSWER_SECONDS = 0.05
MORE_BYTES = (
    64e6  # of the agent, however much waits: 10,000 items and 1,000 jobs of a few hundred bytes are 3 MB
)
LISTED = 100
ASKED = 60  # times in one round


def queued(bench: Bench) -> None:
    """10,000 items of a map and 1,000 durable jobs wait; status, list and cancel are asked for."""
    items, jobs = (1000, 100) if bench.quick else (10_000, 1000)
    session = connections.session()
    agent = session.welcome.pid

    @remote(max_workers=1)
    def slow(x: int) -> int:
        import time

        time.sleep(0.05)
        return x

    slow(0)
    before = hosts.memory(agent)["Rss"]
    results = slow.map(range(items))
    next(results)
    stop = threading.Event()
    consumer = threading.Thread(target=_consume, args=(results, stop))
    consumer.start()
    durable = slow.options(job_name_prefix="queued", detach=True)
    waiting: list[RemoteFuture[int]] = []
    try:
        waiting += [durable.submit(number) for number in range(jobs)]
        names = [future.job for future in waiting]
        sides: dict[str, Callable[[int], object]] = {
            "status": lambda number: get_future(names[number % jobs]).status,
            "list": lambda number: list(itertools.islice(list_futures(), LISTED)),
            "cancel": lambda number: waiting[-1 - number % jobs].cancel(),
        }
        found = interleave(bench.rounds(6), {name: _asking(ask) for name, ask in sides.items()})
        peak = hosts.memory(agent)["Rss"]
        queue = f"{items:,} items and {jobs:,} jobs queued"
        for name, each in found.items():
            sample = Sample.of([time for times in each for time in times])
            note = f"median {seconds(sample.median)}, n={sample.repetitions:,}"
            bench.within(f"{queue}: {name}, p99", sample.p99, limit=ANSWER_SECONDS, note=note)
        bench.within(
            f"{queue}: the agent's memory beyond before",
            peak - before,
            limit=MORE_BYTES,
            show=megabytes,
            note=f"resident {megabytes(before)} before, {(peak - before) / jobs / 1e3:.1f} kB a job",
        )
    finally:
        stop.set()
        consumer.join()
        for future in waiting:
            future.cancel()


def _consume(results: Iterator[int], stop: threading.Event) -> None:
    """Take the map's results as they come, and leave when told."""
    for _ in results:
        if stop.is_set():
            break
    del results  # cancels what is left


def _asking(ask: Callable[[int], object]) -> Callable[[], list[float]]:
    numbers = itertools.count()  # each round asks of other jobs
    return lambda: calls_timed(lambda _: ask(next(numbers)), calls=ASKED, at_most_seconds=10.0)
