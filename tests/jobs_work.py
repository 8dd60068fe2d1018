"""What tests of jobs and of faults run in workers: it imports the standard library alone, and so is there at once."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def note(path: str, line: object) -> None:
    """Write down that something was run: one line in one write."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(fd, f"{line}\n".encode())
    finally:
        os.close(fd)


def hold(path: str, seconds: float, answer: Any = "held") -> Any:
    """Write down who runs it, take some time, and answer."""
    note(path, os.getpid())
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.01)
    return answer


def pids() -> tuple[int, int]:
    """The worker's process id, and its fork server's."""
    return os.getpid(), os.getppid()


def hold_many(path: str, size: int) -> bytes:
    """As `hold`, with an answer of so many bytes."""
    return bytes(hold(path, 1.5, b"x") * size)


def noted(path: str, item: int) -> int:
    """One item of a map."""
    note(path, item)
    time.sleep(0.0003)
    return item * item


def note_size(path: str, data: Any) -> int:
    note(path, len(data))
    return len(data)


def size_of(data: Any) -> int:
    return len(data)


def zeros(size: int) -> bytearray:
    return bytearray(size)


def repeated(size: int, times: int) -> bytes:
    """A big result that can be told from any other."""
    return bytes(index % 256 for index in range(size)) * times


def count_slowly(path: str) -> Iterator[int]:
    """A generator that tells when it is closed."""
    item = 0
    try:
        while True:
            note(path, item)
            yield item
            item += 1
            time.sleep(0.02)
    finally:
        note(path, "closed")


# --- functions that do not heed ---


def sleep(path: str) -> None:
    note(path, os.getpid())
    time.sleep(60)


def swallow(path: str) -> None:
    """Heed no interrupt."""
    note(path, os.getpid())
    while True:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            pass


def ignore_all(path: str) -> None:
    """Heed neither interrupt nor SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    swallow(path)


def hold_the_gil(path: str) -> None:
    """A call into C that does not let go."""
    note(path, os.getpid())
    ctypes.PyDLL(None).sleep(60)


def stop_itself(path: str) -> None:
    """Be stopped, as by a debugger."""
    note(path, os.getpid())
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(60)


def with_children(path: str) -> None:
    """Start a child, a grandchild, and one that has left the session; then wait."""
    inner = "import subprocess, sys; subprocess.run(['sleep', '61'])"
    child = subprocess.Popen([sys.executable, "-S", "-c", inner])
    left = subprocess.Popen(["sleep", "62"], start_new_session=True)
    note(path, f"{os.getpid()} {child.pid} {left.pid}")
    time.sleep(60)


_kept: list[subprocess.Popen[bytes]] = []


def keep_a_child() -> int:
    """A child that belongs to the module, not to the call; return its process id."""
    if not _kept:
        _kept.append(subprocess.Popen(["sleep", "63"]))
    return _kept[0].pid


def living(pids: list[int]) -> list[int]:
    """Return which of these processes are there and are not zombies."""
    return [pid for pid in pids if _state(pid) not in ("", "Z")]


def _state(pid: int) -> str:
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


# --- functions that die or fail ---


def print_and_die(how: str) -> None:
    """Print, and end the worker in the same moment."""
    print("printed before the end", flush=True)
    if how == "exit":
        os._exit(7)
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_first(path: str, seconds: float = 0.0) -> int:
    """Kill itself until it has been tried twice, then take some time; return how often it was tried."""
    note(path, os.getpid())
    with open(path, encoding="ascii") as file:
        tries = len(file.readlines())
    if tries < 2:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(seconds)
    return tries


class BusyError(Exception):
    """One that may pass."""

    retryable = True


def fail_at_first(path: str, seconds: float) -> int:
    """Take some time and fail, until it has been tried twice; return how often it was tried."""
    note(path, os.getpid())
    with open(path, encoding="ascii") as file:
        tries = len(file.readlines())
    if tries < 2:
        time.sleep(seconds)
        raise BusyError
    return tries


def die_at_five(item: int) -> int:
    if item == 5:
        os._exit(5)
    return item


def note_and_fail(path: str) -> None:
    note(path, os.getpid())
    raise ValueError("an error of the user")


def fail_with_locals(number: int) -> None:
    half, password = number / 2, "hunter2"
    raise ValueError(f"no luck with {int(half * 2)}" if password else "")


def fail_at_odd(item: int) -> int:
    if item % 2:
        raise ValueError(f"the item is odd: {item}")
    return item


def fail_with(message: str) -> None:
    raise ValueError(message)


# --- what is not a plain value ---


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


class Mark:
    """Something that a function closes over, and that can be counted."""

    def __init__(self, number: int) -> None:
        self.number = number


def count_marks() -> int:
    """How many marks live in this worker."""
    return sum(isinstance(each, Mark) for each in gc.get_objects())
