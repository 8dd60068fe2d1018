"""Samples, rounds, rows and tables of the benchmarks. Knows nothing of what is measured."""

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

MANY = 100  # repetitions, from which on a 99th percentile is one
TIMEOUT_SECONDS = 240.0


@dataclass(frozen=True)
class Sample:
    """All times of one side, in seconds, and what is told of them."""

    median: float
    p99: float
    worst: float
    repetitions: int

    @classmethod
    def of(cls, times: Sequence[float]) -> Sample:
        """Take these times together."""
        ordered = sorted(times)
        p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
        return cls(statistics.median(ordered), p99, ordered[-1], len(ordered))

    def __str__(self) -> str:
        if self.repetitions < MANY:
            return f"{seconds(self.median)} (worst {seconds(self.worst)}, n={self.repetitions})"
        return f"{seconds(self.median)} (p99 {seconds(self.p99)}, n={self.repetitions:,})"


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
    rows: list[Row] = field(default_factory=list[Row])
    missing: set[str] = field(default_factory=set[str])
    on_row: Callable[[Row], None] = print

    def add(self, row: Row) -> None:
        """Take a row."""
        self.rows.append(row)
        self.on_row(row)

    def rounds(self, usual: int) -> int:
        """Return how many rounds to measure: few when quick."""
        return max(2, usual // 3) if self.quick else usual

    def at_most(self, what: str, ours: Sample, peer: Sample, *, limit: float, name: str) -> None:
        """Take a row whose bar is that our median is at most `limit` times the median of the peer `name`."""
        self.compared(what, (ours.median, str(ours)), (peer.median, f"{name} {peer}"), limit=limit)

    def compared(self, what: str, ours: tuple[float, str], peer: tuple[float, str], *, limit: float) -> None:
        """Take a row whose bar is `ours <= limit * peer`; both are a value and how it is told."""
        ratio = ours[0] / peer[0]
        bar = f"<= {limit:g} x"
        self.add(Row(what=what, ours=ours[1], peer=peer[1], ratio=ratio, bar=bar, met=ratio <= limit))

    def faster(self, what: str, ours: Sample, peer: Sample, *, times: float, name: str) -> None:
        """Take a row whose bar is that our median is at least `times` times as fast as the peer's."""
        ratio = peer.median / ours.median
        bar = f">= {times:.2g} x as fast"
        self.add(
            Row(what=what, ours=str(ours), peer=f"{name} {peer}", ratio=ratio, bar=bar, met=ratio >= times)
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

    def beside(self, what: str, ours: Sample, peer: Sample, *, name: str) -> None:
        """Take a row without a bar: how many times as long as the peer we take."""
        self.figure(what, str(ours), peer=f"{name} {peer}", ratio=ours.median / peer.median)

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


def timer(action: Callable[[], object]) -> Callable[[], float]:
    """Return what times `action` when it is called."""
    return lambda: timed(action)


def interleave(rounds: int, sides: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Measure all sides once a round, forwards and backwards in turn, so that drift hits all of them."""
    found: dict[str, list[T]] = {name: [] for name in sides}
    names = list(sides)
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            found[name].append(sides[name]())
    return found


def measured(rounds: int, sides: Mapping[str, Callable[[], float]]) -> dict[str, Sample]:
    """Interleave sides that return what they took, after one turn of each that does not count."""
    for side in sides.values():
        side()
    return {name: Sample.of(times) for name, times in interleave(rounds, sides).items()}


def calls_timed(call: Callable[[int], object], *, calls: int, at_most_seconds: float = 1.0) -> list[float]:
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
    return times


def run_python(arguments: Sequence[str], *, environ: Mapping[str, str], folder: Path) -> str:
    """Run this interpreter with its bytecode written, and return what it printed.

    Raises:
        RuntimeError: it failed; the text is what it said.
        subprocess.TimeoutExpired: it took longer than four minutes.
    """
    done = subprocess.run(
        [sys.executable, *arguments],
        env=with_bytecode(environ),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)[:80]} failed: {done.stderr.strip()[-600:]}")
    return done.stdout


def first_line(
    arguments: Sequence[str], *, environ: Mapping[str, str], folder: Path
) -> tuple[str, float, float]:
    """Run this interpreter; return its first line, when that came and when the process ended, in seconds.

    Raises:
        RuntimeError: it failed.
    """
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *arguments],
        env=with_bytecode(environ),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        came = time.perf_counter() - started
        process.wait(TIMEOUT_SECONDS)
    ended = time.perf_counter() - started
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)[:80]} ended with {process.returncode}")
    return line.strip(), came, ended


def with_bytecode(environ: Mapping[str, str]) -> dict[str, str]:
    """Return this process's variables and those, for a child that writes its bytecode."""
    variables = {**os.environ, **environ}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    return variables


def summary(rows: Sequence[Row]) -> str:
    """Say how many bars are met."""
    judged = [row.met for row in rows if row.met is not None]
    return f"{sum(judged)} of {len(judged)} bars met"


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    cells = [("what", "ours", "beside", "ratio", "bar", "")]
    cells.append(("---", "---", "---", "---", "---", "---"))
    for row in rows:
        ratio = f"{row.ratio:.2f} x" if row.ratio is not None else ""
        verdict = "" if row.met is None else "met" if row.met else "**MISSED**"
        cells.append((row.what, row.ours, row.peer, ratio, row.bar, verdict))
    widths = [max(len(line[column]) for line in cells) for column in range(6)]
    return "\n".join(
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |"
        for line in cells
    )
