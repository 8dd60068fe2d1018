"""An exception leaves as data, comes back as itself, shows its remote frames, and can be debugged."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import io
import json
import linecache
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import traceback
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remote_exec.model.errors import ProtocolError, RemoteError, WorkerDied
from remote_exec.model.failure import SYNTAX, Failure, Frame
from remote_exec.serial import failures
from remote_exec.serial.postmortem import MASK, looks_secret, mask

FLAT = {"dumps": cloudpickle.dumps, "skip": 1}


def caught(function: Callable[[], object]) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def raising(exc: BaseException) -> Callable[[], None]:
    def function() -> None:
        raise exc

    return function


def there_and_back(exc: BaseException, **options: Any) -> Any:
    """Send an exception home by way of JSON."""
    failure = failures.capture(caught(raising(exc)), **{**FLAT, **options})
    return failures.rebuild(failures.from_json(failures.to_json(failure)), loads=pickle.loads)


def load(path: Path, source: str) -> dict[str, Any]:
    """Return the names of a module written to a file."""
    path.write_text(textwrap.dedent(source))
    linecache.checkcache(str(path))
    names: dict[str, Any] = {"__name__": "user_module"}
    exec(compile(path.read_text(), str(path), "exec"), names)
    return names


# ------------------------------------------------------------ types and attributes


class Awkward(Exception):  # noqa: N818
    def __init__(self, code: int, *, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code, self.detail = code, detail


class AwkwardFile(FileNotFoundError):  # noqa: N818
    def __init__(self, path: str) -> None:
        super().__init__(2, "no model here", path)


class Fussy(Exception):  # noqa: N818
    """Has a reduce of its own that gives the constructor what it wants."""

    def __init__(self, left: int, right: int) -> None:
        super().__init__()
        self.left, self.right = left, right

    def __reduce__(self) -> Any:
        return (type(self), (self.left, self.right))


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):  # noqa: N818
    value: int


class Nested:
    class Inner(KeyError):  # noqa: N818
        pass


def attributes(exc: Any) -> tuple[Any, ...]:
    names = "code errno filename value name path encoding object start end reason lineno text detail left"
    return type(exc), exc.args, str(exc), [getattr(exc, name, None) for name in names.split()]


@pytest.mark.parametrize(
    "exc",
    [
        ValueError("bad", 3),
        KeyError("missing"),
        Nested.Inner("x"),
        SystemExit(7),
        KeyboardInterrupt(),
        StopIteration(5),
        PermissionError(13, "no", "/some/file"),
        ImportError("no module", name="thing", path="/x"),
        SyntaxError("bad syntax", ("file.py", 3, 4, "a b c\n", 3, 5)),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        Awkward(3, detail="disk"),
        AwkwardFile("/model"),
        Fussy(1, 2),
        Frozen(4),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_the_original_type_comes_back_with_its_attributes(exc: BaseException) -> None:
    back = there_and_back(exc)
    assert attributes(back) == attributes(exc)
    assert back.remote.failure.qualname == type(exc).__qualname__


def test_our_own_errors_come_back_with_hint_and_retryable() -> None:
    failure = failures.capture(WorkerDied("gone", hint="try again"), **FLAT)
    back = failures.rebuild(failure, loads=pickle.loads)
    assert (failure.retryable, type(back), str(back)) == (True, WorkerDied, "gone\n  hint: try again")


def test_what_cannot_be_pickled_is_left_out_and_the_type_stays() -> None:
    exc = Awkward(3, detail="disk")
    exc.lock = threading.Lock()  # type: ignore[attr-defined]
    exc.args = ("3: disk", exc.lock)  # type: ignore[attr-defined]
    back = there_and_back(exc)
    assert (type(back), back.code, back.args[0]) == (Awkward, 3, "3: disk")
    assert back.args[1].startswith("<unlocked")


def test_a_class_that_cannot_be_had_here_becomes_a_remote_error_with_the_data(tmp_path: Path) -> None:
    names = load(tmp_path / "m.py", "class Gone(Exception): pass\ndef f(): raise Gone('far away')")
    failure = failures.capture(caught(names["f"]), dumps=pickle.dumps, skip=1)
    back = failures.rebuild(failure, loads=pickle.loads)
    assert isinstance(back, RemoteError)
    assert str(back) == "user_module.Gone: far away"
    assert back.failure == failure
    assert "in f" in "".join(traceback.format_exception(back))


def test_a_class_sent_by_value_comes_back_as_such(tmp_path: Path) -> None:
    names = load(tmp_path / "m.py", "class Sent(Exception):\n    x = 3\ndef f(): raise Sent('far away')")
    names["Sent"].__module__ = "__main__"
    back = failures.rebuild(failures.capture(caught(names["f"]), **FLAT), loads=pickle.loads)
    assert (type(back).__name__, back.x, str(back)) == ("Sent", 3, "far away")  # type: ignore[attr-defined]


def test_bytes_of_another_class_than_the_one_named_are_not_taken() -> None:
    failure = dataclasses.replace(
        failures.capture(KeyError("x"), **FLAT), pickled=pickle.dumps(OSError(1, "no"))
    )
    assert type(failures.rebuild(failure, loads=pickle.loads)) is KeyError
    failure = dataclasses.replace(failure, module="builtins", qualname="print", pickled=pickle.dumps(print))
    assert type(failures.rebuild(failure, loads=pickle.loads)) is RemoteError


def odd(method: str) -> BaseException:
    def explode(*_: object) -> Any:
        raise SystemExit("no")

    cls = type("Odd", (Exception,), {method: explode})
    return Exception.__new__(cls)


@pytest.mark.parametrize(
    "method",
    ["__str__", "__repr__", "__reduce__", "__reduce_ex__", "__getstate__", "__getattr__", "__setattr__"],
)
def test_code_of_the_exception_that_fails_breaks_neither_side(method: str) -> None:
    local = odd(method)  # noqa: F841 (kept as a local of the failing frame)
    failure = failures.capture(caught(raising(odd(method))), dumps=cloudpickle.dumps, skip=0)
    assert failure.qualname == "Odd"
    assert failure.frames
    assert isinstance(failures.rebuild(failure, loads=pickle.loads), Exception)
    assert "Odd" in failures.format(failure)


# ------------------------------------------------------------ chains and groups


def chained() -> None:
    try:
        try:
            {}["x"]  # type: ignore[index]
        except KeyError as error:
            error.add_note("first")
            raise ValueError("second") from error
    except ValueError:
        try:
            raise OSError(2, "third")
        except OSError as error:
            error.add_note("a note")
            error.add_note("another")
            raise RuntimeError("fourth")  # noqa: B904


def grouped() -> None:
    members: list[Exception] = [caught(lambda: int("x")), caught(lambda: [][1])]  # type: ignore[list-item]
    raise ExceptionGroup("many", [members[0], ExceptionGroup("inner", [members[1], Awkward(1, detail="d")])])


def suppressed() -> None:
    try:
        raise ValueError("hidden")
    except ValueError:
        raise KeyError("shown") from None


@pytest.mark.parametrize("function", [chained, grouped, suppressed, lambda: compile("a b", "<it>", "exec")])
def test_the_text_is_what_python_prints_here_and_after_the_way_home(function: Callable[[], object]) -> None:
    exc = caught(function)
    failure = failures.capture(exc, dumps=cloudpickle.dumps, skip=0)
    printed = "".join(traceback.format_exception(exc))
    assert failures.format(failure) == printed
    back = failures.rebuild(failures.from_json(failures.to_json(failure)), loads=pickle.loads)
    assert "".join(traceback.format_exception(back)) == printed
    assert back.remote.text == printed  # type: ignore[attr-defined]


def test_a_chain_keeps_which_is_cause_and_which_is_context() -> None:
    back = failures.rebuild(failures.capture(caught(chained), **FLAT), loads=pickle.loads)
    third = back.__context__
    assert isinstance(third, OSError)
    assert (back.__cause__, back.__suppress_context__, third.__notes__) == (
        None,
        False,
        ["a note", "another"],
    )
    second = third.__context__
    assert second is not None
    assert second.__cause__ is second.__context__
    assert (type(second.__cause__), second.__suppress_context__) == (KeyError, True)


def test_a_group_is_rebuilt_member_by_member_where_its_pickle_is_of_no_use(tmp_path: Path) -> None:
    names = load(tmp_path / "m.py", "class Gone(Exception): pass")

    def group() -> None:
        raise ExceptionGroup("two", [names["Gone"]("lost"), ValueError("kept")])

    back = failures.rebuild(failures.capture(caught(group), dumps=pickle.dumps), loads=pickle.loads)
    assert isinstance(back, ExceptionGroup)
    assert back.message == "two"
    assert [type(member) for member in back.exceptions] == [RemoteError, ValueError]


def test_cycles_and_endless_chains_and_deep_recursion_are_bounded() -> None:
    first, second = ValueError("a"), KeyError("b")
    first.__cause__, second.__cause__ = second, first
    assert failures.capture(first, **FLAT).cause.cause is None  # type: ignore[union-attr]

    exc = ValueError("0")
    for number in range(1, 3000):
        following = ValueError(str(number))
        following.__context__ = exc
        exc = following
    text = failures.to_json(failures.capture(exc, **FLAT))
    assert "left out here" in failures.format(failures.from_json(text))

    def deep(n: int) -> int:
        return deep(n - 1) + 1 if n else 1 // 0

    failure = failures.capture(caught(lambda: deep(600)), **FLAT)
    assert len(failure.frames) == 100
    assert "502 frames left out" in failures.format(failure)
    assert len(failures.to_json(failure)) < 100_000


# ------------------------------------------------------------ the traceback at home

MODEL = """
class Model:
    def fit(self, rows):
        total = len(rows)
        return self.step(rows[0],
                         total)

    def step(self, row, total):
        return row / (total - 1)

