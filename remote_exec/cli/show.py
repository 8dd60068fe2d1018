"""How things are shown: JSON for programs, tables for people, drawn with rich in a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.table import Table

F = TypeVar("F", bound="Callable[..., Any]")

# how a cell with exactly this text is coloured
STYLES: Mapping[str, str] = {
    "queued": "yellow",
    "running": "cyan",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "magenta",
    "InUse": "cyan",
    "Available": "green",
    "ok": "green",
    "wrong": "bold red",
    "skipped": "dim",
}


def json_option(command: F) -> F:
    """Give a command the flag ``--json``, as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")(command)


def print_json(value: object) -> None:
    """Print a value as JSON."""
    import json

    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def note(text: str) -> None:
    """Say something beside the data."""
    click.echo(text, err=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, none: str) -> None:
    """Print rows under their headings; `none` is said instead when there are no rows."""
    if not rows:
        note(none)
    elif sys.stdout.isatty():
        from rich.console import Console

        Console(highlight=False).print(rich_table(columns, rows))
    else:
        click.echo(plain_table(columns, rows))


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows under their headings as text, in columns."""
    every = [columns, *rows]
    widths = [max(len(row[number]) for row in every) for number in range(len(columns))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in every)
    return "\n".join(line.rstrip() for line in lines)


def rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, one_line: bool = False) -> Table:
    """Return rows under their headings as rich draws them; the first column is never cut.

    Args:
        columns: the headings.
        rows: the cells.
        one_line: cut the last column where it would take a second line.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, name in enumerate(columns):
        table.add_column(
            name,
            no_wrap=one_line or number < len(columns) - 1,
            overflow="fold" if number == 0 else "ellipsis",
        )
    for row in rows:
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    return table


def print_facts(facts: Mapping[str, str]) -> None:
    """Print one thing's facts, a line each; empty ones are left out."""
    for heading, line in fact_lines(facts):
        click.echo((click.style(heading, bold=True) if coloured() else heading) + line)


def fact_lines(facts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield one thing's facts as lines: heading, and what stands behind it; empty facts are left out."""
    width = max(map(len, facts), default=0) + 2
    for name, value in facts.items():
        for number, line in enumerate(value.splitlines()):
            yield (f"{name}:" if not number else "").ljust(width), line


def coloured() -> bool:
    """Whether stdout is a terminal that wants colours."""
    import os

    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


# --- units ----------------------------------------------------------------------------------------------


def size(count_bytes: float) -> str:
    """Return a number of bytes for people.

    >>> size(0), size(1_500), size(3 << 30)
    ('0 B', '1.5 kB', '3.2 GB')
    """
    value = float(count_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def duration(seconds: float | None) -> str:
    """Return a length of time for people.

    >>> duration(0.0123), duration(75), duration(7322), duration(None)
    ('12 ms', '1 min 15 s', '2 h 2 min', '')
    """
    if seconds is None:
        return ""
    if seconds < 0.9995:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for name, length, part_name, part in (
        ("min", 60, "s", 1),
        ("h", 3600, "min", 60),
        ("d", 86400, "h", 3600),
    ):
        if whole < length * (60 if name != "h" else 24) or name == "d":
            return f"{whole // length} {name} {whole % length // part} {part_name}"
    raise AssertionError


def moment(epoch_seconds: float | None) -> str:
    """Return a time of day, with the date unless it is today's; in this machine's time zone."""
    if epoch_seconds is None:
        return ""
    then = time.localtime(epoch_seconds)
    today = time.localtime()[:3] == then[:3]
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M", then)


def full_moment(epoch_seconds: float | None) -> str:
    """Return date, time and offset from UTC."""
    if epoch_seconds is None:
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(epoch_seconds))
