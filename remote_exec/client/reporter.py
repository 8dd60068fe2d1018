"""What is shown while one waits: output as it comes, log records to the caller's logging, phases that last.

Core code never prints; it tells a `Reporter`. `Console` is the one for scripts: one updating line in a terminal,
plain lines elsewhere, nothing at all for calls that are quick and silent.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from .calls import Call

SHOWN_AFTER_SECONDS = 0.5
REPEAT_SECONDS = 10.0  # where lines cannot be updated, how often one is repeated


class Reporter(Protocol):
    """Hears what happens to calls; called by whoever reads the channels."""

    def output(self, call: Call | None, index: int, data: bytes) -> None:
        """The call printed `data` to stdout (0) or stderr (1)."""

    def event(self, call: Call | None, data: bytes) -> None:
        """The call sent an event, as JSON."""

    def tick(self, call: Call | None) -> None:
        """A tenth of a second has passed and `call` has waited for longest."""

    def ended(self, call: Call) -> None:
        """The call's outcome is there."""

    def note(self, text: str) -> None:
        """Something is to be said once."""


class Console:
    """Writes to this process's stdout and stderr, as they are at the time."""

    def __init__(self) -> None:
        self._line = ""  # the status line that stands on the terminal now
        self._said = ""
        self._said_at = 0.0
        self._notes: set[str] = set()

    def output(self, call: Call | None, index: int, data: bytes) -> None:
        """Write what the call printed, as if it had been printed here."""
        self._clear()
        stream = sys.stderr if index else sys.stdout
        _write(stream, data.decode(errors="replace"))

    def event(self, call: Call | None, data: bytes) -> None:
        """Hand log records to this process's logging, show progress."""
        event: dict[str, Any] = json.loads(data)
        if "log" in event:
            self._clear()
            _relog(event["log"])
        elif "progress" in event and _interactive(sys.stderr):
            self._show(_progress_line(event["progress"]))

    def tick(self, call: Call | None) -> None:
        """Say what the call waits for, once it has waited for a while."""
        if call is None or time.monotonic() - call.started_at < SHOWN_AFTER_SECONDS:
            return
        channel = call.channel
        if channel is None or channel.granted is not None:
            if self._line and channel is not None and channel.in_flight:
                self._clear()
            return
        why = channel.waits.why if channel.waits is not None else "waiting for the agent"
        self._show(f"{call.captured.name}: {why} ({time.monotonic() - call.started_at:.0f} s)")

    def ended(self, call: Call) -> None:
        """Take the status line away."""
        self._clear()

    def note(self, text: str) -> None:
        """Say it on stderr, once."""
        if text not in self._notes:
            self._notes.add(text)
            self._clear()
            _write(sys.stderr, f"remote_exec: {text}\n")

    def _show(self, text: str) -> None:
        if _interactive(sys.stderr):
            if text != self._line:
                _write(sys.stderr, f"\r\033[K{text[:200]}")
                self._line = text
            return
        kind = text.rpartition(" (")[0]
        now = time.monotonic()
        if kind != self._said or now - self._said_at > REPEAT_SECONDS:
            self._said, self._said_at = kind, now
            _write(sys.stderr, f"remote_exec: {text}\n")

    def _clear(self) -> None:
        if self._line:
            self._line = ""
            _write(sys.stderr, "\r\033[K")


def _interactive(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def _write(stream: TextIO | None, text: str) -> None:
    if stream is not None:
        try:
            stream.write(text)
            stream.flush()
        except (OSError, ValueError):
            pass  # closed: the job's log has it


def _progress_line(bar: dict[str, Any]) -> str:
    done, total = bar.get("done", 0), bar.get("total")
    head = f"{bar.get('desc') or 'progress'}: "
    rate = f", {bar['rate']:.1f}/s" if bar.get("rate") else ""
    if not total:
        return f"{head}{done:g}{rate}"
    filled = int(30 * min(1.0, done / total))
    return f"{head}[{'#' * filled}{'.' * (30 - filled)}] {done:g}/{total:g}{rate}"


def _relog(row: dict[str, Any]) -> None:
    logger = logging.getLogger(row["name"])
    record = logger.makeRecord(
        row["name"], row["level"], row["file"], row["line"], row["message"], (), None, row["function"]
    )
    record.created = row["created"]
    record.exc_text = row.get("exception")
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)
