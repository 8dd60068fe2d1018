"""What travels with a call beside its function: the code that its arguments need, and what it shows of itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SHAPES = """
import math
from . import units

class Circle:
    def __init__(self, radius): self.radius = radius
    def area(self): return units.rounded(math.pi * self.radius ** 2)

class _Missing:
    def __reduce__(self): return "MISSING"

MISSING = _Missing()

def unit():
    return Circle(1)
"""
SETUP = """
import asyncio, threading
from remote_exec import RemoteExecutor, remote
from mylib.shapes import MISSING, Circle, unit

@remote
def area(shape): return shape.area()
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    package = tmp_path / "mylib"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "shapes.py").write_text(SHAPES)
    (package / "units.py").write_text("def rounded(x): return round(x, 2)\n")
    (tmp_path / "late.py").write_text("class Square:\n    def area(self): return 4\n")
    return tmp_path


def run(project: Path, script: str) -> str:
    """Run a script in a process of its own; return what it printed."""
    (project / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=project,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert not done.returncode, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "call",
    [
        "area(Circle(2))",
        "area.submit(Circle(2)).result()",
        "asyncio.run(area.aio(Circle(2)))",
        "list(area.map([Circle(2)]))[0]",
        "RemoteExecutor(1).submit(Circle.area, Circle(2)).result()",
        "remote(lambda make: make().area() * 4)(unit)",
        "remote(lambda make: make(2))(lambda r: __import__('mylib.shapes').shapes.Circle(r).area())",
        "remote(name='a')(lambda shape: shape.area())(Circle(2))",
        "next(values(Circle(2)))",
        "Holder(Circle(2)).area()",
        "RemoteExecutor(1).submit(area.local, Circle(2)).result()",
        "list(RemoteExecutor(1).map(area.local, [Circle(2)]))[0]",
    ],
)
def test_the_module_of_an_arguments_class_travels(project: Path, call: str) -> None:
    more = """
@remote
def values(shape): yield shape.area()

@remote
class Holder:
    def __init__(self, shape): self.shape = shape
    def area(self): return self.shape.area()
"""
    assert float(run(project, f"{SETUP}{more}\nprint({call})")) == pytest.approx(12.57, abs=0.01)


def test_modules_that_come_later_travel_with_the_call_that_names_them(project: Path) -> None:
    script = f"""{SETUP}
@remote
class Holder:
    def area(self, shape): return shape.area()
    def same(self, shape): return shape

@remote
def shape_of(shape): return type(shape).__name__, shape is MISSING

print(shape_of(1), shape_of(MISSING), area(Circle(1)))
holder = Holder()
def late():
    yield from [Circle(1)] * 3
    import late
    yield from [late.Square()] * 3
print(list(area.map(late())))
import late
print(holder.area(late.Square()), type(holder.same(late.Square())) is late.Square)
print(area(late.Square()), area.submit(late.Square()).result())
"""
    assert run(project, script).splitlines() == [
        "('int', False) ('_Missing', True) 3.14",
        "[3.14, 3.14, 3.14, 4, 4, 4]",
        "4 True",
        "4 4",
    ]


def test_an_edited_module_of_an_argument_is_seen_by_the_next_call(project: Path) -> None:
    script = f"""{SETUP}
import importlib, os, pathlib, mylib.units
print(area(Circle(1)))
pathlib.Path("mylib/units.py").write_text("def rounded(x): return -1.0")
print(area(Circle(1)))
"""
    assert run(project, script).splitlines() == ["3.14", "-1.0"]


def test_threads_that_bring_the_same_module_do_not_disturb_each_other(project: Path) -> None:
    (project / "mylib" / "big.py").write_text(f"DATA = {os.urandom(3 << 20).hex()!r}\n")
    script = """
from concurrent.futures import ThreadPoolExecutor
from mylib import big
from remote_exec import remote

@remote
def size(): return len(big.DATA)

with ThreadPoolExecutor(6) as threads:
    print(*threads.map(lambda _: size(), range(6)))
"""
    assert run(project, script).split() == [str(6 << 20)] * 6


FAILING = """
import sys, traceback
from remote_exec import RemoteExecutor, remote
from mylib import units

@remote
def f(x): return units.rounded(x)

@remote
def g(x): yield units.rounded(x)

@remote
class Holder:
    def f(self, x): return units.rounded(x)

def show(call):
    try: call()
    except TypeError as error:
        for frame in traceback.extract_tb(error.__traceback__)[2:]:
            print(frame.filename, frame.name)
"""


@pytest.mark.parametrize(
    ("call", "ours", "remote_frames"),
    [
        ("f('x')", "function.py __call__", ["script.py f", "mylib/units.py rounded"]),
        ("f.submit('x').result()", "future.py result", ["script.py f", "mylib/units.py rounded"]),
        ("list(f.map('x'))", "client/batches.py _values", ["script.py f", "mylib/units.py rounded"]),
        ("list(g('x'))", "client/generators.py __next__", ["script.py g", "mylib/units.py rounded"]),
        ("Holder().f('x')", "remote_class.py __call__", ["script.py f", "mylib/units.py rounded"]),
    ],
)
def test_a_traceback_shows_the_users_frames_and_one_of_ours(
    project: Path, call: str, ours: str, remote_frames: list[str]
) -> None:
    shown = run(project, f"{FAILING}\nshow(lambda: {call})").splitlines()
    assert shown[0].endswith(f"remote_exec/{ours}")
    assert shown[1:] == [f"{project}/{frame}" for frame in remote_frames]


