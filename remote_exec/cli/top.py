"""``remote-exec top``: jobs, pools with their workers, CPU, memory and GPUs, live."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..worker.usage import Sample, Use
from .host import ask, home_there, on_option, told
from .jobs import COLUMNS as JOB_COLUMNS
from .jobs import row_of as job_row
from .pools import environment_of, users_of
from .show import duration, json_option, print_json, print_table, rich_table, size

if TYPE_CHECKING:
    from rich.console import Group

WORKER_COLUMNS = ("POOL", "USED BY", "WORKER", "STATE", "REUSES", "IDLE", "CPU", "MEMORY", "ENVIRONMENT")
OF_POOL = ("asked_by", "python", "python_version")  # what is told of a worker's pool
GPU_COLUMNS = ("GPU", "NAME", "BUSY", "MEMORY", "HELD BY")
SHOWN_JOBS = 15
FIRST_SECONDS = 0.2  # between the two looks that one frame's CPU figures need


class Look(NamedTuple):
    """What a host tells at one moment."""

    host: dict[str, Any]
    sample: Sample
    gpus: list[dict[str, Any]]


@click.command()
@click.option("--interval", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="Print one frame and end; so it is where stdout is no terminal.")
@on_option
@json_option
def command(*, interval: float, once: bool, as_json: bool) -> None:
    """Watch what the agent of this machine, or of another host, is doing. Ctrl-C ends it.

    \b
    Examples:
      remote-exec top
      remote-exec top --once --json
      remote-exec top --on gpu
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


def _look() -> Look:
    host = ask("host")
    pids = [worker["pid"] for pool in host["pools"] for worker in pool["workers"]]
    use: dict[str, Any] = told(ask("usage", pids=pids))
    gpus = use.pop("gpus")
    workers = {pid: Use(seconds, memory) for pid, seconds, memory in use.pop("workers")}
    return Look(host, Sample(workers=workers, **use), gpus)


def _facts(before: Look, after: Look) -> dict[str, Any]:
    """Return one frame as data."""
    (_, old, _), (host, new, gpus) = before, after
    seconds = max(new.at - old.at, 1e-6)
    workers: list[dict[str, Any]] = []
    for pool in host["pools"]:
        for worker in pool["workers"]:
            use = new.workers[worker["pid"]]
            was = old.workers.get(worker["pid"], use)
            percent = 100 * max(use.cpu_seconds - was.cpu_seconds, 0.0) / seconds
            facts = {"pool": pool["key"], **{name: pool.get(name, "") for name in OF_POOL}, **worker}
            workers.append({**facts, "cpu_percent": percent, "memory_bytes": use.memory_bytes})
    page = ask("jobs", states=["running", "queued"], limit=SHOWN_JOBS)
    recent = ask("jobs", states=["succeeded", "failed", "cancelled"], limit=SHOWN_JOBS)
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
        "gpus": gpus,
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
    now, home = time.time(), home_there()
    workers: list[tuple[str, ...]] = [
        (
            worker["pool"],
            users_of(worker),
            str(worker["pid"]),
            worker["state"],
            str(worker["reuses"]),
            "" if worker["state"] == "InUse" else duration(worker["idle_seconds"]),
            f"{worker['cpu_percent']:.0f} %",
            size(worker["memory_bytes"]),
            environment_of(worker, home),
        )
        for worker in frame["workers"]
    ]
    gpus = [_gpu_row(gpu) for gpu in frame["gpus"]]
    tables: list[tuple[tuple[str, ...], list[tuple[str, ...]], str]] = [
        (WORKER_COLUMNS, workers, "no workers"),
        (JOB_COLUMNS, [job_row(job, now) for job in frame["jobs"]], "no jobs"),
    ]
    return [*tables[:1], (GPU_COLUMNS, gpus, ""), *tables[1:]] if gpus else tables


def _gpu_row(gpu: dict[str, Any]) -> tuple[str, ...]:
    held = [
        f"{one['call'] or 'pool ' + one['pool']} (process {one['pid']}{_share(one['gpus'])})"
        for one in gpu["held_by"]
    ]
    return (
        gpu["uuid"],
        gpu["name"],
        f"{gpu['percent']} %",
        f"{size(gpu['memory_used_bytes'])} of {size(gpu['memory_total_bytes'])}",
        ", ".join([*held, *gpu["held_by_others"]]),
    )


def _share(gpus: float) -> str:
    return f", {gpus:.3g} of it" if gpus < 1 else ""


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
