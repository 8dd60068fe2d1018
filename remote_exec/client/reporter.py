"""What is shown while one waits: output as it comes, log records to the caller's logging, phases that last.

Core code never prints; it tells a `Reporter`. `Console` is the one for scripts: one updating line in a terminal,
plain lines elsewhere, nothing at all for calls that are quick and silent. Of its own it writes to stderr only.
"""

from __future__ import annotations

import codecs
import contextlib
import logging
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from .calls import Call
    from .jobs import JobFuture
    from .phases import Span

SHOWN_AFTER_SECONDS = 0.5
WRITTEN_AFTER_SECONDS = 2.0  # where lines cannot be updated, they stay
REPEAT_SECONDS = 10.0  # where lines cannot be updated, how often one is repeated
REST_CHARACTERS = 1 << 16  # of a line that does not end, while others print too
BAR_WIDTH = 20
PROGRESS = "progress"  # as news, one bar is as good as the next

Bars = list[dict[str, Any]]


class Reporter(Protocol):
    """Hears what happens to calls; called by whoever reads the channels, in any thread."""

    def output(self, call: Call | None, index: int, data: bytes) -> None:
        """The call printed `data` to stdout (0) or stderr (1)."""

    def event(self, call: Call | None, event: dict[str, Any]) -> None:
        """The call told of something: a log record, or its progress."""

    def tick(self, call: Call, phase: str, why: str, *, waited_for: bool) -> None:
        """A tenth of a second has passed; what the call is at and why, and whether some thread waits for it."""

    def phase(self, phase: Span | None) -> None:
        """This process is busy with a phase of a call; None: it is done."""

    def left(self) -> None:
        """Nobody waits any longer, for now."""

    def waiting(self, job: JobFuture) -> AbstractContextManager[None]:
        """Some thread waits for a durable job, until it leaves the context."""
        ...

    def ended(self, call: Call) -> None:
        """The call's outcome is there."""

    def note(self, text: str) -> None:
        """Something is to be said once."""


class _Printing:
    """A call that has printed and has not ended: what has come of its lines."""

    def __init__(self) -> None:
        self.rests = ["", ""]  # lines that have begun and are held back
        self._decoders = [codecs.getincrementaldecoder("utf-8")("replace") for _ in range(2)]

    def text(self, index: int, data: bytes) -> str:
        """Return what was printed; a character that is cut in two comes with its other half."""
        return self._decoders[index].decode(data)

    def whole_lines(self, index: int, text: str) -> str:
        """Return the lines that are whole now, and hold the rest back."""
        whole, newline, rest = (self.rests[index] + text).rpartition("\n")
        if len(rest) > REST_CHARACTERS:
            whole, newline, rest = whole + newline + rest, "\n", ""
        self.rests[index] = rest.rpartition("\r")[2]  # of a bar, what stands
        return whole + newline


class Console:
    """Writes to this process's stdout and stderr, as they are at the time.

    While one call prints, what it prints passes as it is. While several do, it comes in whole lines, and in a
    terminal each bears its function's name and its worker's process: ``train[4711] epoch 3``.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._line = ""  # the status line that stands on the terminal now
        self._open = [False, False]  # on which streams the last line has not ended; a terminal is both
        self._said = ""
        self._said_at = 0.0
        self._notes: set[str] = set()
        self._printing: dict[Call, _Printing] = {}
        self._bars: dict[Call, Bars] = {}

    def output(self, call: Call | None, index: int, data: bytes) -> None:
        """Write what the call printed, as if it had been printed here."""
        with self._lock:
            if call is None:  # after its end
                self._write(index, data.decode(errors="replace"))
                return
            printing = self._printing.get(call)
            if printing is None:
                printing = self._printing[call] = _Printing()
            text = printing.text(index, data)
            if len(self._printing) == 1 and not printing.rests[index]:
                self._write(index, text)
            else:
                self._write_lines(call, index, printing.whole_lines(index, text))

    def event(self, call: Call | None, event: dict[str, Any]) -> None:
        """Hand log records to this process's logging, remember progress for the next tick."""
        if "log" in event:
            with self._lock:
                self._clear()
            _relog(event["log"])
        elif (
            "progress" in event and call is not None
        ):  # of what has ended, or is shown by its log, nobody is told more
            with self._lock:
                if not self._bars:
                    self._said, self._said_at = (
                        PROGRESS,
                        time.monotonic(),
                    )  # not at once, where it takes a line
                self._bars[call] = event["progress"]

    def tick(self, call: Call, phase: str, why: str, *, waited_for: bool) -> None:
        """Say what the call waits for, or how far it is, once it has waited for a while."""
        name, seconds = call.captured.name, time.monotonic() - call.started_at
        # While nobody waits, the terminal is the program's: no line must move there by itself, least at a prompt.
        live = waited_for and interactive(sys.stderr)
        if not waited_for and hasattr(sys, "ps1"):
            return
        with self._lock:
            if self._bars and phase == "run":
                self._say(f"{name}: {progress_line(merged(self._bars.values()))}", key=PROGRESS, live=live)
            elif seconds < (SHOWN_AFTER_SECONDS if live else WRITTEN_AFTER_SECONDS):
                return
            elif phase != "run":
                self._say(
                    f"{name}: {phase}: {why} ({seconds:.0f} s)", key=f"{name}: {phase}: {why}", live=live
                )
            elif live:
                self._show(f"{name}: run ({seconds:.0f} s)")

    def left(self) -> None:
        """Take the status line away: whoever waited goes on."""
        if self._line:
            with self._lock:
                self._clear()

    def waiting(self, job: JobFuture) -> AbstractContextManager[None]:
        """Say nothing: what the job prints is shown."""
        return contextlib.nullcontext()

    def phase(self, phase: Span | None) -> None:
        """Say what this process is busy with, once that has taken a while."""
        with self._lock:
            if phase is None:
                self._clear()
                return
            seconds = time.monotonic() - phase.started_at
            live = interactive(sys.stderr)
            if seconds >= (SHOWN_AFTER_SECONDS if live else WRITTEN_AFTER_SECONDS):
                text = f"{phase.of}: {phase.name}"
                detail = f": {phase.detail}" if phase.detail else ""
                self._say(f"{text}{detail} ({seconds:.0f} s)", key=text, live=live)

    def ended(self, call: Call) -> None:
        """Take the status line away, and write what the call had begun to print."""
        with self._lock:
            printing = self._printing.get(call)
            if printing is not None:
                for index, rest in enumerate(printing.rests):
                    if rest:
                        self._write_lines(call, index, f"{rest}\n")
                del self._printing[call]
            self._bars.pop(call, None)
            self._clear()

    def note(self, text: str) -> None:
        """Say it on stderr, once."""
        with self._lock:
            if text not in self._notes:
                self._notes.add(text)
                self._clear()
                _write(sys.stderr, f"remote_exec: {text}\n")

    # --- under the lock ---------------------------------------------------------------------------------------

    def _write(self, index: int, text: str) -> None:
        if text:
            self._clear()
            stream = sys.stderr if index else sys.stdout
            _write(stream, text)
            self._open[index] = text[-1] != "\n"
            if interactive(stream) and interactive(sys.stdout if index else sys.stderr):
                self._open[1 - index] = self._open[index]

    def _write_lines(self, call: Call, index: int, text: str) -> None:
        stream = sys.stderr if index else sys.stdout
        if not text:
            return
        if interactive(stream):
            channel = call.channel
            pid = channel.granted.pid if channel is not None and channel.granted is not None else ""
            prefix = _dim(f"{call.captured.name}[{pid}] ")
            text = "".join(f"{prefix}{line}" for line in text.splitlines(keepends=True))
        self._write(index, f"\n{text}" if self._open[index] else text)

    def _say(self, text: str, *, key: str, live: bool) -> None:
        """Show it on the terminal's line; elsewhere write it, if `key` is news or was said long ago."""
        if live:
            self._show(text)
            return
        now = time.monotonic()
        if key != self._said or now - self._said_at > REPEAT_SECONDS:
            self._said, self._said_at = key, now
            self._clear()
            _write(sys.stderr, f"remote_exec: {text}\n")

    def _show(self, text: str) -> None:
        if self._open[1]:
            return  # what the call has begun to print stands there
        text = "".join(letter if letter.isprintable() else " " for letter in text)[: _columns() - 1]
        if text != self._line:
            _write(sys.stderr, f"{_erasing(self._line)}{text}")
            self._line = text

    def _clear(self) -> None:
        if self._line:
            _write(sys.stderr, _erasing(self._line))
            self._line = ""


