"""What the ranks of a group print and tell, as one: whole lines with the rank before each, and rank 0's progress."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from .calls import Call, Printed
    from .jobs import JobFuture
    from .phases import Span
    from .reporter import Reporter

REST_BYTES = 1 << 16  # of a line that does not end


class RankLines:
    """What is shown of one group.

    Args:
        reporter: who shows it.
        shown: the call that it is shown as.
        printed: keeps what was printed.

    Attributes:
        awaited: how many threads wait for the group.
    """

    def __init__(self, reporter: Reporter, shown: Call, printed: Printed) -> None:
        self.reporter = reporter
        self.awaited = 0
        self._shown = shown
        self._printed = printed
        self._lock = threading.Lock()
        self._speaker = 0  # the rank that tells what is waited for: the lowest that has not ended

    def show(self, index: int, lines: bytes) -> None:
        """Show whole lines."""
        with self._lock:  # a line is not cut by another rank's
            self._printed.add(lines)
            self.reporter.output(None, index, lines)

    def log(self, row: dict[str, Any], prefix: str) -> None:
        """Hand a log record on."""
        told = {**row, "message": f"{prefix}{row['message']}", "text": f"{prefix}{row['text']}"}
        self._printed.add(told["text"].encode(errors="replace"))
        self.reporter.event(self._shown, {"log": told})

    def progress(self, event: dict[str, Any]) -> None:
        """Show the group's progress."""
        self.reporter.event(self._shown, event)

    def tick(self, rank: int, phase: str, why: str) -> None:
        """Tell what the group is at, if it is this rank's turn to do so."""
        with self._lock:
            self._speaker = min(self._speaker, rank)
            speaks = rank == self._speaker and self.awaited
        if speaks:  # of many that nobody waits for, none
            self.reporter.tick(self._shown, phase, why, waited_for=True)

    def quiet(self, rank: int) -> None:
        """This rank has nothing more to tell for now: it is the next one's turn."""
        with self._lock:
            if rank == self._speaker:
                self._speaker = rank + 1

    def ended(self) -> None:
        """The group has ended."""
        self.reporter.ended(self._shown)


class RankReporter:
    """The reporter of one rank's dispatcher."""

    def __init__(self, lines: RankLines, rank: int, prefix: str) -> None:
        self._lines = lines
        self._rank = rank
        self._prefix = prefix
        self._rests = [b"", b""]

    def output(self, call: Call | None, index: int, data: bytes) -> None:
        """Take in what it printed, and show the lines that are whole."""
        whole, newline, rest = (self._rests[index] + data).rpartition(b"\n")
        if len(rest) > REST_BYTES:
            whole, newline, rest = whole + newline + rest, b"\n", b""
        self._rests[index] = rest
        if newline:
            self._show(index, whole)

    def _show(self, index: int, whole: bytes) -> None:
        prefix = self._prefix.encode()
        # of a bar, which is drawn over and over, what stands at the end
        lines = (line.rstrip(b"\r").rpartition(b"\r")[2] for line in whole.split(b"\n"))
        self._lines.show(index, b"".join(prefix + line + b"\n" for line in lines))

    def event(self, call: Call | None, event: dict[str, Any]) -> None:
        """Hand on log records, and the progress of rank 0."""
        if "log" in event:
            self._lines.log(event["log"], self._prefix)
        elif not self._rank:
            self._lines.progress(event)

    def tick(self, call: Call, phase: str, why: str, *, waited_for: bool) -> None:
        """Tell what the group is at."""
        self._lines.tick(self._rank, phase, why)

    def phase(self, phase: Span | None) -> None:
        """Hand it on."""
        self._lines.reporter.phase(phase)

    def left(self) -> None:
        """Hand it on."""
        self._lines.reporter.left()

    def waiting(self, job: JobFuture) -> AbstractContextManager[None]:
        """Hand it on."""
        return self._lines.reporter.waiting(job)

    def ended(self, call: Call) -> None:
        """Its call has ended."""
        self.finish()

    def finish(self) -> None:
        """Show the line that it had begun."""
        for index, rest in enumerate(self._rests):
            if rest:
                self._show(index, rest)
        self._rests = [b"", b""]
        self._lines.quiet(self._rank)

    def note(self, text: str) -> None:
        """Hand it on."""
        self._lines.reporter.note(text)
