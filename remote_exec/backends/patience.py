"""How long a host may take to answer: said once, above, and heeded by all that is done until it has.

What a host does once it has answered (taking in an archive, having uv bring a Python) may take longer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

from ..model.errors import HostUnavailable

LEAST_SECONDS = 0.05

_asked: ContextVar[float] = ContextVar("asked", default=0.0)
_present: ContextVar[Patience | None] = ContextVar("present", default=None)


@contextmanager
def asked_for(seconds: float) -> Generator[None]:
    """Have `seconds_or` return so many: what the options of a call say."""
    before = _asked.set(seconds)
    try:
        yield
    finally:
        _asked.reset(before)


def seconds_or(usual: float) -> float:
    """Return how many seconds the options say that a host may take to answer; `usual`: they do not."""
    return _asked.get() or usual


class Patience:
    """One wait for a host's first answer.

    Attributes:
        seconds: how long it may take.
        end: by when, on the monotonic clock; infinite once the host has answered.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.end = time.monotonic() + seconds

    @property
    def heard(self) -> bool:
        """Whether the host has answered."""
        return self.end == math.inf


@contextmanager
def within(seconds: float) -> Generator[Patience]:
    """Have what is done within give up after so many seconds, or sooner, where that was said before.

    Example:
        >>> with within(2.0):
        ...     left(15.0)
        2.0
    """
    with heeding(Patience(seconds)) as mine:
        yield mine


@contextmanager
def heeding(mine: Patience) -> Generator[Patience]:
    """As `within`, of a wait that somebody else may know of."""
    outer = _present.get()
    before = _present.set(mine if outer is None or mine.end < outer.end else outer)
    try:
        yield mine
    finally:
        _present.reset(before)


def share(other: Patience) -> None:
    """Have what is done elsewhere on our behalf give up when it would here."""
    present = _present.get()
    if present is not None and not other.heard and present.end < other.end:
        other.end, other.seconds = present.end, present.seconds


def left(most: float) -> float:
    """Return for how many seconds to wait for an answer: so many at most."""
    present = _present.get()
    return most if present is None else max(LEAST_SECONDS, min(most, present.end - time.monotonic()))


def answered() -> None:
    """Wait without that end from now on: the host has answered."""
    present = _present.get()
    if present is not None:
        present.end = math.inf


def is_over() -> bool:
    """Whether it is time to give up."""
    present = _present.get()
    return present is not None and time.monotonic() >= present.end


def given_up(name: str, *, meanwhile: str = "") -> HostUnavailable:
    """Return what to raise for a host that is given up.

    Args:
        name: of the host.
        meanwhile: what was waited for, where it is not the host itself.
    """
    present = _present.get()
    seconds = present.seconds if present is not None else 0.0
    return HostUnavailable(
        f"{name} has not answered within {seconds:g} s (connection_timeout)"
        + (f"; {meanwhile}" if meanwhile else ""),
        hint=f"is it up, and does a firewall or VPN stand between? see: remote-exec doctor {name}",
    )
