"""What benchmarks run on hosts; a module of its own, since hosts have none of what the others import."""

from __future__ import annotations

import os
from array import array

_kept: dict[str, bytes] = {}


def noise(size: int) -> bytes:
    """Return random bytes, made once."""
    if "noise" not in _kept or len(_kept["noise"]) != size:
        _kept["noise"] = os.urandom(size)
    return _kept["noise"]


def numbers(size: int) -> bytes:
    """Return integers of four bytes, counted upwards again and again, made once."""
    if "numbers" not in _kept or len(_kept["numbers"]) != size:
        block = array("I", range(1 << 16)).tobytes()  # longer than the compressor looks back
        _kept["numbers"] = (block * (size // len(block) + 1))[:size]
    return _kept["numbers"]


def prepare(size: int) -> None:
    """Have both made."""
    noise(size)
    numbers(size)


def size_of(data: bytes) -> int:
    """Take an argument."""
    return len(data)
