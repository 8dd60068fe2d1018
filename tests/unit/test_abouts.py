"""What is told of calls beside their rows: kept once for all calls of a function, gone with the last of them."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from remote_exec.agent import abouts
from remote_exec.agent.journal import Journal
from remote_exec.model.job import JobRecord, JobState
from remote_exec.serial import sources
from remote_exec.worker.about import About


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """A journal with three calls that have ended."""
    journal = Journal.open(tmp_path / "journal.sqlite")
    now = time.time()
    journal.record_calls(
        [
            JobRecord(
                name=f"train-lease-{number}",
                kind="call",
                function="train",
                state=JobState.SUCCEEDED,
                created_at=now + number,
                ended_at=now + number,
            )
            for number in range(3)
        ]
    ).result()
    yield journal
    journal.close()


def test_it_is_kept_once_and_goes_with_the_last_call(journal: Journal) -> None:
    about = {"code": "def train(): ...\n"}
    abouts.put(
        journal, [(about, ["train-lease-0", "train-lease-1"]), ({"code": "x"}, ["train-lease-2"])]
    ).result()
    assert [abouts.get(journal, f"train-lease-{number}") for number in range(4)] == [
        about,
        about,
        {"code": "x"},
        {},
    ]
    assert journal.database.read("SELECT count(*) FROM abouts") == [(2,)]
    assert abouts.prune(journal).result() == 0
    more = about | {"result": {"type": "builtins.int", "text": "7"}}
    abouts.put(journal, [(more, ["train-lease-1"])]).result()
    assert abouts.get(journal, "train-lease-1") == more, "what came of it is known"
    gone = journal.prune(ended_before=0.0, max_rows=1, max_bytes=1 << 30).result()
    assert len(gone.jobs) == 2
    assert abouts.prune(journal).result() == 2
    assert abouts.get(journal, "train-lease-2") == {"code": "x"}


def twice(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function."""

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return function(*args), function(*args)

    return call


@twice
@functools.lru_cache(
    maxsize=3,
)
def decorated(
    number: int,
) -> str:
    text = """
no code, though it begins at the left
"""
    return text.format(
        number,
    )  # here it ends


@functools.total_ordering
class Shape:
    """Lines that are no method's, before and after."""

    sides = 3

    class Inner:
        def method(self) -> int:
            return 1

    def __lt__(self, other: object) -> bool:
        return [side + 1 for side in range(self.sides)] == other

    last = 1


class Plain:
    only = 1


@pytest.mark.parametrize(
    "code", [twice, decorated, Shape, Shape.Inner, Shape.Inner().method, functools.partial(twice)]
)
def test_code_that_is_noted_before_it_runs_is_that_which_is_told_later(code: object) -> None:
    lines = sources.lines_of(code)
    assert lines.startswith(sources.text_of(code))
    assert sources.block_of(lines) == sources.text_of(code) != ""
    about = About.of({"name": "it"}).of_loaded(code)  # type: ignore[arg-type]
    assert json.loads(abouts.noted(about.noted()).about) == {"code": sources.text_of(code)}


@pytest.mark.parametrize("code", [len, 3, Plain])
def test_code_that_is_not_to_be_had_is_not_noted(code: object) -> None:
    assert sources.lines_of(code) == ""


@pytest.mark.parametrize("lines", ["def f(", "\x00"])
def test_noted_lines_that_cannot_be_understood_are_shown_as_they_are(lines: str) -> None:
    assert abouts.noted(json.dumps({"lines": lines})).about == json.dumps({"code": lines})


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '{"code": 3, "tags": 7, "function": null}', '{"tags": [["a"]]}']
)
def test_what_a_dead_worker_has_left_is_not_trusted(text: str) -> None:
    found = abouts.noted(text)
    assert isinstance(found.function, str)
    assert found.tags == ()
    assert found.about == ""
