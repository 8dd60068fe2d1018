"""What a call raised comes home whole; what cannot travel is named."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from remote_exec import remote
from remote_exec.errors import DeserializationError, RemoteError, SerializationError

SECONDS = 30.0  # no test should come near it


class RequiredKeywordError(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class OtherArgumentsError(Exception):
    def __init__(self, left: int, right: int) -> None:
        super().__init__(f"{left} is not {right}")
        self.left, self.right = left, right


class SlottedError(Exception):
    __slots__ = ("where",)

    def __init__(self, where: str) -> None:
        super().__init__("slotted")
        self.where = where


class ByNewError(Exception):
    made_by: str

    def __new__(cls, text: str) -> ByNewError:
        made = super().__new__(cls, text)
        made.made_by = "new"
        return made


@dataclasses.dataclass
class AsDataError(Exception):
    number: int
    text: str = "x"


class UnpicklableError(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("not to be pickled")


class HoldingError(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock, self.number = threading.Lock(), 5


class NoTextError(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


def held_in(error: BaseException) -> dict[str, Any]:
    names = (
        "code",
        "left",
        "right",
        "where",
        "made_by",
        "number",
        "text",
        "errno",
        "filename",
        "name",
        "path",
    )
    return {name: getattr(error, name) for name in names if hasattr(error, name)}


ERRORS: dict[str, Callable[[], BaseException]] = {
    "a required keyword": lambda: RequiredKeywordError(code=3),
    "other arguments": lambda: OtherArgumentsError(1, 2),
    "slots": lambda: SlottedError("there"),
    "__new__": lambda: ByNewError("a"),
    "a dataclass": lambda: AsDataError(7),
    "pickling raises": lambda: UnpicklableError("a", 1),
    "a lock inside": lambda: HoldingError("held"),
    "no text": lambda: NoTextError("n"),
    "OSError": lambda: FileNotFoundError(2, "gone", "/x"),
    "UnicodeDecodeError": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    "ImportError": lambda: ImportError("m", name="n", path="p"),
    "SyntaxError": lambda: SyntaxError("bad", ("f.py", 3, 4, "text")),
    "StopIteration": lambda: StopIteration(3),
    "StopAsyncIteration": lambda: StopAsyncIteration(3),
    "GeneratorExit": lambda: GeneratorExit("g"),
    "SystemExit": lambda: SystemExit(4),
    "KeyboardInterrupt": lambda: KeyboardInterrupt("mine"),
    "CancelledError": lambda: CancelledError("c"),
    "TimeoutError": lambda: TimeoutError("t"),
    "MemoryError": lambda: MemoryError("m"),
    "a group": lambda: ExceptionGroup("g", [ValueError(1), ExceptionGroup("h", [OtherArgumentsError(1, 2)])]),
    "a group with an exit": lambda: BaseExceptionGroup("b", [KeyboardInterrupt(), ValueError(2)]),
}


@remote
def fail(kind: str) -> None:
    raise ERRORS[kind]()


@pytest.mark.parametrize("kind", ERRORS)
def test_an_exception_comes_back_as_it_was(kind: str) -> None:
    original = ERRORS[kind]()
    errors = [fail.submit(kind).exception(SECONDS), *fail.map([kind], return_exceptions=True)]
    with pytest.raises(type(original)) as caught:
        fail(kind)
    for error in [*errors, caught.value]:
        assert type(error) is type(original)
        if not isinstance(error, BaseExceptionGroup):
            assert error.args == original.args
        assert held_in(error) == held_in(original)
    if isinstance(original, BaseExceptionGroup):
        shape = [repr(error) for error in original.exceptions]
        assert [repr(error) for error in caught.value.exceptions] == shape  # type: ignore[attr-defined]


def test_chain_notes_and_suppression_come_back() -> None:
    @remote
    def raise_chain() -> None:
        try:
            try:
                {}["k"]
            except KeyError as error:
                raise OtherArgumentsError(1, 2) from error
        except OtherArgumentsError as error:
            error.add_note("a note")
            try:
                raise ValueError("last") from None
            except ValueError:
                raise RuntimeError("by context")  # noqa: B904

    error = raise_chain.submit().exception(SECONDS)
    assert isinstance(error, RuntimeError)
    assert (error.__cause__, error.__suppress_context__) == (None, False)
    last = error.__context__
    assert isinstance(last, ValueError)
    assert last.__suppress_context__
    inner = last.__context__
    assert isinstance(inner, OtherArgumentsError)
    assert (inner.right, inner.__notes__) == (2, ["a note"])
    assert isinstance(inner.__cause__, KeyError)
    assert inner.__cause__.args == ("k",)


def test_a_class_that_is_only_there_comes_back_as_itself_or_as_data(tmp_path: Path) -> None:
    @remote
    def of_main() -> None:
        made: dict[str, Any] = {"__name__": "__main__"}
        exec("class Made(ValueError):\n def __init__(self, *, b): super().__init__('m'); self.b = b", made)
        raise made["Made"](b=2)

    @remote
    def of_a_module(folder: str) -> None:
        sys.path.insert(0, folder)
        Path(folder, "only_there.py").write_text("class Gone(KeyError): pass\ndef go(): raise Gone('x')\n")
        import only_there  # type: ignore[import-not-found]

        only_there.go()

    error = of_main.submit().exception(SECONDS)
    assert isinstance(error, ValueError)
    assert (type(error).__name__, error.b) == ("Made", 2)  # type: ignore[attr-defined]
    folder = tmp_path / "there"
    folder.mkdir()
    error = of_a_module.submit(str(folder)).exception(SECONDS)
    assert isinstance(error, RemoteError)
    assert "Gone" in str(error)
    assert error.failure is not None
    assert (error.failure.module, error.failure.qualname) == ("only_there", "Gone")


def test_a_scripts_traceback_shows_its_own_lines_and_not_our_machinery(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        textwrap.dedent("""
        from remote_exec import remote
        import near

        @remote
        def outer(x):
            return near.inner(x)  # the line of the script

        outer(0)  # where it was called
        """)
    )
    (tmp_path / "near.py").write_text("def inner(x):\n    return 1 / x  # the line of the module\n")
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS
    )
    lines = [line.strip() for line in done.stderr.splitlines()]
    assert done.returncode == 1
    assert lines[-1] == "ZeroDivisionError: division by zero"
    for line in (
        "outer(0)  # where it was called",
        "return near.inner(x)  # the line of the script",
        "return 1 / x  # the line of the module",
    ):
        assert line in lines
    assert not [line for line in lines if "/worker/" in line]


def test_the_remote_frames_can_be_debugged_at_home() -> None:
    @remote
    def fail_at(x: int) -> int:
        password, numbers = "hunter2", [x, x + 1]
        return numbers[x * 10] + len(password)

    with pytest.raises(IndexError) as caught:
        fail_at(3)
    told = caught.value.remote  # type: ignore[attr-defined]
    said = io.StringIO()
    told.post_mortem(stdin=io.StringIO("p numbers, x\np password\nq\n"), stdout=said)
    assert "[3, 4], 3" in said.getvalue()
    assert "hunter2" not in said.getvalue()
    assert "numbers[x * 10]" in told.text
    assert "numbers[x * 10]" in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("call", "path"),
    [
        (lambda lock: remote(lambda: lock)(), "closure 'lock' → _thread.lock"),
        (lambda lock: remote(len)({"k": [lock]}), "argument 0 → dict['k'] → list[0] → _thread.lock"),
        (lambda lock: remote(id).submit(x=lock), "argument 'x' → _thread.lock"),
        (lambda lock: list(remote(id).map([1, lock])), "argument 0 → _thread.lock"),
        (lambda lock: remote(lambda: {"a": threading.Lock()})(), "result → dict['a'] → _thread.lock"),
        (
            lambda lock: list(remote(lambda x: SimpleNamespace(a=threading.Lock())).map([1])),
            "SimpleNamespace.a → _thread.lock",
        ),
    ],
    ids=["closure", "argument", "submitted", "item", "result", "result of an item"],
)
def test_what_cannot_travel_is_named_by_its_path(call: Callable[[Any], Any], path: str) -> None:
    with pytest.raises(SerializationError) as caught:
        call(threading.Lock())
    assert path in str(caught.value)
    assert caught.value.hint


def test_a_result_whose_class_is_missing_here_says_so_and_its_output_stays(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    @remote
    def make(folder: str) -> Any:
        print("printed before")
        sys.path.insert(0, folder)
        Path(folder, "also_only_there.py").write_text("class Made: pass\n")
        import also_only_there  # type: ignore[import-not-found]

        return also_only_there.Made()

    with pytest.raises(DeserializationError, match="'also_only_there' is missing here"):
        make(str(tmp_path))
    assert capfd.readouterr().out == "printed before\n"


def test_an_unpicklable_function_raises_at_the_call_and_not_in_a_worker() -> None:
    def make() -> Any:
        file = open(__file__)  # noqa: SIM115 - it is to be open
        return file, remote(lambda: file.read())

    file, function = make()
    with file, pytest.raises(SerializationError, match="closure 'file'"):
        function()
