"""The journal against a dict, against death, and against what must not happen to a job."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from remote_exec.agent.database import why_not_local
from remote_exec.agent.journal import Journal
from remote_exec.model.errors import ConfigurationError, RuntimeEnvironmentError
from remote_exec.model.job import (
    AttemptRecord,
    Cause,
    DeathCertificate,
    ForkServerRecord,
    JobRecord,
    JobState,
    Outcome,
    OutcomeKind,
    Phase,
)

OK = Outcome(kind=OutcomeKind.OK, parts=(b"\x00result", "sha256:bb"))


def job(name: str, **changes: Any) -> JobRecord:
    fields: dict[str, Any] = {"name": name, "kind": "job", "function": "m:f", "state": JobState.QUEUED}
    return JobRecord(**{**fields, "created_at": 1.0, **changes})


def call(name: str, **changes: Any) -> JobRecord:
    return job(name, **{"kind": "call", "state": JobState.SUCCEEDED, "ended_at": 2.0, **changes})


def done(future: Future[Any]) -> Any:
    return future.result(timeout=10)


@pytest.fixture
def journal(tmp_path: Path) -> Any:
    journal = Journal.open(tmp_path / "journal.sqlite3")
    yield journal
    journal.close()


def test_a_job_comes_back_as_it_was_written(journal: Journal) -> None:
    record = job("train-1", tags=(("team", "a"), ("x", "")), instance_type="gpu", count=3)
    done(journal.create_job(record, spec_json='{"a": 1}', payload=[b"", "sha256:aa", b"args"]))
    assert journal.get("train-1") == record
    assert journal.spec("train-1") == '{"a": 1}'
    assert journal.payload("train-1") == (b"", "sha256:aa", b"args")
    assert journal.outcome("train-1") is None
    attempt = AttemptRecord(job="train-1", number=1, state=JobState.RUNNING, worker_pid=7, started_at=2.0)
    assert done(journal.start_attempt(attempt))
    ended = replace(
        attempt,
        state=JobState.FAILED,
        cause=Cause.OUT_OF_MEMORY,
        ended_at=3.0,
        certificate=DeathCertificate(
            cause=Cause.OUT_OF_MEMORY, message="killed", pid=7, signal=9, last_lines=("a", "ü")
        ),
        phases=(Phase(name="queue", seconds=0.5), Phase(name="run", seconds=1.0, detail="x")),
    )
    assert done(journal.end_attempt(ended))
    assert not done(journal.end_attempt(replace(ended, cause=Cause.SIGNAL))), "an attempt ends once"
    assert journal.attempts("train-1") == (ended,)
    outcome = Outcome(kind=OutcomeKind.FAILED, failure='{"message": "x"}', parts=(b"pickled",))
    finish: dict[str, Any] = {"state": JobState.FAILED, "ended_at": 3.0, "outcome": outcome, "failed": 2}
    assert done(journal.finish("train-1", cause=Cause.OUT_OF_MEMORY, summary="MemoryError", **finish))
    assert journal.outcome("train-1") == outcome
    found = journal.get("train-1")
    assert found is not None
    assert (found.state, found.ended_at, found.failed) == (JobState.FAILED, 3.0, 2)
    assert not done(journal.start_attempt(replace(attempt, number=2))), "an ended job is not tried again"


def test_names_are_unique_and_a_bad_write_spoils_no_other(journal: Journal) -> None:
    done(journal.create_job(job("a"), spec_json="1"))
    futures = [journal.create_job(job(name), spec_json="2", payload=["sha256:x"]) for name in "bac"]
    with pytest.raises(ConfigurationError, match="job named 'a' exists"):
        done(futures[1])
    done(futures[0])
    done(futures[2])
    assert journal.spec("a") == "1"
    assert journal.payload("a") == ()
    with pytest.raises(sqlite3.IntegrityError):  # the schema's own last word
        done(journal.record_calls([call("d"), call("e", failed=5)]))
    assert journal.get("d") is None


def test_a_job_has_one_outcome_and_the_late_one_loses_quietly(journal: Journal) -> None:
    done(journal.create_job(job("a"), spec_json="{}"))
    running = journal.transition("a", expected={JobState.QUEUED}, state=JobState.RUNNING, started_at=5.0)
    late = journal.transition("a", expected={JobState.QUEUED}, state=JobState.RUNNING, started_at=6.0)
    cancelled = Outcome(kind=OutcomeKind.FAILED)
    finished = [
        journal.finish("a", state=JobState.CANCELLED, ended_at=7.0, outcome=cancelled, cause=Cause.CANCELLED),
        journal.finish("a", state=JobState.SUCCEEDED, ended_at=8.0, outcome=OK),
        journal.finish("unknown", state=JobState.SUCCEEDED, ended_at=8.0, outcome=OK),
    ]
    assert [done(future) for future in (running, late, *finished)] == [True, False, True, False, False]
    assert journal.outcome("a") == cancelled
    record = journal.get("a")
    assert record is not None
    assert (record.state, record.started_at, record.ended_at) == (JobState.CANCELLED, 5.0, 7.0)
    assert not done(journal.transition("a", expected=set(JobState), state=JobState.QUEUED)), "final is final"


def test_arrays_grow_and_calls_that_fail_keep_why(journal: Journal) -> None:
    failed = call("f-1", state=JobState.FAILED, cause=Cause.USER_ERROR)
    done(journal.create_job(job("f-2"), spec_json="{}"))
    records = [failed, call("f-2", state=JobState.FAILED), call("f-0", kind="array", count=5)]
    done(journal.record_calls(records, failures={"f-1": "why", "f-2": "not its own", "unknown": "x"}))
    more = call("f-0", kind="array", count=3, created_at=9.0, ended_at=7.0)
    done(journal.record_calls([more, replace(failed, ended_at=9.0)], failures={"f-1": "another"}))
    assert journal.get("f-0") == call("f-0", kind="array", count=8, ended_at=7.0)
    assert journal.get("f-1") == failed
    assert journal.outcome("f-1") == Outcome(kind=OutcomeKind.FAILED, failure="why")
    assert journal.outcome("f-2") is None, "it is a job, and has not ended"
    assert journal.outcome("f-0") is None


def test_contradictions_are_refused_before_they_are_written(journal: Journal) -> None:
    failed = Outcome(kind=OutcomeKind.FAILED)
    with pytest.raises(ValueError, match="cannot end as succeeded with outcome failed"):
        journal.finish("a", state=JobState.SUCCEEDED, ended_at=1.0, outcome=failed)
    with pytest.raises(ValueError, match="cannot end as running"):
        journal.finish("a", state=JobState.RUNNING, ended_at=1.0, outcome=failed)
    with pytest.raises(ValueError, match="use finish"):
        journal.transition("a", expected={JobState.RUNNING}, state=JobState.FAILED)
    with pytest.raises(ValueError, match="create it, then finish"):
        journal.create_job(call("a"), spec_json="{}")
    with pytest.raises(ValueError, match="is queued"):
        journal.record_calls([job("a")])


def test_lists_page_newest_first_whatever_the_filter(journal: Journal) -> None:
    records = [
        call(f"{'ab'[i % 2]}-{i:04}", created_at=float(i // 3), kind=("call", "array")[i % 5 == 0])
        for i in range(1500)
    ]
    done(journal.record_calls(records))
    done(journal.create_job(job("b-job", created_at=50.0), spec_json="{}"))
    everything = [*records, job("b-job", created_at=50.0)]
    filters: list[dict[str, Any]] = [
        {},
        {"prefix": "a-"},
        {"prefix": "b-j"},
        {"prefix": "none"},
        {"prefix": "a-00", "kinds": {"array"}},
        {"kinds": {"job"}},
        {"kinds": {"array", "job"}, "prefix": "b"},
        {"states": {JobState.SUCCEEDED, JobState.QUEUED}},
        {"states": {JobState.FAILED}},
    ]
    for chosen in filters:
        expected = sorted(
            (
                r
                for r in everything
                if r.name.startswith(chosen.get("prefix", ""))
                and r.kind in chosen.get("kinds", {"job", "call", "array"})
                and r.state in chosen.get("states", set(JobState))
            ),
            key=lambda r: (r.created_at, r.name),
            reverse=True,
        )
        seen: list[JobRecord] = []
        page = journal.list(**chosen, limit=97)
        seen.extend(page.jobs)
        while page.next:
            page = journal.list(**chosen, limit=97, before=page.next)
            seen.extend(page.jobs)
        assert seen == expected, chosen
    assert journal.count_by_state() == {
        **dict.fromkeys(JobState, 0),
        JobState.SUCCEEDED: 1500,
        JobState.QUEUED: 1,
    }
    assert journal.unfinished() == (job("b-job", created_at=50.0),)


def test_retention_removes_oldest_ends_and_tells_what_nothing_refers_to(journal: Journal) -> None:
    for number in range(6):
        name = f"j{number}"
        done(journal.create_job(job(name), spec_json="{}", payload=[f"sha256:{number}", "sha256:shared"]))
        if number != 5:
            end: dict[str, Any] = {"state": JobState.SUCCEEDED, "ended_at": float(number), "outcome": OK}
            done(journal.finish(name, **end))
    assert journal.referenced_blobs() == {*(f"sha256:{n}" for n in range(6)), "sha256:shared", "sha256:bb"}
    bounds: dict[str, Any] = {"max_rows": 100, "max_bytes": 1 << 30}
    assert not done(journal.prune(ended_before=0.0, **bounds)).jobs
    pruned = done(journal.prune(ended_before=2.0, **bounds, keep={"j0"}, batch_rows=1))
    assert (pruned.jobs, pruned.blobs, pruned.more) == (("j1",), ("sha256:1",), True)
    assert done(journal.prune(ended_before=0.0, max_rows=2, max_bytes=1 << 30)).jobs == ("j0", "j2")
    pruned = done(journal.prune(ended_before=0.0, max_rows=100, max_bytes=0))
    assert (pruned.jobs, pruned.blobs) == (("j3", "j4"), ("sha256:3", "sha256:4", "sha256:bb"))
    assert journal.list().jobs == (job("j5"),), "what has not ended stays"
    assert journal.outcome("j3") is None
    assert journal.referenced_blobs() == {"sha256:5", "sha256:shared"}


def test_fork_servers_are_known_to_the_next_agent(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "journal.sqlite3"
    first = Journal.open(path)
    servers = [
        ForkServerRecord(id=f"f{n}", pid=n + 1, socket=f"/s/{n}", pool_key="{}", started_at=float(n))
        for n in range(3)
    ]
    for server in servers:
        first.add_fork_server(server)
    first.add_fork_server(replace(servers[1], pid=99))
    assert done(first.remove_fork_server("f0"))
    assert not done(first.remove_fork_server("f0"))
    first.close()
    first.close()
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    with pytest.raises(RuntimeError, match="closed"):
        first.record_calls([call("late")])
    second = Journal.open(path)
    assert second.fork_servers() == (replace(servers[1], pid=99), servers[2])
    second.close()


def test_close_writes_what_waits(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "j")
    futures = [journal.record_calls([call(f"c{n}")]) for n in range(2000)]
    journal.close()
    assert all(future.done() and not future.exception() for future in futures)
    again = Journal.open(tmp_path / "j")
    assert again.count_by_state()[JobState.SUCCEEDED] == 2000
    again.close()


WRITER = """
import sys
from pathlib import Path
from remote_exec.agent.journal import Journal
from remote_exec.model.job import JobRecord, JobState, Outcome, OutcomeKind
journal = Journal.open(Path(sys.argv[1]))
ok = Outcome(kind=OutcomeKind.OK, parts=(b"r",))
for number in range(100_000):
    name = f"job-{number}"
    record = JobRecord(name=name, kind="job", function="f", state=JobState.QUEUED, created_at=1.0)
    created = journal.create_job(record, spec_json="{}", payload=[b"x" * 100])
    finished = journal.finish(name, state=JobState.SUCCEEDED, ended_at=2.0, outcome=ok)
    created.result()
    print("created", name, flush=True)
    assert finished.result()
    print("finished", name, flush=True)
