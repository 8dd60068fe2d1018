"""An agent with much in its queue still answers."""

from __future__ import annotations

import time
from typing import Any

from remote_exec import remote
from remote_exec.client.connections import connections

from . import hosts
from .harness import Bench, latency, megabytes

ANSWER_SECONDS = 0.05


def queued(bench: Bench) -> None:
    """10,000 items of a map and 1,000 durable jobs wait; status, list and cancel are asked for."""
    items, jobs = (1000, 100) if bench.quick else (10_000, 1000)

    @remote(max_workers=1)
    def slow(x: int) -> int:
        import time

        time.sleep(0.05)
        return x

    session = connections.session()
    before = hosts.memory(session.welcome.pid)["Rss"]
    mapped: Any = slow
    results = iter(mapped.map(range(items)))
    next(results)
    waiting: list[Any] = [
        slow.options(job_name_prefix="queued", detach=True).submit(number) for number in range(jobs)
    ]
    time.sleep(1.0)
    after = hosts.memory(session.welcome.pid)["Rss"]
    asked = 50 if bench.quick else 300
    names = [future.job for future in waiting]
    answers = {
        "status": lambda number: session.ask("job", {"name": names[number % jobs]}),
        "list": lambda number: session.ask("jobs", {"limit": 100}),
        "cancel": lambda number: session.ask("cancel", {"name": names[-1 - number % jobs]}),
    }
    for what, ask in answers.items():
        found = latency(ask, calls=asked, at_most_seconds=60.0)
        bench.within(
            f"{items:,} items and {jobs:,} jobs queued: {what}, p99",
            found.p99,
            limit=ANSWER_SECONDS,
            note=str(found),
        )
    bench.figure(
        "agent's resident memory then",
        megabytes(after),
        peer=f"{megabytes(before)} before: {(after - before) / jobs / 1e3:.1f} kB a job",
    )
    for future in waiting:
        session.ask("cancel", {"name": future.job})
    results.close()
