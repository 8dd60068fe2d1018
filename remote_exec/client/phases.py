"""What this process itself does before a call can be sent (capture, transfer, ...): watched, since it may take long.

Whoever does it is busy, so another thread looks at what is under way and tells the reporter of what lasts. It sleeps
while there is nothing: entering a phase costs two assignments, and a wake-up ten times a second at the most.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .reporter import Reporter

LOOK_SECONDS = 0.1


class Span:
    """One phase under way; its `seconds` are known at its end.

    Attributes:
        name: capture, transfer, start.
        of: the function whose call it is a part of.
        detail: how far it is, for people.
        seconds: how long it has taken.
    """

    def __init__(self, phases: Phases, name: str, of: str) -> None:
        self.name, self.of = name, of
        self.detail = ""
        self.seconds = 0.0
        self.started_at = 0.0
        self._size = self._moved = 0
        self._phases = phases

    def expect(self, size_bytes: int) -> None:
        """Take note of how many bytes are to be moved."""
        self._size, self._moved = size_bytes, 0

    def moved(self, size_bytes: int) -> None:
        """Take note that so many more bytes have gone."""
        self._moved += size_bytes
        of = f" of {self._size / 1e6:,.0f}" if self._size else ""
        self.detail = f"{self._moved / 1e6:,.0f}{of} MB"

    def tell(self, detail: str) -> None:
        """Take note of how far it is, in words."""
        self.detail = detail

    def __enter__(self) -> Span:
        self.started_at = time.monotonic()
        self._phases._enter(self)
        return self

    def __exit__(
        self, cls: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.monotonic() - self.started_at
        self._phases._leave(self)


class Phases:
    """All that are under way in this process, from whatever thread."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._open: list[Span] = []
        self._some = threading.Event()
        self._thread: threading.Thread | None = None

    def report_to(self, reporter: Reporter) -> None:
        """Have another reporter hear of them."""
        self._reporter = reporter

    def watch(self, name: str, of: str) -> Span:
        """Return a phase, to be entered by ``with``."""
        return Span(self, name, of)

    def _enter(self, phase: Span) -> None:
        self._open.append(phase)
        if self._thread is None:
            self._thread = threading.Thread(target=self._look, name="remote_exec-phases", daemon=True)
            self._thread.start()
        if not self._some.is_set():
            self._some.set()

    def _leave(self, phase: Span) -> None:
        self._open.remove(phase)
        if not self._open:
            self._reporter.phase(None)

    def _look(self) -> None:
        while True:
            if not self._open:
                self._some.clear()
                if not self._open:
                    self._some.wait()
            time.sleep(LOOK_SECONDS)
            for phase in self._open[-1:]:  # the innermost
                self._reporter.phase(phase)
