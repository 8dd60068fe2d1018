"""What is told of calls beside their rows: kept once for all calls of a function, gone with the last of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote_exec.agent import abouts
from remote_exec.agent.journal import Journal
from remote_exec.model.job import JobRecord, JobState


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


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '{"code": 3, "tags": 7, "function": null}', '{"tags": [["a"]]}']
)
def test_what_a_dead_worker_has_left_is_not_trusted(text: str) -> None:
    found = abouts.noted(text)
    assert isinstance(found.function, str)
    assert found.tags == ()
    assert found.about == ""
