"""Which of two versions of this package is the newer one."""

from __future__ import annotations

import contextlib


def numbers_of(version: str) -> tuple[int, ...]:
    """Return what versions are compared by.

    Example:
        >>> numbers_of("0.10.2") > numbers_of("0.9")
        True
    """
    numbers: list[int] = []
    for part in version.split("."):
        with contextlib.suppress(ValueError):
            numbers.append(int(part))
    return tuple(numbers)
