"""``remote-exec jobs``: the list of jobs and calls, and everything of one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import click

from ..client.reporter import progress_line
from ..model.cost import Cost, bill_of
from ..model.errors import HostUnavailable
from .host import ask, chosen, complete_jobs, connected, on_option
from .show import duration, full_moment, json_option, moment, note, print_facts, print_json, print_table, size

STATES = ("queued", "running", "succeeded", "failed", "cancelled")
COLUMNS = ("NAME", "STATE", "FUNCTION", "STARTED", "ELAPSED", "SUMMARY")
PAGE = 200
BAR_WIDTH = 40


@click.command()
@click.argument("name", required=False, metavar="[JOB]", shell_complete=complete_jobs)
@click.option(
    "--state", "states", multiple=True, type=click.Choice(STATES), help="Only these. May be repeated."
)
@click.option("--prefix", default="", help="Only names that begin so.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many at most.")
@click.option("--all", "everything", is_flag=True, help="All that are kept, whatever the limit.")
@on_option
@json_option
def command(
    name: str | None, *, states: tuple[str, ...], prefix: str, limit: int, everything: bool, as_json: bool
) -> None:
    """List jobs and calls, newest first; with JOB, tell everything of that one.

    Listed are those of this machine and of the hosts that are connected now; a JOB is looked for on all that are known.

    \b
    Examples:
      remote-exec jobs --state running --state queued
      remote-exec jobs --prefix train --limit 5 --json
      remote-exec jobs train-1        attempts, phases, death certificate
      remote-exec jobs --on gpu       those of that host, which is connected to
    """
    if name is not None:
        told = ask("job", name=name)
        print_json({**told, "job": with_cost(told["job"])}) if as_json else _tell(told)
        return
    rows, more = newest_jobs(states=states, prefix=prefix, limit=None if everything else limit)
    if as_json:
        print_json([with_cost(row) for row in rows])
        return
    print_table(*table_of(rows), none="no jobs")
    if more:
        note(f"the newest {len(rows)} are shown; --all shows them all")


def newest_jobs(
    *, states: tuple[str, ...], prefix: str, limit: int | None
) -> tuple[list[dict[str, Any]], bool]:
    """Return the jobs of all hosts that are asked, newest first, and whether there are more."""
    found: list[dict[str, Any]] = []
    for name, asked in connected():
        try:
            rows = _rows(asked, {"states": list(states), "prefix": prefix}, limit)
        except HostUnavailable as error:
            if name == "local" or chosen() is not None:
                raise
            note(f"the jobs on {name} are left out: {error.message}")
            continue
        found += ({**row, "host": name} for row in rows)
    found.sort(key=lambda row: row["created_at"], reverse=True)
    return found[:limit], limit is not None and len(found) > limit


def _rows(ask: Callable[..., Any], question: dict[str, Any], limit: int | None) -> list[dict[str, Any]]:
    """Return the newest jobs of one host, one more than the limit if there is one."""
    found: list[dict[str, Any]] = []
    before: list[Any] | None = None
    while True:
        wanted = PAGE if limit is None else min(PAGE, limit + 1 - len(found))
        page = ask("jobs", **question, limit=wanted, before=before)
        found += page["jobs"]
        before = page["next"]
        if before is None or (limit is not None and len(found) > limit):
            return found


def table_of(rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the headings and cells of jobs.

    Where some are another machine's, hosts stand beside the names; where some have a price, costs before the summaries.
    """
    now = time.time()
    columns: tuple[str, ...] = COLUMNS
    cells = [row_of(row, now) for row in rows]
    costs = [cost_text(row, now) for row in rows]
    if any(costs):
        columns = (*columns[:-1], "COST", columns[-1])
        cells = [(*others, cost, summary) for cost, (*others, summary) in zip(costs, cells, strict=True)]
    if all(row["host"] == "local" for row in rows):
        return columns, cells
    named = [(name, row["host"], *others) for row, (name, *others) in zip(rows, cells, strict=True)]
    return (*columns[:1], "HOST", *columns[1:]), named


def row_of(job: Mapping[str, Any], now: float) -> tuple[str, ...]:
    """Return one job's cells, under `COLUMNS`."""
    return (
        job["name"],
        job["state"],
        f"{job['function']} x {job['count']}" if job["count"] > 1 else job["function"],
        moment(job["started_at"] or job["created_at"]),
        duration(elapsed(job, now)),
        _summary(job),
    )


def _summary(job: Mapping[str, Any]) -> str:
    if job["state"] == "cancelled":
        return ""  # that it was interrupted is how it was cancelled
    if job.get("progress"):
        return progress_line(job["progress"])
    summary: str = job["summary"].removesuffix(": ")
    return summary or ("" if job["cause"] == "none" else job["cause"].replace("_", " "))


def elapsed(job: Mapping[str, Any], now: float) -> float | None:
    """Return for how many seconds a job has run, or ran."""
    begun = job["started_at"]
    if begun is None:
        return None
    ended = job["ended_at"]
    return float((now if ended is None else ended) - begun)


def cost_text(job: Mapping[str, Any], now: float) -> str:
    """Return what a job has cost until now; empty where it has no price, or has had no worker yet."""
    bill = bill_of(job)
    return str(bill.cost(now)) if bill is not None and bill.held(now) else ""