def interactive(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal or a notebook, where a line can be drawn again."""
    try:
        if stream is None:
            return False
        return in_notebook(stream) or (stream.isatty() and os.environ.get("TERM") != "dumb")
    except ValueError:
        return False


def in_notebook(stream: TextIO) -> bool:
    """Whether what is written goes below a notebook's cell."""
    return type(stream).__module__ == "ipykernel.iostream"


def _erasing(line: str) -> str:
    """What takes a line away; a notebook knows carriage returns, but no terminal's codes."""
    if sys.stderr is not None and in_notebook(sys.stderr):
        return f"\r{' ' * len(line)}\r" if line else ""
    return "\r\033[K"


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError, AttributeError):
        return 80


def _dim(text: str) -> str:
    return text if os.environ.get("NO_COLOR") else f"\033[2m{text}\033[0m"


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:
        return
    try:
        try:
            stream.write(text)
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except (OSError, ValueError):
        pass  # closed: the job's log has it


# --- progress ------------------------------------------------------------------------------------------------


def merged(calls: Any) -> Bars:
    """Return the bars of several calls as one call's: those at the same depth, of the same name, are added up."""
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for bars in calls:
        for depth, bar in enumerate(bars):
            row = found.get((depth, bar["desc"]))
            if row is None:
                found[depth, bar["desc"]] = dict(bar)
                continue
            row["total"] = None if None in (row["total"], bar["total"]) else row["total"] + bar["total"]
            row["done"] += bar["done"]
            row["rate"] += bar["rate"]
    return list(found.values())


def progress_line(bars: Bars) -> str:
    """Return bars in one line, the outermost drawn.

    >>> progress_line([{"desc": "epochs", "done": 5, "total": 10, "rate": 2.5}])
    'epochs [##########..........] 5/10, 2.5/s, 2 s left'
    """
    return " · ".join(_bar(bar, drawn=not depth) for depth, bar in enumerate(bars))


def _bar(bar: dict[str, Any], *, drawn: bool) -> str:
    done, total, rate = bar["done"], bar["total"], bar["rate"]
    name = bar["desc"] or "progress"
    if not total:
        return f"{name} {done:g}, {rate:.1f}/s" if drawn and rate else f"{name} {done:g}"
    count = f"{done:g}/{total:g}"
    if not drawn:
        return f"{name} {count}"
    filled = int(BAR_WIDTH * min(1.0, done / total))
    left = f", {(total - done) / rate:.0f} s left" if rate and done < total else ""
    speed = f", {rate:.1f}/s" if rate else ""
    return f"{name} [{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {count}{speed}{left}"


def _relog(row: dict[str, Any]) -> None:
    logger = logging.getLogger(row["name"])
    record = logger.makeRecord(
        row["name"], row["level"], row["file"], row["line"], row["message"], (), None, row["function"]
    )
    record.created = row["created"]
    record.exc_text = row.get("exception")
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)