def train(rows):
    return Model().fit(rows)
"""

WORKER = """
import pickle, runpy, sys
from remote_exec.serial import failures
train = runpy.run_path(sys.argv[1])["train"]
try:
    train([5])
except ZeroDivisionError as error:
    print(failures.to_json(failures.capture(error, dumps=pickle.dumps, skip=1)))
"""

HOME = """
import pickle, sys
from remote_exec.serial import failures
raise failures.rebuild(failures.from_json(sys.stdin.read()), loads=pickle.loads)
"""


def python(code: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=30, check=False)


def test_an_uncaught_traceback_shows_remote_source_lines_though_the_file_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text(MODEL)
    sent = python(WORKER, str(path))
    assert sent.returncode == 0, sent.stderr
    path.unlink()
    shown = python(HOME, stdin=sent.stdout)
    assert shown.returncode == 1
    lines = [line.strip() for line in shown.stderr.splitlines()]
    for line in (
        f'File "{path}", line 12, in train',
        "return Model().fit(rows)",
        f'File "{path}", line 5, in fit',
        "return self.step(rows[0],",
        f'File "{path}", line 9, in step',
        "return row / (total - 1)",
    ):
        assert line in lines
    assert lines[-1] == "ZeroDivisionError: division by zero"


def test_another_text_under_the_same_name_is_never_shown_as_the_remote_one(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    function = load(path, "def f(x):\n    return 1 / x\n")["f"]
    failure = failures.capture(caught(lambda: function(0)), dumps=pickle.dumps, skip=2)
    path.write_text("# edited\n# since\n")
    text = "".join(traceback.format_exception(failures.rebuild(failure, loads=pickle.loads)))
    assert f'File "{path} [remote]", line 2, in f\n    return 1 / x' in text
    assert linecache.getline(str(path), 2) == "# since\n"

    moved = failures.rebuild(failure, loads=pickle.loads, locate=lambda name: name.replace("model", "here"))
    assert "here.py" in "".join(traceback.format_exception(moved))


def test_machinery_frames_are_passed_over_by_count_or_by_file_name(tmp_path: Path) -> None:
    exc = caught(load(tmp_path / "m.py", "def f(): g()\ndef g(): 1 / 0")["f"])
    names = [frame.name for frame in failures.capture(exc, dumps=pickle.dumps, skip=1).frames]
    assert names == ["f", "g"]
    by_name = failures.capture(exc, dumps=pickle.dumps, skip=lambda name: name == __file__)
    assert [frame.name for frame in by_name.frames] == names
    assert failures.is_machinery(failures.__file__)
    assert not failures.is_machinery(os.__file__)


def test_a_rebuilt_exception_goes_away_without_the_garbage_collector() -> None:
    class Big:
        pass

    def use() -> tuple[weakref.ref[Big], weakref.ref[BaseException]]:
        big = Big()
        back = [failures.rebuild(failure, loads=pickle.loads) for failure in sent]
        assert [each.__traceback__ is not None for each in back] == [True, True]
        return weakref.ref(big), weakref.ref(back[0])

    exc = Awkward(1, detail="d")
    exc.__cause__ = caught(grouped)
    sent = [failures.capture(caught(function), **FLAT) for function in (raising(exc), chained)]
    gc.collect()
    gc.disable()
    try:
        big, exc_there = use()
        assert (big(), exc_there()) == (None, None)
    finally:
        gc.enable()


def test_an_exception_that_comes_through_two_calls_shows_both_remote_ways() -> None:
    inner = there_and_back(Awkward(3, detail="disk"))
    outer = there_and_back(inner)
    assert (type(outer), outer.detail) == (Awkward, "disk")
    assert outer.remote is not inner.remote
    assert [frame.name.split(".")[-1] for frame in outer.remote.failure.frames] == ["function", "function"]


# ------------------------------------------------------------ post-mortem

SCENE = """
class Config:
    def __init__(self):
        self.user, self.api_key = "me", "hunter2-hunter2"
    def __repr__(self):
        return f"Config(user={self.user!r}, api_key={self.api_key!r})"

