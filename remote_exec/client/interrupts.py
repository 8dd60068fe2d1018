"""Ctrl-C is heard where it does no harm: not between a call's bytes, nor between an answer and whose it is.

The thread that waits is the thread that sends and reads, for others too. A KeyboardInterrupt raised anywhere in there
would leave a frame half sent, or lose another thread's answer. So while the main thread is in there, Python's own
handler gives way to one that takes note, and `check` raises where nothing is under way; the waiting threads look
around every few hundredths of a second anyhow. Where something blocks, another is raised at once. A program's own
handler is left alone.
"""

from __future__ import annotations

import sys
import time
from importlib import import_module
from threading import get_ident, main_thread
from types import FrameType
from typing import Any

BLOCKED_SECONDS = 1.0  # one that has not been raised in this time will not be soon

_signal: Any = import_module("_signal")  # `signal` takes twenty times as long, for its enumerations
SIGINT: int = _signal.SIGINT
_asked = False
_asked_at = 0.0


def shield() -> bool:
    """Take note of Ctrl-C from now on instead of raising it; False where there is nothing to be done.

    Example:
        >>> shielded = shield()
        >>> try:
        ...     send_and_read()
        ... finally:
        ...     if shielded:
        ...         unshield()
    """
    global _asked
    if get_ident() != main_thread().ident or _signal.getsignal(SIGINT) is not _signal.default_int_handler:
        return False
    _asked = False
    try:
        _signal.signal(SIGINT, _take_note)
    except ValueError:  # an interpreter within another
        return False
    return True


def unshield() -> None:
    """Raise Ctrl-C again; also the one that was taken note of.

    Raises:
        KeyboardInterrupt: there was one.
    """
    if _signal.getsignal(SIGINT) is _take_note:
        _signal.signal(SIGINT, _signal.default_int_handler)
    check()


def check() -> None:
    """Raise what was taken note of, in the main thread.

    Raises:
        KeyboardInterrupt: there was a Ctrl-C.
    """
    global _asked
    if _asked and get_ident() == main_thread().ident:
        _asked = False
        raise KeyboardInterrupt


def ends_program() -> bool:
    """Whether a Ctrl-C is what this program ends by."""
    return issubclass(getattr(sys, "last_type", None) or Exception, KeyboardInterrupt)


def _take_note(_number: int, _frame: FrameType | None) -> None:
    global _asked, _asked_at
    now = time.monotonic()
    if not _asked:
        _asked, _asked_at = True, now
    elif now - _asked_at > BLOCKED_SECONDS:
        _asked = False
        _signal.signal(SIGINT, _signal.default_int_handler)
        raise KeyboardInterrupt