UNSENT = """
import threading, traceback
from remote_exec import RemoteExecutor, remote
from remote_exec.errors import ConfigurationError, SerializationError

lock = threading.Lock()

@remote
def f(x): return x

@remote
def holder(): return lock

@remote
class Holder:
    def f(self, x): return x

def show(call):
    try: call()
    except (ConfigurationError, SerializationError) as error:
        for cause in (error.__cause__, error):
            for frame in traceback.extract_tb(cause and cause.__traceback__):
                if frame.filename != __file__: print(frame.filename, frame.name)
    else: print("nothing was raised")
"""


@pytest.mark.parametrize(
    ("call", "ours"),
    [
        ("f(lock)", "function.py __call__"),
        ("holder()", "function.py __call__"),
        ("f.submit(lock)", "function.py submit"),
        ("list(f.map([lock]))", "client/batches.py _values"),
        ("f.aio(lock).send(None)", "function.py aio"),
        ("Holder(lock)", "remote_class.py __call__"),
        ("Holder().f(lock)", "remote_class.py __call__"),
        ("Holder().f.submit(lock)", "remote_class.py submit"),
        ("RemoteExecutor(1).submit(f.local, lock).result()", "future.py result"),
        ("RemoteExecutor(1).map(f.local, [lock])", "executor.py map"),
        ("holder.preflight()", "function.py preflight"),
        ("f.options(instance_type='nowhere')(1)", "function.py __call__"),
        ("f.options(cpus='many')", "function.py options"),
        ("remote(nonsense=1)", "decorator.py remote"),
        ("RemoteExecutor(nonsense=1)", "executor.py __init__"),
    ],
)
def test_what_cannot_be_sent_is_told_with_one_frame_of_ours(project: Path, call: str, ours: str) -> None:
    (shown,) = run(project, f"{UNSENT}\nshow(lambda: {call})").splitlines()
    assert shown.endswith(f"remote_exec/{ours}")


def test_a_result_asked_for_twice_raises_the_same_traceback_twice(project: Path) -> None:
    again = "future = f.submit('x')\nshow(lambda: future.result())\nshow(lambda: future.result())"
    shown = run(project, f"{FAILING}\n{again}").splitlines()
    assert len(shown) == 6
    assert shown[:3] == shown[3:]


def test_pytest_shows_the_users_frames_alone(project: Path) -> None:
    (project / "test_it.py").write_text(
        "from remote_exec import remote\nfrom mylib.units import rounded\n"
        "@remote\ndef f(x): return rounded(x)\n"
        "def test_call(): f('x')\ndef test_future(): f.submit('x').result()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", "test_it.py"],
        cwd=project, env=os.environ, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert "2 failed" in done.stdout
    assert "mylib/units.py:1: in rounded" in done.stdout
    assert "remote_exec/" not in done.stdout


def test_the_source_of_what_a_script_defines_can_be_had_in_the_worker(project: Path) -> None:
    script = """
import inspect, multiprocessing
from dataclasses import dataclass
from remote_exec import remote

@dataclass
class Point:
    x: int  # no method of its own

class Model:
    def forward(self): return 1

def helper(): return 2

@remote
def sources(*things):
    with multiprocessing.get_context("spawn").Pool(1) as pool:  # its children must not run the script again
        assert pool.map(abs, [-1]) == [1]
    return [inspect.getsource(thing) for thing in (*things, Model().forward)]

if __name__ == "__main__":
    here = [inspect.getsource(thing) for thing in (Point, Model, helper, Model().forward)]
    print(sources(Point, Model, helper) == here)
else:
    print("run again")
"""
    assert run(project, script) == "True\n"


def test_a_checkpoint_location_is_the_folder_that_it_names(project: Path) -> None:
    script = """
from remote_exec import CheckpointLocation, remote
from remote_exec.errors import ConfigurationError

@remote
def train(location):
    import os
    from remote_exec import CheckpointLocation
    os.makedirs(location, exist_ok=True)
    with open(os.path.join(location, "state"), "w") as file:
        file.write("1")
    return location, isinstance(location, CheckpointLocation)

location, same = train(CheckpointLocation("runs/7"))
print(same, location == CheckpointLocation("runs/7"), open("runs/7/state").read())
try:
    train(CheckpointLocation("s3://bucket/run", local_path="/no/such/folder"))
except ConfigurationError as error:
    print(error.message)
"""
    assert run(project, script).splitlines() == [
        "True True 1",
        "nothing here keeps /no/such/folder the same as s3://bucket/run: checkpoints would be lost",
    ]


def test_more_calls_run_at_once_than_there_are_cpus_where_that_is_asked_for(project: Path) -> None:
    script = """
import os, socket
from remote_exec import RemoteExecutor, remote
COUNT = (os.cpu_count() or 1) + 2

def meet(address):
    with socket.create_connection(address, timeout=60) as sock:
        return len(sock.recv(1))

def all_meet(start):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        futures = [start(server.getsockname()) for _ in range(COUNT)]
        guests = [server.accept()[0] for _ in range(COUNT)]  # each waits until all are there
        for guest in guests:
            guest.sendall(b"x")
        print(sum(future.result() for future in futures) == COUNT)

all_meet(remote(max_parallel_jobs=COUNT)(meet).submit)
with RemoteExecutor(max_parallel_jobs=COUNT) as executor:
    all_meet(lambda address: executor.submit(meet, address))
"""
    assert run(project, script) == "True\nTrue\n"


@pytest.mark.here("elsewhere each keeps a connection of its own, which stays for a while")
def test_two_sessions_of_one_user_share_a_pool(
    project: Path, session_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "import os\nfrom remote_exec import remote\nprint(remote(os.getppid)())"
    fork_server = run(project, script)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(session_home / "r2"))
    monkeypatch.setenv("XDG_SESSION_TYPE", "tty")
    assert run(project, script) == fork_server
