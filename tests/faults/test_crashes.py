"""Each way in which user code can end a call, at each place where user code runs.

loky's table: when (the function is pickled, unpickled, its arguments unpickled, it runs, its result is pickled,
unpickled, collected) by how (an error, `sys.exit`, `os._exit`, a segmentation fault, SIGKILL). Each cell tells what
happened, at once, and the pool works on.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from remote_exec import RemoteExecutor
from remote_exec.errors import DeserializationError, SerializationError, WorkerDied

AT_ONCE_SECONDS = 3.0
EXIT_CODE = 7


def fail() -> None:
    raise ValueError("crashed on purpose")


def exit_softly() -> None:
    sys.exit(EXIT_CODE)


def exit_hard() -> None:
    os._exit(EXIT_CODE)


def segfault() -> None:
    ctypes.string_at(0)


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class AtPickle:
    """Goes wrong when it is pickled."""

    def __init__(self, go_wrong: Callable[[], None]) -> None:
        self.go_wrong = go_wrong

    def __reduce__(self) -> Any:
        self.go_wrong()
        return AtPickle, (self.go_wrong,)


def rebuild(go_wrong: Callable[[], None]) -> None:
    go_wrong()


class AtUnpickle:
    """Goes wrong when it is unpickled."""

    def __init__(self, go_wrong: Callable[[], None]) -> None:
        self.go_wrong = go_wrong

    def __reduce__(self) -> Any:
        return rebuild, (self.go_wrong,)


class AtCollection:
    """Goes wrong when it is collected, over there."""

    def __init__(self, go_wrong: Callable[[], None], home: int) -> None:
        self.go_wrong, self.home = go_wrong, home

    def __del__(self) -> None:
        if os.getpid() != self.home:
            self.go_wrong()


def identity(value: Any) -> Any:
    return value


def call(function: Callable[[], Any]) -> Any:
    return function()


def make(cls: type, go_wrong: Callable[[], None]) -> Any:
    return cls(go_wrong)


def keep_until_collected(_value: object) -> str:
    return "returned"


def collect(value: object) -> str:
    del value
    return "collected"


def holding(value: Any) -> Callable[[], Any]:
    """A function that goes by value, with `value` in its closure."""

    def function() -> Any:
        return value

    return function


def wait(seconds: float, answer: Any) -> Any:
    time.sleep(seconds)
    return answer


def print_and(go_wrong: Callable[[], None]) -> None:
    print("the last words on stdout")
    os.write(2, b"the last words on stderr\n")
    go_wrong()


@pytest.fixture(scope="module")
def pool() -> Iterator[RemoteExecutor]:
    with RemoteExecutor(max_parallel_jobs=2) as executor:
        yield executor


DEATHS = {
    "os._exit": (exit_hard, None, EXIT_CODE, "exit code 7"),
    "segfault": (segfault, signal.SIGSEGV, None, "SIGSEGV"),
    "kill": (be_killed, signal.SIGKILL, None, "SIGKILL"),
}
KILLERS = [pytest.param(*row, id=name) for name, row in DEATHS.items()]

Start = Callable[[RemoteExecutor, Callable[[], None]], "Future[Any]"]
PLACES: dict[str, Start] = {
    "unpickling the function": lambda pool, how: pool.submit(holding(AtUnpickle(how))),
    "unpickling an argument": lambda pool, how: pool.submit(identity, AtUnpickle(how)),
    "running": lambda pool, how: pool.submit(call, how),
    "pickling the result": lambda pool, how: pool.submit(make, AtPickle, how),
    "collecting an argument": lambda pool, how: pool.submit(collect, AtCollection(how, os.getpid())),
}
if __name__ == "__main__":
    with RemoteExecutor(max_parallel_jobs=2) as ex:
        for place, start in PLACES.items():
            for how in fail, exit_softly, exit_hard, segfault, be_killed:
                t = time.time()
                try:
                    f = start(ex, how)
                    e = f.exception(10)
                    r = None if e else f.result()
                except BaseException as x:
                    e = x
                    r = "RAISED"
                print(place, how.__name__, "%.2f" % (time.time() - t), type(e).__name__, repr(str(e))[:200], r, flush=True)
                t = time.time()
                try:
                    assert ex.submit(pow, 2, 3).result(10) == 8
                except BaseException as x:
                    print("AFTER", repr(x))
                print("   after %.2f" % (time.time() - t))
        for how in fail, exit_softly:
            for f in (lambda: ex.submit(holding(AtPickle(how))), lambda: ex.submit(identity, AtPickle(how)), lambda: ex.submit(make, AtUnpickle, how)):
                try:
                    e = f().exception(10)
                    print(how.__name__, repr(e))
                except BaseException as x:
                    print(how.__name__, "RAISED", repr(x))
