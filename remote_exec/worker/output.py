"""What user code writes to descriptors 1 and 2, from Python, C or a child process: pipes, drained without waiting.

The fork server holds the reading ends too, so that the last lines of a worker that died are not lost. The main
thread drains at the end of each call, so that what was printed before the return is shown before the return; the
attendant thread drains while the call runs.
"""

from __future__ import annotations

import fcntl
import io
import os
import select
import sys
import termios
import threading
from collections.abc import Callable
from typing import Any

PIPE_SIZE = 1 << 18  # all pipes of a user share a quota of 64 MB; beyond it a pipe holds 8 kB
READ_SIZE = 1 << 18


def make_pipe() -> tuple[int, int]:
    """Return a pipe's (read, write) descriptors, the reading end non-blocking, large where the system allows."""
    reading, writing = os.pipe2(os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
    os.set_blocking(reading, False)
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        try:
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        except OSError:
            pass  # the user's pipe quota is used up: the default size does
    return reading, writing


def drain(fd: int) -> bytes:
    """Return what lies in a pipe now, at most `READ_SIZE` bytes."""
    try:
        return os.read(fd, READ_SIZE)
    except (BlockingIOError, OSError):
        return b""


def drain_all(fd: int) -> bytes:
    """Return all that lies in a pipe into which nobody writes any longer."""
    pieces = [drain(fd)]
    while pieces[-1] and sum(map(len, pieces)) < PIPE_SIZE:
        pieces.append(drain(fd))
    return b"".join(pieces)


def to_text(data: bytes) -> str:
    """Return output as a string that loses nothing, whatever it is; `from_text` is the way back."""
    return data.decode("utf-8", "surrogateescape")


def from_text(text: str) -> bytes:
    """Return the bytes that `to_text` was given."""
    return text.encode("utf-8", "surrogateescape")


def _capacity(fd: int) -> int:
    get_size = getattr(fcntl, "F_GETPIPE_SZ", None)
    return int(fcntl.fcntl(fd, get_size)) if get_size is not None else 1 << 16


def _held(fd: int) -> int:
    """Return how many bytes a pipe holds."""
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)


class Output:
    """The reading ends of a worker's own stdout and stderr. Shared by both threads, under `lock`."""

    def __init__(self, stdout: int, stderr: int) -> None:
        self.fds = (stdout, stderr)
        self._capacities = tuple(map(_capacity, self.fds))
        self.lock = threading.Lock()
        # called before Python prints when the other pipe holds something: two pipes do not know their order
        self.on_switch: Callable[[], None] | None = None
        self.terminals = (False, False)
        self._poll = select.poll()
        self._poll.register(stdout, select.POLLIN)
        self._poll.register(stderr, select.POLLIN)

    def set_terminals(self, stdout: bool, stderr: bool) -> None:
        """Say what the caller's own streams are: bars and colours go by what `isatty` answers."""
        self.terminals = (stdout, stderr)

    def flush(self) -> None:
        """Push what Python's own buffers hold into the pipes."""
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):
            self._flush_one_by_one()

    def _flush_one_by_one(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):
                pass  # user code closed or replaced it

    def other_pending(self, fd: int) -> bool:
        """Whether stderr's pipe holds something (fd 1), or stdout's (fd 2)."""
        poll = select.poll()  # one for each time: two threads must not ask the same at once
        poll.register(self.fds[2 - fd], select.POLLIN)
        return bool(poll.poll(0))

    def pending(self) -> bool:
        """Whether a pipe holds something."""
        return bool(self._poll.poll(0))

    def filling(self) -> bool:
        """Whether a pipe is half full or more: whoever writes to it will have to wait soon."""
        return any(_held(fd) * 2 >= capacity for fd, capacity in zip(self.fds, self._capacities))  # noqa: B905

    def take(self) -> list[tuple[int, bytes]]:
        """Return what the pipes hold, as (0 for stdout or 1 for stderr, bytes). The caller holds `lock`."""
        taken: list[tuple[int, bytes]] = []
        # What Python has printed since the last switch came before what others have to the other stream since.
        for index in (0, 1) if _Descriptor.last == 1 else (1, 0):
            data = drain(self.fds[index])
            if data:
                taken.append((index, data))
        return taken


class _Descriptor(io.FileIO):
    """Descriptor 1 or 2 as Python's own stream writes to it."""

    last = 1  # to which was written last

    def __init__(self, fd: int, output: Output) -> None:
        super().__init__(fd, "w", closefd=False)
        self._fd, self._output = fd, output

    def isatty(self) -> bool:
        return self._output.terminals[self._fd - 1]

    def write(self, data: Any, /) -> int:
        fd = _Descriptor.last = self._fd
        on_switch = self._output.on_switch
        if on_switch is not None and self._output.other_pending(fd):
            on_switch()
        return super().write(data)


def install(stdout_write: int, stderr_write: int, output: Output) -> None:
    """Make descriptors 0, 1 and 2, and Python's own streams, the worker's."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(stdout_write, 1)
    os.dup2(stderr_write, 2)
    for fd in (null, stdout_write, stderr_write):
        if fd > 2:
            os.close(fd)
    sys.stdin = io.TextIOWrapper(io.FileIO(0, "r", closefd=False), encoding="utf-8")
    for name, fd in (("stdout", 1), ("stderr", 2)):
        raw = io.BufferedWriter(_Descriptor(fd, output))
        stream = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