def with_cost(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job with what it has cost until now, for programs."""
    bill, plain = bill_of(job), {**job, "cost": None}
    plain.pop("bill", None)
    if bill is not None:
        now = time.time()
        plain["cost"] = {
            "amount": bill.cost(now).amount,
            "currency": bill.price.currency,
            "per_hour": bill.price.per_hour,
            "held_seconds": bill.held(now),
        }
    return plain


def _cost_fact(job: Mapping[str, Any]) -> str:
    bill = bill_of(job)
    if bill is None:
        return ""
    now, price = time.time(), bill.price
    return f"{bill.cost(now)}, {duration(bill.held(now))} at {Cost(price.per_hour, price.currency)} an hour"


def _gpu(gpu: Mapping[str, Any]) -> str:
    used, peak = size(gpu["memory_used_bytes"]), size(gpu["peak_memory_bytes"])
    return f"{gpu['uuid']}: {used} in use, at most {peak}, {gpu['percent']} % busy"


def facts_of(told: Mapping[str, Any]) -> dict[str, str]:
    """Return what is told of one job; empty texts are of no interest."""
    job = told["job"]
    about: dict[str, Any] = told.get("about") or {}
    result: dict[str, str] = about.get("result") or {}
    return {
        "name": job["name"],
        "kind": job["kind"],
        "function": job["function"],
        "state": job["state"],
        "waits for": told["why"] if job["state"] == "queued" else "",
        "cause": "" if job["cause"] in ("none", job["state"]) else job["cause"].replace("_", " "),
        "summary": job["summary"].removesuffix(": "),
        "created": full_moment(job["created_at"]),
        "started": full_moment(job["started_at"]),
        "ended": full_moment(job["ended_at"]),
        "elapsed": duration(elapsed(job, time.time())),
        "cost": _cost_fact(job),
        "progress": progress_line(told["progress"]),
        "GPUs": "\n".join(_gpu(gpu) for gpu in told["gpus"]),
        "instance type": job["instance_type"],
        "calls": f"{job['count']}, {job['failed']} failed" if job["count"] > 1 else "",
        "tags": ", ".join(f"{key}={value}" for key, value in job["tags"]),
        "environment": _environment(told["spec"], about),
        "result": " ".join(filter(None, result.values())),
    }


def _tell(told: Mapping[str, Any]) -> None:
    job = told["job"]
    print_facts(facts_of(told))
    for attempt in told["attempts"]:
        click.echo()
        print_facts(attempt_facts(attempt))
        for line in timeline(attempt):
            click.echo(f"  {line}")
    if job["state"] == "failed" and told["kept"]:
        note(f"\nhint: remote-exec result {job['name']}, or: remote-exec debug {job['name']}")


def _environment(spec: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    environment: dict[str, Any] = spec.get("pool", {}).get("environment") or about.get("environment", {})
    wanted: list[str] = environment.get("requirements") or []
    return (
        f"{environment['kind']} {environment['python']} {', '.join(wanted)}".rstrip() if environment else ""
    )


def attempt_facts(attempt: Mapping[str, Any]) -> dict[str, str]:
    """Return what is told of one attempt; empty texts are of no interest."""
    cause = (
        "" if attempt["cause"] in ("none", attempt["state"]) else f", {attempt['cause'].replace('_', ' ')}"
    )
    facts = {
        f"attempt {attempt['number']}": f"{attempt['state']}{cause}",
        "started": full_moment(attempt["started_at"]),
        "ended": full_moment(attempt["ended_at"]),
        "worker": f"process {attempt['worker_pid']}" if attempt["worker_pid"] else "",
    }
    certificate = attempt["certificate"]
    if certificate:
        facts |= {
            "death": certificate["message"],
            "signal": str(certificate["signal"] or ""),
            "exit code": "" if certificate["exit_code"] is None else str(certificate["exit_code"]),
            "peak memory": size(certificate["peak_memory"]) if certificate["peak_memory"] else "",
            "evidence": certificate["oom_evidence"],
            "last lines": "\n".join(certificate["last_lines"]),
        }
        if certificate["peak_gpu_memory"]:
            facts["peak GPU memory"] = size(certificate["peak_gpu_memory"])
    return facts


def timeline(attempt: Mapping[str, Any]) -> Iterator[str]:
    """Yield the attempt's phases one after the other, each with its bar: no phase is silent."""
    phases = [(phase["name"], phase["seconds"], phase["detail"]) for phase in attempt["phases"]]
    if attempt["started_at"] is not None:
        phases.append(("run", (attempt["ended_at"] or time.time()) - attempt["started_at"], ""))
    whole = sum(seconds for _, seconds, _ in phases) or 1.0
    name_width = max((len(name) for name, _, _ in phases), default=0)
    passed = 0.0
    for name, seconds, detail in phases:
        before = round(BAR_WIDTH * passed / whole)
        passed += seconds
        length = max(1, round(BAR_WIDTH * passed / whole) - before)
        bar = (" " * before + "█" * length)[: BAR_WIDTH + 1].ljust(BAR_WIDTH + 1)
        yield f"{name.ljust(name_width)}  {duration(seconds):>10}  {bar} {detail}".rstrip()
