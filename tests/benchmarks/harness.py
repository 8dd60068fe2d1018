"""Rows, rounds and figures of the benchmarks. Knows nothing of what is measured."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: what was measured, beside what, and whether its bar, if any, is met."""

    what: str
    ours: str
    peer: str = ""
    ratio: float | None = None
    bar: str = ""
    met: bool | None = None


@dataclass(kw_only=True)
class Bench:
    """What a benchmark is given: how long it may take, where it may write, and where its rows go."""

    quick: bool
    folder: Path
    rows: list[Row] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)
    on_row: Callable[[Row], None] = print

    def add(self, row: Row) -> None:
        """Take a row."""
        self.rows.append(row)
        self.on_row(row)

    def rounds(self, usual: int) -> int:
        """Return how many rounds to measure: few when quick."""
        return max(2, usual // 3) if self.quick else usual

    def at_most(
        self,
        what: str,
        ours: float,
        peer: float,
        *,
        limit: float,
        name: str,
        show: Callable[[float], str] | None = None,
    ) -> None:
        """Take a row whose bar is `ours <= limit * peer`; `name` says what the peer is."""
        show = show or seconds
        self.add(
            Row(
                what=what,
                ours=show(ours),
                peer=f"{name} {show(peer)}",
                ratio=ours / peer,
                bar=f"<= {limit:g} x",
                met=ours <= limit * peer,
            )
        )

    def faster(self, what: str, ours: float, peer: float, *, times: float, name: str) -> None:
        """Take a row whose bar is that ours, in seconds, is at least `times` times as fast as the peer."""
        self.add(
            Row(
                what=what,
                ours=seconds(ours),
                peer=f"{name} {seconds(peer)}",
                ratio=peer / ours,
                bar=f">= {times:.2g} x as fast",
                met=peer >= times * ours,
            )
        )

    def within(
        self,
        what: str,
        ours: float,
        *,
        limit: float,
        show: Callable[[float], str] | None = None,
        note: str = "",
    ) -> None:
        """Take a row whose bar is a figure of its own."""
        show = show or seconds
        self.add(Row(what=what, ours=show(ours), peer=note, bar=f"<= {show(limit)}", met=ours <= limit))

    def figure(self, what: str, ours: str, *, peer: str = "", ratio: float | None = None) -> None:
        """Take a row without a bar."""
        self.add(Row(what=what, ours=ours, peer=peer, ratio=ratio))


def seconds(value: float) -> str:
    """Write a time in the unit that suits it."""
    if abs(value) < 1e-3:
        return f"{value * 1e6:.0f} us"
    return f"{value * 1e3:.1f} ms" if abs(value) < 1 else f"{value:.2f} s"


def megabytes(value: float) -> str:
    """Write bytes as MB."""
    return f"{value / 1e6:.1f} MB"


def timed(action: Callable[[], object]) -> float:
    """Return how many seconds `action` took."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def interleave(rounds: int, sides: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Measure all sides once a round, forwards and backwards in turn, so that drift hits all of them."""
    found: dict[str, list[T]] = {name: [] for name in sides}
    names = list(sides)
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            found[name].append(sides[name]())
    return found


def median_times(rounds: int, sides: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median over rounds of how long each side takes."""
    found = interleave(rounds, {name: _timer(action) for name, action in sides.items()})
    return {name: statistics.median(times) for name, times in found.items()}


def _timer(action: Callable[[], object]) -> Callable[[], float]:
    return lambda: timed(action)


@dataclass(frozen=True)
class Latency:
    """Median and 99th percentile of one round's calls, in seconds."""

    median: float
    p99: float

    @classmethod
    def of(cls, times: Sequence[float]) -> Latency:
        """Return those of these times."""
        ordered = sorted(times)
        return cls(ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)])

    @classmethod
    def over(cls, rounds: Sequence[Latency]) -> Latency:
        """Return the medians over rounds."""
        return cls(statistics.median(r.median for r in rounds), statistics.median(r.p99 for r in rounds))

    def __str__(self) -> str:
        return f"{seconds(self.median)} (p99 {seconds(self.p99)})"


def latency(call: Callable[[int], object], *, calls: int, at_most_seconds: float = 1.0) -> Latency:
    """Time up to `calls` calls one by one, for no longer than that."""
    clock = time.perf_counter
    times: list[float] = []
    end = clock() + at_most_seconds
    for number in range(calls):
        started = clock()
        call(number)
        ended = clock()
        times.append(ended - started)
        if ended > end and number > 10:
            break
    return Latency.of(times)


def run_python(arguments: Sequence[str], *, environ: Mapping[str, str], folder: Path) -> str:
    """Run this interpreter with its bytecode written, and return what it printed.

    Raises:
        RuntimeError: it failed; the text is what it said.
    """
    variables = {**os.environ, **environ}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [sys.executable, *arguments], env=variables, cwd=folder, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)[:80]} failed: {done.stderr.strip()[-600:]}")
    return done.stdout


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    cells = [("what", "ours", "beside", "ratio", "bar", "")]
    cells.append(("---",) * 6)
    for row in rows:
        ratio = f"{row.ratio:.2f} x" if row.ratio is not None else ""
        verdict = "" if row.met is None else "met" if row.met else "**MISSED**"
        cells.append((row.what, row.ours, row.peer, ratio, row.bar, verdict))
    widths = [max(len(line[column]) for line in cells) for column in range(6)]
    return "\n".join(
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |"
        for line in cells
    )
