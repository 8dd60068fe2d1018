# ruff: noqa: PT018
"""Pickling between two processes: what is loaded in the one that pickled it hides what is missing."""

import json
import linecache
import os
import pickle
import socket
import sqlite3
import subprocess
import sys
import threading
import traceback
import types
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreters import python_of

from remote_exec.errors import DeserializationError, SerializationError, WorkerDied
from remote_exec.model.failure import Failure, Frame
from remote_exec.serial import pickling

SUPPORT = Path(__file__).parent / "pickling_support"
ROOT = Path(__file__).parents[2]

sys.path.insert(0, str(SUPPORT))
import near  # noqa: E402

sys.path.remove(str(SUPPORT))


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    return near.build_runtime(tmp_path_factory.mktemp("runtime"))


@pytest.fixture(scope="module")
def far(runtime):
    """A process with the runtime and the bare standard library."""
    with near.Far(runtime) as process:
        yield process


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """A folder with one version of cloudpickle, as a user's environment has it."""
    folders = {}

    def install(version):
        if version and version not in folders:
            folder = folders[version] = tmp_path_factory.mktemp("cloudpickle")
            command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--target", str(folder)]
            done = subprocess.run(
                [*command, f"cloudpickle=={version}.*"], capture_output=True, text=True, check=False
            )
            if done.returncode:
                pytest.skip(f"cloudpickle {version} could not be installed: {done.stderr[-300:]}")
        return [folders[version]] if version else []

    return install


