"""What the tests of faults run in workers: it imports the standard library alone, and so is there at once."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import subprocess
import sys
import time
from typing import Any


def note(path: str, line: object) -> None:
    """Write down that something was run: one line in one write."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(fd, f"{line}\n".encode())
    finally:
        os.close(fd)


def pids() -> tuple[int, int]:
    """The worker's process id, and its fork server's."""
    return os.getpid(), os.getppid()


def hold(path: str, seconds: float, answer: Any = "held") -> Any:
    """Write down who runs it, take some time, and answer."""
    note(path, os.getpid())
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.01)
    return answer


def noted(path: str, item: int) -> int:
    """One item of a map."""
    note(path, item)
    time.sleep(0.0003)
    return item * item


def size_of(data: Any) -> int:
    return len(data)


def zeros(size: int) -> bytearray:
    return bytearray(size)


def swallow(path: str) -> None:
    """Heed no interrupt."""
    note(path, os.getpid())
    while True:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            pass


def hold_the_gil(path: str) -> None:
    """A call into C that does not let go."""
    note(path, os.getpid())
    ctypes.PyDLL(None).sleep(60)


def sleep(path: str) -> None:
    note(path, os.getpid())
    time.sleep(60)


def with_children(path: str) -> None:
    """Start a child, a grandchild, and one that has left the session; then wait."""
    inner = "import subprocess, sys; subprocess.run(['sleep', '61'])"
    child = subprocess.Popen([sys.executable, "-S", "-c", inner])
    left = subprocess.Popen(["sleep", "62"], start_new_session=True)
    note(path, f"{os.getpid()} {child.pid} {left.pid}")
    time.sleep(60)


def repeated(size: int, times: int) -> bytes:
    """A big result that can be told from any other."""
    return bytes(index % 256 for index in range(size)) * times


_kept: list[subprocess.Popen[bytes]] = []


def keep_a_child() -> int:
    """A child that belongs to the module, not to the call; return its process id."""
    if not _kept:
        _kept.append(subprocess.Popen(["sleep", "63"]))
    return _kept[0].pid


def print_and_die(how: str) -> None:
    """Print, and end the worker in the same moment."""
    print("printed before the end", flush=True)
    if how == "exit":
        os._exit(7)
    os.kill(os.getpid(), signal.SIGKILL)


class EndsWhenLoaded:
    """An argument that ends the process that loads it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (9,)


class SleepsWhenLoaded:
    """What is for ever being loaded."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return sleep, (self.path,)


def takes(_argument: object) -> None:
    """A function that is never begun."""


def die_at_five(item: int) -> int:
    if item == 5:
        os._exit(5)
    return item


def fail_at_odd(item: int) -> int:
    if item % 2:
        raise ValueError(f"the item is odd: {item}")
    return item


def fail_with(message: str) -> None:
    raise ValueError(message)


class Mark:
    """Something that a function closes over, and that can be counted."""

    def __init__(self, number: int) -> None:
        self.number = number


def count_marks() -> int:
    """How many marks live in this worker."""
    return sum(isinstance(each, Mark) for each in gc.get_objects())
