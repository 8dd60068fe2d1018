"""`cache=True`: what counts as the same call, for real processes and one real agent."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from remote_exec import remote
from remote_exec.backends.host import Host
from remote_exec.client.connections import connections
from remote_exec.client.reporter import Console
from remote_exec.errors import SerializationError

SCRIPT = """
import json, sys
from remote_exec import remote
import helpers
FACTOR = 2
NAMES = {"alpha", "beta", "gamma", "delta"}
def scaled(x):
    return FACTOR * x
@remote(cache=True)
def work(x, names=frozenset()):
    return scaled(x) + helpers.offset() + len(NAMES | names), Answer(x)
class Answer:
    def __init__(self, x): self.x = x
future = work.submit(20, frozenset({"one", "two", "three"}))
value, answer = future.result()
print(json.dumps({"cached": future.cached, "value": value, "x": answer.x, "status": future.status}))
"""
_seeds = itertools.count(1)


@dataclass
class Project:
    """A folder with a script, which is run in a process of its own with another hash seed each time."""

    folder: Path

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def run(self, **variables: str) -> dict[str, Any]:
        environment = {**os.environ, "PYTHONHASHSEED": str(next(_seeds)), **variables}
        done = subprocess.run(
            [sys.executable, "main.py"],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return {**json.loads(done.stdout), "said": done.stderr}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    made.write("main.py", SCRIPT)
    made.write("helpers.py", f"# of {tmp_path.name}, and no other test\ndef offset():\n    return 1\n")
    return made


def test_another_process_gets_the_stored_result_and_says_so(project: Project) -> None:
    first, second = project.run(), project.run()
    assert (first["cached"], second["cached"]) == (False, True)
    assert first["value"] == second["value"] == 48
    assert second["x"] == 20
    assert second["status"] == "succeeded"
    assert "cached result of work from " in second["said"]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("main.py", "FACTOR * x", "FACTOR * x + 1"),
        ("main.py", "FACTOR = 2", "FACTOR = 3"),
        ("main.py", "work.submit(20,", "work.submit(21,"),
        ("main.py", '"delta"}', '"epsilon"}'),
        ("main.py", "self.x = x", "self.x = x + 0"),
        ("helpers.py", "return 1", "return 5"),
        ("main.py", "cache=True", "cache=True, environment_variables={'A': '1'}"),
    ],
    ids=["a helper", "a global", "an argument", "a set", "a class", "a module", "a variable"],
)
def test_a_change_of_what_it_depends_on_is_a_miss(project: Project, file: str, old: str, new: str) -> None:
    project.run()
    text = (project.folder / file).read_text()
    assert old in text
    project.write(file, text.replace(old, new))
    assert project.run()["cached"] is False


def test_a_change_of_what_it_does_not_depend_on_is_a_hit(project: Project) -> None:
    project.run()
    project.write(
        "main.py",
        "# moved down\n\nUNUSED = 1\n" + SCRIPT.replace("work.submit(20, ", "work.submit(x=20, names="),
    )
    assert project.run()["cached"] is True


def test_another_requirement_is_another_environment(project: Project, tmp_path: Path) -> None:
    wheel = _wheel(tmp_path, version="1.0")
    other = _wheel(tmp_path, version="2.0")
    project.write("main.py", SCRIPT.replace("cache=True", f"cache=True, dependencies=[{str(wheel)!r}]"))
    assert [project.run()["cached"] for _ in range(2)] == [False, True]
    project.write("main.py", SCRIPT.replace("cache=True", f"cache=True, dependencies=[{str(other)!r}]"))
    assert project.run()["cached"] is False


@pytest.fixture
def count(tmp_path: Path) -> Callable[[], int]:
    """How often a function that writes a line to the file has run."""
    file = tmp_path / "runs"
    file.touch()
    return lambda: len(file.read_text().splitlines())


def test_every_way_to_call_looks_and_keeps_but_the_uncached_one(
    tmp_path: Path, count: Callable[[], int]
) -> None:
    runs = str(tmp_path / "runs")

    @remote(cache=True)
    def square(x: int) -> int:
        with open(runs, "a") as file:
            file.write(f"{x}\n")
        return x * x

    assert (square(3), square(x=3), square.submit(3).result()) == (9, 9, 9)
    assert count() == 1
    assert list(square.map([2, 3, 4])) == [4, 9, 16]
    assert sorted(square.map([2, 3, 4], ordered=False)) == [4, 9, 16]
    assert count() == 3
    assert square.options(cache=False)(3) == 9
    assert count() == 4


def test_an_exception_is_not_kept(tmp_path: Path, count: Callable[[], int]) -> None:
    runs = str(tmp_path / "runs")

    @remote(cache=True)
    def fail() -> None:
        with open(runs, "a") as file:
            file.write("ran\n")
        raise KeyError("no")

    for _ in range(2):
        with pytest.raises(KeyError):
            fail()
    returned: list[object] = list(fail.starmap([(), ()], return_exceptions=True))
    assert [repr(one) for one in returned] == ["KeyError('no')"] * 2
    assert count() == 4


def test_a_result_is_kept_as_it_was_returned_and_comes_anew_each_time(host: Host) -> None:
    @remote(cache=True)
    def numbers() -> Any:
        return np.arange(200_000)

    first = numbers()
    first[0] = 99
    again = numbers()
    assert again[0] == 0
    again[0] = 98
    assert numbers()[0] == 0
    told = connections.session(host).ask("cache")
    assert told["results"] >= 1
    assert told["result_hits"] >= 2


def test_a_result_whose_blob_is_gone_is_computed_again(host: Host) -> None:
    @remote(cache=True)
    def heavy() -> bytes:
        return b"x" * 300_000

    @remote
    def lose(folder: str) -> None:
        for blob in Path(folder).glob("??/*"):
            blob.unlink()

    heavy()
    assert heavy.submit().cached
    lose(connections.session(host).ask("cache")["folder"])
    future = heavy.submit()
    assert len(future.result()) == 300_000
    assert not future.cached


def test_what_cannot_be_pickled_is_refused_by_its_path() -> None:
    @remote(cache=True)
    def use(value: object) -> None:
        del value

    with pytest.raises(SerializationError, match=r"argument 0 → dict\['lock'\] → list\[0\]"):
        use({"lock": [threading.Lock()]})


def test_a_job_says_that_it_is_not_cached(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "reporter", Console())  # which has not said it yet

    @remote(cache=True, max_retry_attempts=1)
    def one() -> int:
        return 1

    assert one() == 1
    assert "results of a job are not cached" in capfd.readouterr().err


def _wheel(folder: Path, *, version: str) -> Path:
    import zipfile

    path = folder / f"tiny_thing-{version}-py3-none-any.whl"
    info = f"tiny_thing-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_thing.py", f"version = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny-thing\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(
            f"{info}/RECORD", f"tiny_thing.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n"
        )
    return path
