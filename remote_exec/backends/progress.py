"""How far a backend is with bringing a host up: said by what does it, heard by whoever waits for it in that thread."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

_hearer: ContextVar[Callable[[str], None] | None] = ContextVar("hearer", default=None)


@contextmanager
def heard_by(hear: Callable[[str], None]) -> Generator[None, None, None]:
    """Have somebody hear what is told within, in one line each time.

    Example:
        >>> with heard_by(print):
        ...     tell("12 of 60 MB")
        12 of 60 MB
    """
    before = _hearer.set(hear)
    try:
        yield
    finally:
        _hearer.reset(before)


def tell(detail: str) -> None:
    """Say how far it is."""
    if (hear := _hearer.get()) is not None:
        hear(detail)
