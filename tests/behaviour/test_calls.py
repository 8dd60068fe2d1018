"""What may be called, and what of its world a call sees: all as it is at the call."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from remote_exec import remote

SECONDS = 30.0  # no test should come near it

# --- functions of every kind ---


def doubled(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return 2 * function(*args, **kwargs)

    return wrapper


@doubled
def decorated(x: int) -> int:
    return x + 1


def every_kind(a: int, /, b: int = 2, *rest: int, c: int, d: int = 4, **more: int) -> tuple[Any, ...]:
    return a, b, rest, c, d, more


def factorial(n: int) -> int:
    return 1 if n < 2 else n * factorial(n - 1)


def is_even(n: int) -> bool:
    return n == 0 or is_odd(n - 1)


def is_odd(n: int) -> bool:
    return n != 0 and is_even(n - 1)


@functools.lru_cache(maxsize=10)
def cached(x: int) -> int:
    return x + 1


@functools.singledispatch
def kind_of(value: object) -> str:
    return "object"


@kind_of.register
def _(value: int) -> str:
    return "int"


class Scale:
    """With a method of each sort, decorated in each order."""

    factor = 3

    def __init__(self, offset: int) -> None:
        self.offset = offset

    def plain(self, x: int) -> int:
        return self.factor * x + self.offset

    def __call__(self, x: int) -> int:
        return self.plain(x)

    @remote
    def method(self, x: int) -> int:
        return self.plain(x)

    @staticmethod
    @remote
    def static(x: int) -> int:
        return -x

    @remote
    @staticmethod
    def static_within(x: int) -> int:
        return -x

    @remote
    @classmethod
    def of_class(cls, x: int) -> tuple[str, int]:
        return cls.__name__, x

    @classmethod
    @remote
    def within_class(cls, x: int) -> tuple[str, int]:
        return cls.__name__, x


def adder_of(amount: int) -> Callable[[int], int]:
    def add(to: int) -> int:
        return to + amount

    return add


@pytest.mark.parametrize(
    ("function", "args", "expected"),
    [
        pytest.param(lambda x: x + 1, (1,), 2, id="lambda"),
        pytest.param(adder_of(10), (1,), 11, id="closure"),
        pytest.param(decorated, (1,), 4, id="decorated"),
        pytest.param(factorial, (5,), 120, id="recursive"),
        pytest.param(is_even, (7,), False, id="mutually recursive"),
        pytest.param(cached, (1,), 2, id="lru_cache"),
        pytest.param(kind_of, (1,), "int", id="singledispatch"),
        pytest.param(functools.partial(every_kind, 1, c=5), (7,), (1, 7, (), 5, 4, {}), id="partial"),
        pytest.param(functools.partial(lambda x, y: x - y, y=1), (7,), 6, id="partial of a lambda"),
        pytest.param(Scale(1).plain, (2,), 7, id="bound method"),
        pytest.param(Scale(1), (2,), 7, id="callable object"),
        pytest.param(Scale, (2,), None, id="class"),
        pytest.param(pow, (2, 3), 8, id="builtin"),
        pytest.param(str.upper, ("a",), "A", id="method of a builtin class"),
        pytest.param([3, 4].index, (4,), 1, id="method of a builtin object"),
    ],
)
def test_any_callable_can_be_called_in_every_way(
    function: Callable[..., Any], args: tuple[Any, ...], expected: Any
) -> None:
    called = remote(function) if not isinstance(function, type) else remote(lambda x: function(x))

    def shown(value: Any) -> Any:
        return value if expected is not None else None

    assert shown(called(*args)) == expected
    assert shown(called.submit(*args).result(SECONDS)) == expected
    assert [shown(value) for value in called.starmap([args, args])] == [expected, expected]


def test_arguments_bind_as_in_a_plain_call() -> None:
    called = remote(every_kind)
    assert called(1, c=3) == every_kind(1, c=3)
    assert called(1, 2, 3, 4, c=5, d=6, e=7, a=8) == every_kind(1, 2, 3, 4, c=5, d=6, e=7, a=8)
    names = remote(lambda **names: names)
    assert names(self=1, args=2, function=3) == {"self": 1, "args": 2, "function": 3}
    assert names.submit(self=1).result(SECONDS) == {"self": 1}
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'c'"):
        called(1)


def test_a_decorated_method_keeps_its_object_in_every_way_of_calling() -> None:
    scale = Scale(1)
    assert scale.method(2) == 7
    assert scale.method.submit(3).result(SECONDS) == 10
    assert list(scale.method.map([1, 2])) == [4, 7]
    assert scale.method.local(2) == 7
    assert scale.method.options(cpus=1)(2) == 7
    assert (Scale.static(1), scale.static.submit(2).result(SECONDS), Scale.static_within(3)) == (-1, -2, -3)
    assert Scale.of_class(1) == ("Scale", 1)
    assert Scale.of_class.submit(2).result(SECONDS) == ("Scale", 2)
    assert list(scale.of_class.map([1, 2])) == [("Scale", 1), ("Scale", 2)]
    assert Scale.within_class(1) == ("Scale", 1)
    scale.offset = 100
    assert scale.method(1) == 103  # as it is at the call


def test_functions_of_one_name_are_each_their_own() -> None:
    def make(value: int) -> Callable[[], int]:
        def same_name() -> int:
            return value

        return same_name

    functions = [remote(make(value)) for value in range(5)]
    for _ in range(2):
        assert [function() for function in functions] == list(range(5))


PROGRAM = """
from __future__ import annotations
import dataclasses, functools, json, sys
from remote_exec import RemoteExecutor, remote

