"""Each way in which user code can end a call, at each place where user code runs.

loky's table: when (the function is pickled, unpickled, its arguments unpickled, it runs, its result is pickled,
unpickled, collected) by how (an error, `sys.exit`, `os._exit`, a segmentation fault, SIGKILL). Each cell tells what
happened, at once, and the pool works on.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from remote_exec import RemoteExecutor, remote
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
        executor.submit(abs, 1).result()  # it has its workers before any test does
        yield executor


Start = Callable[[RemoteExecutor, Callable[[], None]], "Future[Any]"]
OVER_THERE: dict[str, Start] = {
    "unpickling the function": lambda pool, how: pool.submit(holding(AtUnpickle(how))),
    "unpickling an argument": lambda pool, how: pool.submit(identity, AtUnpickle(how)),
    "running": lambda pool, how: pool.submit(call, how),
    "pickling the result": lambda pool, how: pool.submit(make, AtPickle, how),
    "collecting an argument": lambda pool, how: pool.submit(collect, AtCollection(how, os.getpid())),
}
HERE: dict[str, Start] = {
    "pickling the function": lambda pool, how: pool.submit(holding(AtPickle(how))),
    "pickling an argument": lambda pool, how: pool.submit(identity, AtPickle(how)),
    "unpickling the result": lambda pool, how: pool.submit(make, AtUnpickle, how),
}
places_over_there = pytest.mark.parametrize("start", OVER_THERE.values(), ids=OVER_THERE)
deaths = pytest.mark.parametrize(
    ("how", "number", "code", "words"),
    [
        pytest.param(exit_hard, None, EXIT_CODE, f"exit code {EXIT_CODE}", id="os._exit"),
        pytest.param(segfault, signal.SIGSEGV, None, "SIGSEGV", id="segfault"),
        pytest.param(be_killed, signal.SIGKILL, None, "SIGKILL", id="kill"),
    ],
)


@places_over_there
@deaths
def test_a_crash_is_told_at_once_and_harms_no_neighbour(
    pool: RemoteExecutor,
    start: Start,
    how: Callable[[], None],
    number: int | None,
    code: int | None,
    words: str,
) -> None:
    beside = pool.submit(wait, 0.05, "beside")
    began = time.monotonic()
    crashed = start(pool, how)
    behind = [pool.submit(identity, index) for index in range(5)]
    error = crashed.exception(AT_ONCE_SECONDS)
    assert time.monotonic() - began < AT_ONCE_SECONDS
    assert isinstance(error, WorkerDied), error
    assert error.certificate is not None
    assert (error.certificate.signal, error.certificate.exit_code) == (number, code)
    assert error.certificate.peak_memory
    assert words in str(error)
    assert [future.result(AT_ONCE_SECONDS) for future in behind] == list(range(5))
    assert beside.result(AT_ONCE_SECONDS) == "beside"


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("unpickling the function", DeserializationError),
        ("unpickling an argument", DeserializationError),
        ("running", ValueError),
        ("pickling the result", SerializationError),
        ("pickling the function", SerializationError),
        ("pickling an argument", SerializationError),
        ("unpickling the result", DeserializationError),
    ],
)
def test_an_error_has_the_class_of_its_place_and_the_words_of_its_own(
    pool: RemoteExecutor, place: str, expected: type[Exception]
) -> None:
    began = time.monotonic()
    error = (OVER_THERE | HERE)[place](pool, fail).exception(AT_ONCE_SECONDS)
    assert time.monotonic() - began < AT_ONCE_SECONDS
    assert type(error) is expected
    assert "crashed on purpose" in str(error)
    assert pool.submit(identity, "well").result(AT_ONCE_SECONDS) == "well"


@pytest.mark.parametrize(
    "place",
    [
        "unpickling the function",
        "unpickling an argument",
        "running",
        "pickling the result",
        "unpickling the result",
    ],
)
def test_sys_exit_ends_the_call_and_not_the_worker(pool: RemoteExecutor, place: str) -> None:
    error = (OVER_THERE | HERE)[place](pool, exit_softly).exception(AT_ONCE_SECONDS)
    assert isinstance(error, SystemExit)
    assert error.code == EXIT_CODE
    assert pool.submit(identity, "well").result(AT_ONCE_SECONDS) == "well"


@pytest.mark.parametrize("how", [fail, exit_softly])
def test_a_finaliser_that_raises_is_ignored_as_everywhere(
    pool: RemoteExecutor, how: Callable[[], None]
) -> None:
    assert OVER_THERE["collecting an argument"](pool, how).result(AT_ONCE_SECONDS) == "collected"


@deaths
def test_a_dead_worker_leaves_its_last_words(
    pool: RemoteExecutor, how: Callable[[], None], number: int | None, code: int | None, words: str
) -> None:
    error = pool.submit(print_and, how).exception(AT_ONCE_SECONDS)
    assert isinstance(error, WorkerDied)
    assert error.certificate is not None
    lines = "\n".join(error.certificate.last_lines)
    assert "the last words on stdout" in lines
    assert "the last words on stderr" in lines
    if number == signal.SIGSEGV:
        assert "Segmentation fault" in lines  # with the Python stack below it


def test_the_last_words_are_those_of_the_call_that_died() -> None:
    with RemoteExecutor(1) as pool:
        pool.submit(print, "an earlier call's words").result(AT_ONCE_SECONDS)
        error = pool.submit(print_and, be_killed).exception(AT_ONCE_SECONDS)
    assert isinstance(error, WorkerDied)
    assert error.certificate is not None
    assert "the last words on stdout" in error.certificate.last_lines
    assert "an earlier call's words" not in error.certificate.last_lines


def test_a_function_that_cannot_be_loaded_alive_does_not_kill_worker_after_worker(
    pool: RemoteExecutor,
) -> None:
    function = holding(AtUnpickle(exit_hard))
    futures = [pool.submit(function) for _ in range(3)]
    assert all(isinstance(future.exception(AT_ONCE_SECONDS), WorkerDied) for future in futures)
    assert pool.submit(identity, "well").result(AT_ONCE_SECONDS) == "well"


def test_a_map_goes_on_around_items_that_kill_their_worker() -> None:
    @remote(max_parallel_jobs=2)
    def halve(x: int) -> int:
        if x in (3, 40):
            os._exit(EXIT_CODE)
        return x // 2

    answers = list(halve.map(range(60), return_exceptions=True))
    died = [x for x, answer in enumerate(answers) if isinstance(answer, WorkerDied)]
    assert {3, 40} <= set(died)
    # The results of what ran in the same message before a death are lost with it; nothing behind it is.
    assert all(answer == x // 2 for x, answer in enumerate(answers) if x not in died)
