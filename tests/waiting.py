"""Waiting for what is bound to come; also in workers, which have this file where a test's function uses it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

SECONDS = 60.0  # no test should come near it
T = TypeVar("T")


def until(found: Callable[[], T], seconds: float = SECONDS) -> T:
    """Wait until `found()` is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < deadline, f"still not true after {seconds:g} s"
        time.sleep(0.01)
    return result