LIMIT = 10
seen: list[int] = []

@dataclasses.dataclass
class Point:
    x: int
    other: Point | None = None
    def norm(self) -> int:
        return self.x * FACTOR

FACTOR = 2

@remote
def bounded(x: int, point: Point = Point(1)) -> tuple[int, Point]:
    return min(x, LIMIT), Point(point.norm(), point)

def is_even(n): return n == 0 or is_odd(n - 1)
def is_odd(n): return n != 0 and is_even(n - 1)

@functools.lru_cache
def fibonacci(n): return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

@remote
def total(): return sum(seen)

@remote
def who(): return helper()
def helper(): return "first"

value, point = bounded(50)
assert (value, point.x, point.other) == (10, 2, Point(1)), (value, point)
assert type(point) is Point
LIMIT = 20  # rebound
assert bounded(50)[0] == 20
assert total() == 0
seen.append(4)  # mutated
assert total() == 4
assert who() == "first"
def helper(): return "second"  # defined again
assert who() == "second"
class Point:  # another class of that name
    def __init__(self, x, other=None): self.x = x
    def norm(self): return 100
assert bounded(1, Point(5))[1].x == 100
Point.norm = lambda self: 200  # changed in place
assert bounded(1, Point(5))[1].x == 200
assert remote(is_even)(9) is False
assert remote(fibonacci)(20) == 6765
with RemoteExecutor(1) as executor:
    assert executor.submit(lambda: FACTOR).result() == 2
    assert list(executor.map(is_odd, range(3))) == [False, True, False]
print("well")
"""


@pytest.mark.parametrize("how", ["script", "-c", "stdin"])
def test_what_main_defines_is_seen_as_it_is_at_each_call(tmp_path: Path, how: str) -> None:
    (tmp_path / "script.py").write_text(PROGRAM)
    command = {"script": ["script.py"], "-c": ["-c", PROGRAM], "stdin": ["-"]}[how]
    done = subprocess.run(
        [sys.executable, *command],
        input=PROGRAM if how == "stdin" else None,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr


# --- where and when ---


def test_each_call_sees_the_folder_in_which_it_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tmp_path / "gate"

    @remote(max_parallel_jobs=1)
    def read(wait: bool = False) -> tuple[str, str]:
        while wait and not gate.exists():
            time.sleep(0.01)
        return os.getcwd(), Path("name.txt").read_text()

    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "name.txt").write_text(name)
    monkeypatch.chdir(tmp_path / "a")
    futures = [read.submit(wait=True)]
    monkeypatch.chdir(tmp_path / "b")
    futures.append(read.submit())  # queued behind the first, and sent when this process is elsewhere
    values = read.map(itertools.repeat(False, 3))
    monkeypatch.chdir(tmp_path / "c")
    gate.touch()
    assert [future.result(SECONDS)[1] for future in futures] == ["a", "b"]
    assert [text for _, text in values] == ["b"] * 3
    assert read() == (str(tmp_path / "c"), "c")


def test_ctrl_c_stops_all_of_a_map(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        textwrap.dedent("""
        import pathlib, time
        from remote_exec import remote

        @remote
        def work(x):
            try:
                pathlib.Path(f"begun-{x}").touch()
                time.sleep(60)
            finally:
                pathlib.Path(f"ended-{x}").touch()

        list(work.map(range(100)))
        """)
    )
    process = subprocess.Popen(
        [sys.executable, "script.py"], cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        deadline = time.monotonic() + SECONDS
        while not list(tmp_path.glob("begun-*")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt")
    began = {path.name.removeprefix("begun-") for path in tmp_path.glob("begun-*")}
    while not began <= {path.name.removeprefix("ended-") for path in tmp_path.glob("ended-*")}:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert len(began) < 10