def run_corpus(python, runtime, version, folders):
    cloudpickle_here = ROOT, runtime / "remote_exec_runtime"  # the client's Python may have none of its own
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, cloudpickle_here))}
    command = [python, str(SUPPORT / "corpus.py"), str(runtime), version, *map(str, folders)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert len(report) > 20
    return {name: text for name, text in report.items() if text}


@pytest.mark.parametrize("version", ["", "1.6", "2.2", "3.1"])
def test_everyday_and_awkward_code_of_a_script_works_beside_any_cloudpickle(runtime, installed, version):
    assert run_corpus(sys.executable, runtime, version, installed(version)) == {}


@pytest.mark.parametrize("minor", [11, 12, 13])
def test_it_works_on_every_supported_python(runtime, minor):
    assert run_corpus(interpreter(minor), runtime, "", []) == {}


def test_the_carried_part_runs_on_the_oldest_python(runtime):
    script = (
        f"import sys; sys.path.append({str(runtime)!r})\n"
        "from remote_exec_runtime.serial import explain, pickling\n"
        "print(pickling.load(*pickling.dump(lambda x: x + 1))(2))"
    )
    done = subprocess.run(
        [interpreter(10), "-I", "-S", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "3\n"


def interpreter(minor):
    return sys.executable if sys.version_info[1] == minor else python_of(minor)[1]


def test_the_private_cloudpickle_leaves_the_users_alone():
    script = (
        "import sys\n"
        "import remote_exec.serial.pickling as pickling\n"
        "assert 'cloudpickle' not in sys.modules\n"
        "import cloudpickle\n"
        "private = sys.modules['remote_exec_runtime.cloudpickle.cloudpickle']\n"
        "assert cloudpickle.CloudPickler is not private.Pickler\n"
        "import remote_exec_runtime.model.errors as theirs, remote_exec.model.errors as ours\n"
        "assert theirs is ours\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


# source text


def load_module(path, source):
    path.write_text(source)
    module = types.ModuleType(path.stem)
    module.__file__ = str(path)
    sys.modules[path.stem] = module
    exec(compile(source, str(path), "exec"), vars(module))
    return module


@pytest.fixture
def module(tmp_path):
    yield lambda source: load_module(tmp_path / "carried_by_value.py", source)
    sys.modules.pop("carried_by_value", None)


def test_tracebacks_show_source_lines_of_a_file_that_only_lies_here(far, module):
    failing = module("def fail(x):\n    return 1 / x  # here\n").fail
    pickled = pickling.dump((failing, (0,)), by_value=frozenset({"carried_by_value"}))
    Path(failing.__code__.co_filename).unlink()
    with pytest.raises(near.FarError) as raised:
        far.send(pickled)
    assert "return 1 / x  # here" in raised.value.traceback
    assert f'File "{failing.__code__.co_filename}", line 2, in fail' in raised.value.traceback


def test_a_file_edited_after_it_was_loaded_is_sent_only_where_the_code_is_still_the_same(far, module):
    import inspect

    functions = module("def same():\n    return 1\n\n\ndef changed():\n    return 2\n")
    path = Path(functions.__file__)
    path.write_text("def same():\n    return 1\n\n\ndef changed():\n    return 3\n")
    by_value = frozenset({"carried_by_value"})
    stream = b"".join(pickling.dump([functions.same], by_value=by_value).stream)
    assert b"return 3" in stream
    stream = b"".join(pickling.dump([functions.changed], by_value=by_value).stream)
    assert b"return 3" not in stream
    assert far.call(inspect.getsource, functions.same, by_value=by_value) == "def same():\n    return 1\n"


def test_source_of_notebook_cells_travels_once_for_all_functions_of_a_cell(far):
    cell = "def first():\n    return second()\n\ndef second():\n    raise KeyError('cell')  # line five\n"
    linecache.cache["<cell-7>"] = (len(cell), None, cell.splitlines(True), "<cell-7>")
    namespace = {"__name__": "__main__"}
    exec(compile(cell, "<cell-7>", "exec"), namespace)
    pickled = pickling.dump((namespace["first"], ()))
    assert b"".join(pickled.stream).count(b"line five") == 1
    with pytest.raises(near.FarError) as raised:
        far.send(pickled)
    assert "raise KeyError('cell')  # line five" in raised.value.traceback


# values and buffers


@pytest.fixture(scope="module")
def far_with_packages(runtime):
    with near.Far(runtime, flags=("-I",)) as process:
        yield process


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_arrays_arrive_writable_when_they_were(far_with_packages, size):
    np = pytest.importorskip("numpy")

    def fill(array, frozen):
        array[:] = 3
        return array, array.sum(), frozen.flags.writeable

    frozen = np.zeros(size)
    frozen.flags.writeable = False
    came, total, writeable = far_with_packages.call(fill, np.zeros(size), frozen)
    assert total == 3 * size and not writeable
    came[0] = 5
    assert came[0] == 5 and came.flags.writeable


def test_big_buffers_are_neither_copied_nor_put_into_the_stream():
    np = pytest.importorskip("numpy")
    pd = pytest.importorskip("pandas")
    array, text = np.ones((500, 500)), bytes(1_000_000)
    columns = np.asfortranarray(array)
    frame = pd.DataFrame(np.ones((200_000, 2)))
    pickled = pickling.dump_arguments(
        (array, columns, text, array[::2, ::2], np.ones(8000)), {"frame": frame}
    )
    sizes = [buffer.raw().nbytes for buffer in pickled.buffers]
    assert sizes == [2_000_000, 2_000_000, 1_000_000, 500_000, 3_200_000]
    assert pickled.buffers[2].raw().obj is text
    assert np.shares_memory(np.frombuffer(pickled.buffers[0], "f8"), array)
    assert sum(map(len, pickled.stream)) < 8000 * 8 + 10_000
    (_, other, *_), _ = pickling.load(pickled.stream, [bytearray(b.raw()) for b in pickled.buffers])
    assert other.flags.f_contiguous and (other == array).all()


BIG = pickling.BYTES_OUT_OF_BAND
FRAME = b"\x95" + (BIG - 9).to_bytes(8, "little")  # what a frame of opcodes begins with
BINBYTES = b"B" + (BIG + 9).to_bytes(4, "little")


@given(
    st.lists(
        st.sampled_from([b"", FRAME, FRAME[1:], BINBYTES, b"x" * 300, b"x" * (BIG - 9)]).flatmap(
            lambda data: st.sampled_from(
                [data, data + bytes(BIG), bytes(BIG) + data, bytearray(BIG), "x" * BIG, "\xe9" * BIG, 1]
            )
        ),
        max_size=8,
    )
)
def test_bytes_of_all_sizes_arrive_as_bytes_whatever_is_in_them(values):
    """Big ones leave the stream; they are found between what the pickler writes, and must not be taken for it."""
    pickled = pickling.dump(values)
    for kind in (bytes, bytearray, memoryview):
        loaded = pickling.load(pickled.stream, [kind(buffer.raw()) for buffer in pickled.buffers])
        assert loaded == values
        assert list(map(type, loaded)) == list(map(type, values))
    assert pickling.load(pickling.join(*pickled)) == values


def test_big_bytes_that_come_as_such_are_not_copied():
    data = bytes(BIG)
    first, second = pickling.load(
        *((pickled := pickling.dump([data, data])).stream, [pickled.buffers[0].raw().obj])
    )
    assert first is second is data


def test_memoryviews_stay_views(far):
    def look(view):
        return type(view).__name__, view.format, view.shape, view.readonly, view.tolist()

    view = memoryview(bytearray(range(8))).cast("H", (2, 2))
    assert far.call(look, view) == ("memoryview", "H", (2, 2), False, view.tolist())
    assert far.call(look, memoryview(b"ab")) == ("memoryview", "B", (2,), True, [97, 98])


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=8,
)


@settings(max_examples=30, deadline=None)
@given(st.lists(plain), st.dictionaries(st.text(), plain), st.booleans())
def test_plain_arguments_come_back_equal(args, kwargs, joined):
    buffer = bytearray(pickling.OUT_OF_BAND_BYTES)
    pickled = pickling.dump_arguments((*args, pickle.PickleBuffer(buffer)), kwargs)
    parts = (pickling.join(*pickled),) if joined else (pickled.stream, pickled.buffers)
    (*came, again), named = pickling.load(*parts)
    assert (came, named, bytes(again)) == (args, kwargs, bytes(buffer))


def test_our_own_nouns_and_errors_are_the_same_classes_on_both_sides(far):
    def make(failure, error):
        import sys

        kinds = type(failure).__module__, type(error).__module__
        return (
            kinds,
            failure,
            error,
            sys.modules[type(failure).__module__].Failure(module="m", qualname="q", message="there"),
        )

    failure = Failure(
        module="m", qualname="q", message="x", frames=(Frame(filename="f", lineno=1, name="n"),)
    )
    kinds, came, error, made = far.call(make, failure, WorkerDied("gone", hint="look"))
    assert kinds == ("remote_exec_runtime.model.failure", "remote_exec.errors")
    assert came == failure and type(error) is WorkerDied and error.hint == "look"
    assert type(made) is Failure and made.message == "there"


# by value, by reference


def test_importable_code_goes_by_name_unless_asked_otherwise(far, module):
    functions = module("def f():\n    return 1\n\nclass C:\n    pass\n")
    functions.__spec__ = types.SimpleNamespace()  # as an imported one has
    by_name = pickling.dump([functions.f, functions.C])
    assert len(b"".join(by_name.stream)) < 150
    with pytest.raises(near.FarError, match="the module 'carried_by_value' is missing here"):
        far.call(functions.f)
    assert far.call(functions.f, by_value=frozenset({"carried_by_value"})) == 1


def test_the_registry_of_the_users_cloudpickle_is_asked(far, module):
    cloudpickle = pytest.importorskip("cloudpickle")
    functions = module("def f():\n    return 1\n")
    functions.__spec__ = types.SimpleNamespace()
    cloudpickle.register_pickle_by_value(functions)
    try:
        assert far.call(functions.f) == 1
    finally:
        cloudpickle.unregister_pickle_by_value(functions)


def test_a_module_put_together_by_hand_goes_by_value(far):
    made = types.ModuleType("made_by_hand")
    exec("def f():\n    return 1\n", vars(made))
    sys.modules["made_by_hand"] = made
    try:
        assert far.call(made.f) == 1
        assert far.call(lambda: made.f()) == 1
    finally:
        del sys.modules["made_by_hand"]


def test_what_only_annotations_name_may_be_missing_there(far, module):
    functions = module("class Thing:\n    pass\n")
    functions.__spec__ = types.SimpleNamespace()
    namespace = {"Thing": functions.Thing, "helpers": functions, "__name__": "__main__"}
    exec("def f(x: 'Thing', y: 'helpers.Thing | None' = None) -> 'int':\n    return x + 1\n", namespace)
    assert far.call(namespace["f"], 1) == 2


def test_threads_pickle_at_the_same_time():
    def work(n):
        for _ in range(30):
            assert pickling.load(*pickling.dump(lambda x: x + n))(1) == n + 1

    failures = []
    threads = [threading.Thread(target=lambda n=n: failures.extend(errors_of(work, n))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def errors_of(function, *args):
    try:
        function(*args)
    except Exception:
        return [traceback.format_exc()]
    return []


# explanations


class Engine:
    def __init__(self):
        self.pool = threading.Lock()


class Slots:
    __slots__ = ("connection",)


class OwnState:
    def __init__(self):
        self.lock = threading.Lock()  # left out
        self.numbers = {"sent": (i for i in "x")}

    def __getstate__(self):
        return {"numbers": self.numbers}


class Looped:
    def __init__(self):
        self.me, self.items = self, [1, {"k": self}]


def make_train():
    db = Engine()

    def helper(x):
        return db

    def train(x):
        return helper(x)

    return train


def with_slots(stack):
    made = Slots()
    made.connection = sqlite3.connect(":memory:")
    stack.callback(made.connection.close)
    return made


def with_socket(stack):
    made = stack.enter_context(socket.socket())

    def function(value, *, connection=made):
        return value

    return {"f": [function]}


def np_zeros():
    return pytest.importorskip("numpy").zeros(100_000)


def looped(stack):
    made = Looped()
    made.items.append(threading.Event())
    return made


@pytest.mark.parametrize(
    ("make", "path", "hint"),
    [
        (
            lambda _: make_train(),
            "train → closure 'helper' → closure 'db' → Engine.pool → _thread.lock",
            "inside the function",
        ),
        (
            lambda s: [with_slots(s)],
            "list → list[0] → Slots.connection → sqlite3.Connection",
            "pass its address",
        ),
        (
            with_socket,
            "dict → dict['f'] → list[0] → default of 'connection' → socket.socket",
            "connect inside",
        ),
        (
            lambda _: OwnState(),
            "OwnState → OwnState.numbers → dict['sent'] → generator",
            "list of its values",
        ),
        (
            looped,
            "Looped → Looped.items → list[2] → Event._cond → Condition._lock → _thread.lock",
            "`__getstate__`",
        ),
        (
            lambda s: s.enter_context(open(__file__)),  # noqa: SIM115
            "TextIOWrapper → _io.TextIOWrapper",
            "pass the path",
        ),
        (
            lambda _: [np_zeros(), Engine()],
            "list → list[1] → Engine.pool → _thread.lock",
            "inside the function",
        ),
        (lambda _: {1, sys._getframe()}, "set → element of a set → frame", "running code"),
    ],
)
def test_the_path_to_what_cannot_be_pickled_is_told(make, path, hint):
    import contextlib

    with contextlib.ExitStack() as stack, pytest.raises(SerializationError) as raised:
        pickling.dump(make(stack))
    assert " → ".join(raised.value.path) == path
    assert path in raised.value.message and hint in raised.value.hint
    assert raised.value.__cause__ is not None


def test_the_path_begins_with_the_argument():
    with pytest.raises(SerializationError) as raised:
        pickling.dump_arguments((1, 2), {"data": {"lock": threading.Lock()}})
    assert raised.value.path == ("argument 'data'", "dict['lock']", "_thread.lock")


def test_too_deep_nesting_is_said_in_words():
    deep = []
    for _ in range(50_000):
        deep = [deep]
    with pytest.raises(SerializationError, match="nested too deeply"):
        pickling.dump(deep)
    while deep:  # freeing it all at once would recurse
        deep = deep[0]


class BadState:
    def __getstate__(self):
        return 1

    def __setstate__(self, state):
        raise ValueError("not today")


def test_what_cannot_arrive_is_said_in_words(far):
    with pytest.raises(DeserializationError, match="ValueError: not today") as raised:
        pickling.load(*pickling.dump(BadState()))
    assert isinstance(raised.value.__cause__, ValueError)
    missing_class = pickle.dumps(Failure).replace(b"Failure", b"Fajlure")
    with pytest.raises(DeserializationError, match=r"missing here.*Fajlure"):
        pickling.load(missing_class)
    missing_module = pickle.dumps(Failure).replace(b".failure", b".fajlure")
    with pytest.raises(
        DeserializationError, match=r"'remote_exec\.model\.fajlure' is missing here"
    ) as raised:
        pickling.load(missing_module)
    assert "dependencies" in raised.value.hint
