"""``remote-exec top``: jobs, pools with their workers, CPU, memory and GPUs, live."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from .host import ask
from .jobs import COLUMNS as JOB_COLUMNS
from .jobs import row_of as job_row
from .pools import environment_of
from .processes import Sample, sample
from .show import duration, json_option, print_json, print_table, rich_table, size

if TYPE_CHECKING:
    from rich.console import Group

WORKER_COLUMNS = ("POOL", "WORKER", "STATE", "REUSES", "IDLE", "CPU", "MEMORY", "ENVIRONMENT")
GPU_COLUMNS = ("GPU", "USED", "MEMORY")
SHOWN_JOBS = 15
FIRST_SECONDS = 0.2  # between the two looks that one frame's CPU figures need


@click.command()
@click.option("--interval", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="Print one frame and end; so it is where stdout is no terminal.")
@json_option
def command(*, interval: float, once: bool, as_json: bool) -> None:
    """Watch what the agent of this machine is doing. Ctrl-C ends it.

    \b
    Examples:
      remote-exec top
      remote-exec top --once --json
    """
    before = _look()
    time.sleep(FIRST_SECONDS)
    if as_json:
        print_json(_facts(before, _look()))
        return
    if once or not sys.stdout.isatty():
        _print(_facts(before, _look()))
        return
    from rich.live import Live

    after = _look()
    with Live(_drawn(_facts(before, after)), screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(interval)
            before, after = after, _look()
            live.update(_drawn(_facts(before, after)), refresh=True)


def _look() -> tuple[dict[str, Any], Sample]:
    host = ask("host")
    return host, sample(worker["pid"] for pool in host["pools"] for worker in pool["workers"])


def _facts(before: tuple[dict[str, Any], Sample], after: tuple[dict[str, Any], Sample]) -> dict[str, Any]:
    """Return one frame as data."""
    from ..agent.devices import utilisation

    (_, old), (host, new) = before, after
    seconds = max(new.at - old.at, 1e-6)
    workers: list[dict[str, Any]] = []
    for pool in host["pools"]:
        for worker in pool["workers"]:
            use = new.workers[worker["pid"]]
            was = old.workers.get(worker["pid"], use)
            percent = 100 * max(use.cpu_seconds - was.cpu_seconds, 0.0) / seconds
            facts = {"pool": pool["key"], "python": pool["python"], **worker}
            workers.append({**facts, "cpu_percent": percent, "memory_bytes": use.memory_bytes})
    page = ask("jobs", states=["running", "queued"], limit=SHOWN_JOBS)
    recent = ask("jobs", states=["succeeded", "failed", "cancelled"], limit=SHOWN_JOBS)
    uses = utilisation()
    return {
        "agent": {
            "pid": host["pid"],
            "version": host["version"],
            "up_seconds": time.time() - host["started_at"],
        },
        "cpu_percent": 100 * max(new.busy_seconds - old.busy_seconds, 0.0) / seconds,
        "cpus": host["cpus"],
        "memory_used_bytes": new.memory_used_bytes,
        "memory_total_bytes": new.memory_total_bytes,
        "gpus": [
            {"name": name, "percent": use.percent, "memory_used_bytes": use.memory_used_bytes}
            for name, use in zip(host["gpus"], uses, strict=False)
        ],
        "queued": sum(pool["queued"] for pool in host["pools"]),
        "workers": workers,
        "jobs": (page["jobs"] + recent["jobs"])[:SHOWN_JOBS],
    }


def _headline(frame: dict[str, Any]) -> str:
    agent = frame["agent"]
    return (
        f"agent {agent['pid']}, version {agent['version']}, up {duration(agent['up_seconds'])}   "
        f"cpu {frame['cpu_percent']:.0f} % of {100 * frame['cpus']:.0f} %   "
        f"memory {size(frame['memory_used_bytes'])} of {size(frame['memory_total_bytes'])}   "
        f"workers {len(frame['workers'])}, queued {frame['queued']}"
    )


def _tables(frame: dict[str, Any]) -> list[tuple[tuple[str, ...], list[tuple[str, ...]], str]]:
    """Return the frame's tables: columns, rows, and what to say where there are none."""
    now = time.time()
    workers: list[tuple[str, ...]] = [
        (
            worker["pool"],
            str(worker["pid"]),
            worker["state"],
            str(worker["reuses"]),
            "" if worker["state"] == "InUse" else duration(worker["idle_seconds"]),
            f"{worker['cpu_percent']:.0f} %",
            size(worker["memory_bytes"]),
            environment_of(worker["python"]),
        )
        for worker in frame["workers"]
    ]
    gpus: list[tuple[str, ...]] = [
        (gpu["name"], f"{gpu['percent']} %", size(gpu["memory_used_bytes"])) for gpu in frame["gpus"]
    ]
    tables: list[tuple[tuple[str, ...], list[tuple[str, ...]], str]] = [
        (WORKER_COLUMNS, workers, "no workers"),
        (JOB_COLUMNS, [job_row(job, now) for job in frame["jobs"]], "no jobs"),
    ]
    return [*tables[:1], (GPU_COLUMNS, gpus, ""), *tables[1:]] if gpus else tables


def _print(frame: dict[str, Any]) -> None:
    click.echo(_headline(frame))
    for columns, rows, none in _tables(frame):
        click.echo()
        print_table(columns, rows, none=none)


def _drawn(frame: dict[str, Any]) -> Group:
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = [Text(_headline(frame), style="bold")]
    for columns, rows, none in _tables(frame):
        parts += [Text(), rich_table(columns, rows, one_line=True) if rows else Text(none, style="dim")]
    return Group(*parts)
