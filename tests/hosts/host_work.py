"""What the tests run on hosts; a module of its own, since hosts have no pytest."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from typing import Any


def double(x: Any) -> Any:
    return x * 2


def where() -> dict[str, str]:
    return {name: os.environ.get(name, "") for name in ("HOME", "SSH_CONNECTION", "SECRET_OF_MINE", "TOLD")}


def slowly(path: str, seconds: float) -> str:
    """Return after some seconds, and leave word of each time that it began."""
    with open(path, "a") as file:
        file.write("began\n")
    print("at work", flush=True)
    time.sleep(seconds)
    return "done"


def numbers(count: int) -> Iterator[int]:
    for number in range(count):
        time.sleep(0.05)
        yield number


class Counter:
    def __init__(self, data: bytes = b"") -> None:
        self.count = len(data)

    def add(self, data: bytes = b"") -> int:
        self.count += 1
        return self.count

    def nap(self, seconds: float) -> None:
        time.sleep(seconds)


def python() -> tuple[tuple[int, int], str]:
    return sys.version_info[:2], sys.base_prefix


def at_work(folder: str, until: str) -> str:
    """Leave word of where this runs, and wait for word that it may end; return where it ran."""
    home = os.environ["HOME"]
    with open(os.path.join(folder, f"began-{os.getpid()}-{time.monotonic_ns()}"), "w") as file:
        file.write(home)
    deadline = time.monotonic() + 60.0
    while not os.path.exists(os.path.join(folder, until)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return home


def home_of(item: int, seconds: float) -> tuple[int, str]:
    """Return the item, and where it was worked on."""
    time.sleep(seconds)
    return item, os.environ["HOME"]


def home_of_long(data: bytes) -> tuple[int, str]:
    """Return how much came, and where."""
    return len(data), os.environ["HOME"]
