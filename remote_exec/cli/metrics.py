"""``remote-exec metrics``: the numbers that a job has logged, and what it was seen to use."""

from __future__ import annotations

import json
import math
from typing import Any

import click

from .host import ask, job_argument, on_option
from .show import print_table, size

COLUMNS = ("METRIC", "LAST", "STEP", "LEAST", "MOST", "POINTS")


@click.command()
@job_argument
@on_option
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object a line and point: name, time, step, value."
)
def command(name: str, *, as_json: bool) -> None:
    """Show the metrics that a job has logged by log_metrics, while it runs and later.

    Those that begin with system/ are what a job that lasts uses, seen every few seconds: 100 % is one core.

    \b
    Examples:
      remote-exec metrics train-1
      remote-exec metrics train-1 --json | jq -r 'select(.name == "loss") | [.step, .value] | @csv'
    """
    from ..client.metrics import by_name, points_of

    points = points_of(lambda offset: ask("metrics", name=name, offset=offset))
    if as_json:
        for metric, at, step, value in points:
            row = {"name": metric, "time": at, "step": step, "value": _plain(value)}
            click.echo(json.dumps(row, ensure_ascii=False))
        return
    rows = [_row(metric, found) for metric, found in by_name(points).items()]
    print_table(COLUMNS, rows, none="no metrics: it has logged none by log_metrics")


def _row(name: str, points: list[Any]) -> tuple[str, ...]:
    finite = [value for _, _, value in points if math.isfinite(value)]
    _, step, last = points[-1]
    return (
        name,
        _text(name, last),
        "" if step is None else str(step),
        _text(name, min(finite)) if finite else "",
        _text(name, max(finite)) if finite else "",
        str(len(points)),
    )


def _text(name: str, value: float) -> str:
    """Return a value in the unit that its metric's name ends with, if it does."""
    name = name.partition(" (rank ")[0]
    if name.endswith("_bytes") and 0 <= value < math.inf:
        return size(value)
    return f"{value:.1f} %" if name.endswith("_percent") else f"{value:.6g}"


def _plain(value: float) -> float | str:
    """Return a value as JSON has it, which knows no infinity: a text then, as JavaScript says it."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