"""


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline().split() for _ in range(151)]
        writer.send_signal(signal.SIGKILL)
        lines += [line.split() for line in writer.stdout if line.endswith("\n")]
    journal = Journal.open(path)
    for what, name in lines:
        record = journal.get(name)
        assert record is not None
        assert journal.payload(name) == (b"x" * 100,)
        if what == "finished":
            assert record.state is JobState.SUCCEEDED
            assert journal.outcome(name) == Outcome(kind=OutcomeKind.OK, parts=(b"r",))
    journal.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_a_network_disk_is_refused_by_name(tmp_path: Path) -> None:
    mounts = (
        "22 1 8:1 / / rw - ext4 /dev/sda rw\n"
        f"23 22 0:40 / {tmp_path} rw,relatime shared:1 - nfs4 filer:/home rw\n"
        f"24 23 8:2 / {tmp_path}/my\\040scratch rw - xfs /dev/sdb rw\n"
    )
    (tmp_path / "my scratch").mkdir()
    reason = why_not_local(tmp_path, mountinfo=mounts)
    assert reason is not None
    assert f"{tmp_path} is a network file system (nfs4)" in reason
    assert why_not_local(tmp_path / "my scratch", mountinfo=mounts) is None
    assert why_not_local(Path("/"), mountinfo=mounts) is None
    assert why_not_local(tmp_path) is None


def test_a_damaged_and_a_newer_file_are_said_clearly(tmp_path: Path) -> None:
    (tmp_path / "damaged").write_bytes(b"no database" * 1000)
    with pytest.raises(RuntimeEnvironmentError, match="cannot be opened"):
        Journal.open(tmp_path / "damaged")
    newer = sqlite3.connect(tmp_path / "newer")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(RuntimeEnvironmentError, match="schema 99"):
        Journal.open(tmp_path / "newer")


def test_a_page_among_a_hundred_thousand_rows_is_quick(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "j")
    for start in range(0, 100_000, 10_000):
        records = [
            call(f"train-{n}", created_at=float(n), state=(JobState.SUCCEEDED, JobState.FAILED)[n % 2])
            for n in range(start, start + 10_000)
        ]
        done(journal.record_calls(records))
    # the last is the worst case: many names share the prefix, and none of them is recent
    pages: list[tuple[dict[str, Any], float]] = [
        ({}, 0.005),
        ({"states": {JobState.FAILED}}, 0.005),
        ({"kinds": {"job"}}, 0.005),
        ({"prefix": "train-777"}, 0.005),
        ({"prefix": "train-1"}, 0.1),
    ]
    for chosen, bound_seconds in pages:
        seconds: list[float] = []
        for _ in range(10):
            begin = time.perf_counter()
            journal.list(**chosen)
            seconds.append(time.perf_counter() - begin)
        assert min(seconds) < bound_seconds, chosen
    journal.close()


NAMES = st.sampled_from([f"n{number}" for number in range(6)])
STATES = st.sampled_from(list(JobState))
TIMES = st.integers(0, 50).map(float)


class JournalAgreesWithADict(RuleBasedStateMachine):
    """Any sequence of writes, reopenings included, leaves journal and dict with the same jobs."""

    folder: Path

    @initialize()
    def begin(self) -> None:
        self.path = self.folder / f"{len(os.listdir(self.folder))}.sqlite3"
        self.journal = Journal.open(self.path)
        self.jobs: dict[str, JobRecord] = {}
        self.outcomes: dict[str, Outcome] = {}

    @rule(name=NAMES, at=TIMES)
    def create(self, name: str, at: float) -> None:
        future = self.journal.create_job(job(name, created_at=at), spec_json="{}", payload=[f"sha256:{name}"])
        assert bool(future.exception(10)) == (name in self.jobs)
        self.jobs.setdefault(name, job(name, created_at=at))

    @rule(name=NAMES, at=TIMES)
    def record_call(self, name: str, at: float) -> None:
        done(self.journal.record_calls([call(name, created_at=at, ended_at=at)]))
        self.jobs.setdefault(name, call(name, created_at=at, ended_at=at))

    @rule(name=NAMES, expected=st.sets(STATES), state=st.sampled_from([JobState.QUEUED, JobState.RUNNING]))
    def transition(self, name: str, expected: set[JobState], state: JobState) -> None:
        moved = done(self.journal.transition(name, expected=expected, state=state, summary=state.value))
        stands = self.jobs[name].state if name in self.jobs else None
        assert moved == (stands is not None and stands in expected and not stands.final)
        if moved:
            self.jobs[name] = replace(self.jobs[name], state=state, summary=state.value)

    @rule(name=NAMES, at=TIMES, ok=st.booleans())
    def finish(self, name: str, at: float, ok: bool) -> None:
        state = JobState.SUCCEEDED if ok else JobState.CANCELLED
        outcome = OK if ok else Outcome(kind=OutcomeKind.FAILED, failure="{}")
        ended = done(self.journal.finish(name, state=state, ended_at=at, outcome=outcome))
        known = self.jobs.get(name)
        # a call whose caller was to have its outcome, and has not taken it
        late = (
            known is not None and (known.kind, known.state) == ("call", state) and name not in self.outcomes
        )
        assert ended == (late or (known is not None and not known.state.final))
        if ended and known is not None:
            if not late:
                self.jobs[name] = replace(known, state=state, ended_at=at, summary="")
            self.outcomes[name] = outcome

    @rule(before=TIMES, keep=st.sets(NAMES))
    def prune(self, before: float, keep: set[str]) -> None:
        gone = {n for n, j in self.jobs.items() if j.ended_at is not None and j.ended_at < before} - keep
        pruned = done(self.journal.prune(ended_before=before, max_rows=1000, max_bytes=1 << 30, keep=keep))
        assert set(pruned.jobs) == gone
        for name in gone:
            del self.jobs[name]
            self.outcomes.pop(name, None)
        assert not set(pruned.blobs) & self.journal.referenced_blobs()

    @precondition(lambda self: self.jobs)
    @rule()
    def reopen(self) -> None:
        self.journal.close()
        self.journal = Journal.open(self.path)

    @invariant()
    def agree(self) -> None:
        if not hasattr(self, "journal"):
            return
        newest = sorted(self.jobs.values(), key=lambda j: (j.created_at, j.name), reverse=True)
        assert list(self.journal.list(limit=1000).jobs) == newest
        counts = Counter(j.state for j in newest)
        assert self.journal.count_by_state() == {state: counts[state] for state in JobState}
        assert {j.name for j in self.journal.unfinished()} == {j.name for j in newest if not j.state.final}
        assert {n: self.journal.outcome(n) for n in self.jobs} == {n: self.outcomes.get(n) for n in self.jobs}

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.journal.close()


def test_the_journal_agrees_with_a_dict(tmp_path: Path) -> None:
    JournalAgreesWithADict.folder = tmp_path
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        JournalAgreesWithADict,
        settings=settings(
            max_examples=25,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
