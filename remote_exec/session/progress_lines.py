"""Lines that are written over and over, such as progress bars: only some of their states leave, the last one always."""

from __future__ import annotations

import threading
import time
from typing import Any

EVERY_SECONDS = 0.1


class ProgressLines:
    """A text stream before another. All that is written passes at once, in its order, but for states of one line
    that follow each other quickly: of these each takes the place of the one before.

    Args:
        stream: where it goes.
        every: seconds between two states that pass.
    """

    def __init__(self, stream: Any, *, every: float = EVERY_SECONDS) -> None:
        self._stream = stream
        self._every = every
        self._lock = threading.RLock()
        self._held = ""
        self._passed_at = 0.0
        self._width = 0  # of the state that stands
        self._timer: threading.Timer | None = None
        self.other: ProgressLines | None = None  # what it holds back came before what is written here

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, or hold back the state of a line."""
        if text and self.other is not None and self.other._held:
            self.other.settle()
        with self._lock:
            if text.startswith("\r") and len(text) > 1 and "\n" not in text:
                self._held = text
                wait = self._passed_at + self._every - time.monotonic()
                if wait <= 0:
                    self._pass()
                elif self._timer is None:
                    self._timer = threading.Timer(wait, self._timed)
                    self._timer.daemon = True
                    self._timer.start()
            elif text:
                self._pass()
                self._width = 0
                self._stream.write(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush what has passed; programs flush after each state, so one that is held stays so."""
        with self._lock:
            self._stream.flush()

    def settle(self) -> None:
        """Let what is held back pass."""
        with self._lock:
            self._pass()
            self._stream.flush()

    def _timed(self) -> None:
        with self._lock:
            self._timer = None
            self._pass()
            self._stream.flush()

    def _pass(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._held:
            state = self._held.rpartition("\r")[2]
            self._stream.write(f"\r{state.ljust(self._width)}" + ("" if state else "\r"))
            self._held, self._width = "", len(state)
            self._passed_at = time.monotonic()