class Stuck:
    def __repr__(self):
        return "<Stuck in the mud>"
    def __reduce__(self):
        raise TypeError("cannot")

def outer(rows):
    password = "correct horse battery"
    url = f"https://me:{password}@host/"
    settings = {"db": {"token": "abcdef123456"}, "size": 3}
    config = Config()
    stuck = Stuck()
    numbers = {"a": [1, 2, 3]}
    return inner(numbers, rows)

def inner(numbers, rows):
    index = 7
    return numbers["a"][index]
"""


def debugged(failure: Failure, *commands: str) -> str:
    out = io.StringIO()
    failures.RemoteTraceback(failure, loads=pickle.loads).post_mortem(
        stdin=io.StringIO("".join(f"{command}\n" for command in (*commands, "quit"))), stdout=out
    )
    return out.getvalue()


def scene(tmp_path: Path, rows: object = b"") -> Failure:
    path = tmp_path / "scene.py"
    outer = load(path, SCENE)["outer"]
    failure = failures.capture(caught(lambda: outer(rows)), dumps=pickle.dumps, skip=2)
    path.unlink()
    return failures.from_json(failures.to_json(failure))


def test_pdb_walks_the_remote_frames_with_their_values_after_the_file_is_gone(tmp_path: Path) -> None:
    shown = debugged(
        scene(tmp_path),
        "where",
        "p index + 1",
        "list",
        "up",
        "p sum(numbers['a'])",
        "pp stuck",
        "down",
        "p numbers",
    )
    assert 'inner()\n-> return numbers["a"][index]' in shown
    assert "outer()\n-> return inner(numbers, rows)" in shown
    for line in ("8", "6", "<Stuck in the mud>", "{'a': [1, 2, 3]}"):
        assert f"(Pdb) {line}\n" in shown
    assert '->	    return numbers["a"][index]' in shown


def test_no_secret_leaves_the_worker_with_the_locals(tmp_path: Path) -> None:
    failure = scene(tmp_path)
    outer = failure.frames[0]
    assert outer.locals is not None
    assert outer.locals["password"] == MASK
    assert "api_key='***'" in outer.locals["config"]
    assert "'size': 3" in outer.locals["settings"]
    sent = repr([(frame.locals, frame.values) for frame in failure.frames])
    for secret in ("correct horse", "hunter2", "abcdef123456"):
        assert secret not in sent
    assert set(outer.values or ()) == {"rows", "numbers"}


def test_locals_are_bounded_and_big_values_are_not_pickled(tmp_path: Path) -> None:
    pickles: list[object] = []

    def dumps(value: object) -> bytes:
        pickles.append(value)
        return pickle.dumps(value)

    outer = load(tmp_path / "m.py", "def outer(big, many):\n    also = [big]\n    1 / 0\n")["outer"]
    exc = caught(lambda: outer(bytearray(1 << 20), list(range(1_000_000))))
    failure = failures.capture(exc, dumps=dumps, skip=2)
    assert pickles == [exc]
    assert all(len(text) <= 2000 for text in (failure.frames[0].locals or {}).values())
    assert failures.capture(exc, dumps=dumps, skip=2, keep_locals=False).frames[0].locals is None

    wide = load(tmp_path / "w.py", "def outer(x, n):\n    return outer(x, n - 1) if n else 1 / 0\n")["outer"]
    failure = failures.capture(caught(lambda: wide(os.urandom(40_000), 90)), dumps=pickle.dumps, skip=2)
    assert len(failures.to_json(failure)) < 2_000_000


def test_a_failure_without_frames_says_that_there_is_nothing_to_debug() -> None:
    with pytest.raises(ValueError, match="no frames"):
        debugged(failures.capture(ValueError(), **FLAT))


def test_names_that_look_secret_are_told_from_those_that_do_not() -> None:
    hidden = (
        "password db_passwd apiKey key AWS_SECRET_ACCESS_KEY token hf_token authHeader auth pwd credentials"
    )
    plain = "monkey keyboard author authors tokenizer tokenized passed compass rows x keypoints"
    assert [name for name in hidden.split() if not looks_secret(name)] == []
    assert [name for name in plain.split() if looks_secret(name)] == []
    assert mask("environ({'HF_TOKEN': 'abc', 'HOME': '/h'})") == "environ({'HF_TOKEN': '***', 'HOME': '/h'})"
    assert mask("https://me:pw@host/x 'Bearer abc.def'") == "https://me:***@host/x 'Bearer ***'"


# ------------------------------------------------------------ JSON

text = st.text(st.characters(), max_size=20)
frames = st.builds(
    Frame,
    filename=text,
    lineno=st.integers(),
    name=text,
    line=text,
    first_lineno=st.integers(),
    position=st.none() | st.tuples(st.integers(), st.integers(), st.integers()),
    source=text,
    source_start=st.integers(),
    left_out=st.integers(0, 9),
    locals=st.none() | st.dictionaries(text, text, max_size=2),
    values=st.none() | st.dictionaries(text, st.binary(max_size=9), max_size=2),
)


def some_failure(inner: st.SearchStrategy[Failure | None]) -> st.SearchStrategy[Failure]:
    return st.builds(
        Failure,
        module=text,
        qualname=text,
        message=text,
        frames=st.lists(frames, max_size=2).map(tuple),
        notes=st.lists(text, max_size=2).map(tuple),
        cause=inner,
        context=inner,
        context_is_cause=st.booleans(),
        suppress_context=st.booleans(),
        members=st.lists(inner.filter(bool), max_size=2).map(tuple),
        syntax=st.just(())
        | st.tuples(*(st.none() | {str: text, int: st.integers()}[kind] for kind in SYNTAX)),
        retryable=st.booleans(),
        pickled=st.none() | st.binary(max_size=9),
    )


failure_trees = st.recursive(st.none(), some_failure, max_leaves=6)


@settings(max_examples=60, deadline=None)
@given(failure_trees.filter(bool))
def test_any_failure_survives_json_and_can_be_rebuilt_and_printed(failure: Failure) -> None:
    assert failures.from_json(failures.to_json(failure)) == failure
    assert isinstance(failures.rebuild(failure, loads=pickle.loads), BaseException)
    assert isinstance(failures.format(failure), str)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
GOOD = json.loads(failures.to_json(failures.capture(caught(chained), dumps=pickle.dumps, skip=0)))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_malformed_json_is_a_protocol_error_and_nothing_else(data: st.DataObject) -> None:
    broken = json.loads(json.dumps(GOOD))
    place: Any = broken
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(json_values)
    with contextlib.suppress(ProtocolError):
        failures.from_json(json.dumps(broken))


@pytest.mark.parametrize(
    "broken", ["", "[", "[]", "null", "{}", '"x"', "[" * 100_000, '{"module":1}', "1" * 5000]
)
def test_what_is_no_failure_at_all_is_a_protocol_error(broken: str) -> None:
    with pytest.raises(ProtocolError):
        failures.from_json(broken)


def test_a_failure_too_long_is_written_thinner_and_refused_when_read() -> None:
    frame = Frame(filename="f", lineno=1, name="f", locals={"x": "y" * 10_000}, values={"x": b"z" * 10_000})
    failure = Failure(
        module="builtins", qualname="ValueError", message="m", frames=(frame,) * 3, pickled=b"p" * 9000
    )
    whole = failures.to_json(failure)
    sizes = [len(failures.to_json(failure, max_chars=limit)) for limit in (len(whole), 50_000, 20_000, 200)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[1] <= 50_000
    assert sizes[3] <= 200
    with pytest.raises(ProtocolError, match="characters"):
        failures.from_json(whole, max_chars=1000)
