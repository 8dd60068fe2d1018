"""What this machine's agent does by itself: settings taken from clients, idle workers, what nothing refers to."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from remote_exec import RemoteExecutor, remote
from remote_exec.agent import memory
from remote_exec.agent.pool_events import LeaseRequested, Quotas, QuotasSet, RefuseLease, Resources
from remote_exec.agent.pools import Pools
from remote_exec.agent.settings import Settings
from remote_exec.client.connections import connections
from remote_exec.model.environment import EnvironmentKind, EnvironmentSpec
from remote_exec.model.layout import Layout
from remote_exec.model.pool import PoolSpec, Shape


def test_a_raised_quota_lets_waiting_calls_go_and_a_lowered_one_refuses_them() -> None:
    spec = PoolSpec(
        environment=EnvironmentSpec(kind=EnvironmentKind.INTERPRETER, python="p"),
        variables={},
        shape=Shape(cpus=2),
    )
    pools = Pools(Resources(4.0, 1 << 30))

    def ask(lease: str) -> list[Any]:
        return pools.handle(LeaseRequested(0.0, lease, 1, spec, "", (), 1.0, 4))

    assert not [i for i in ask("a") if isinstance(i, RefuseLease)]
    refused = [i for i in pools.handle(QuotasSet(1.0, Quotas(cpus=1))) if isinstance(i, RefuseLease)]
    assert [(i.lease, i.error) for i in refused] == [("a", "ResourceLimitExceeded")]
    assert [type(i) for i in ask("b")] == [RefuseLease]
    pools.handle(QuotasSet(2.0, Quotas()))
    assert not [i for i in ask("c") if isinstance(i, RefuseLease)]


def test_idle_workers_are_given_up_when_memory_runs_low(own_host: Callable[..., Any]) -> None:
    ask = own_host(REMOTE_EXEC_AGENT_LOW_MEMORY_SHARE="1.0")

    with RemoteExecutor() as executor:
        first = executor.submit(os.getpid).result()
    until(lambda: not any(pool["workers"] for pool in ask("host")["pools"]))
    assert not Path(f"/proc/{first}").exists()


@pytest.mark.parametrize(("available", "low"), [("40", True), ("60", False)])
def test_memory_runs_low_below_a_twentieth(tmp_path: Path, available: str, low: bool) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(
        f"MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: {available} kB\n"
    )
    assert memory.runs_low(tmp_path) is low


def test_folders_that_nothing_refers_to_are_swept_after_a_while(own_host: Callable[..., Any]) -> None:
    ask = own_host()
    jobs = Layout.of(os.environ).jobs
    for name, age in {"lost.1": 3600, "lost.2": 0, "old-lease": 20 * 86_400, "young-lease": 3600}.items():
        (jobs / name).mkdir(parents=True)
        os.utime(jobs / name, (time.time() - age, time.time() - age))
    assert ask("tidy")["removed"]["folders"] == 2
    assert sorted(path.name for path in jobs.iterdir()) == ["lost.2", "young-lease"]


def test_runtimes_go_when_they_were_not_used_for_long_and_nothing_runs_from_them(
    own_host: Callable[..., Any],
) -> None:
    ask = own_host()
    layout = Layout.of(os.environ)
    (own,) = layout.runtimes.iterdir()
    old, held, young = (layout.runtimes / (digit * 32) for digit in "abc")
    for path in (old, held, young):
        path.mkdir()
    for path in (old, held, own):
        os.utime(path, (0, 0))
    with _locked(held):
        assert ask("tidy")["removed"]["runtimes"] == 1
    assert set(layout.runtimes.iterdir()) == {own, held, young}
    fork_server, session = remote(os.getppid)(), connections.session()
    os.kill(ask("host")["pid"], signal.SIGKILL)
    until(lambda: session.lost)
    with pytest.raises(BlockingIOError), _locked(own):
        pass  # its fork server holds it, too
    assert remote(os.getppid)() == fork_server  # it is with another agent now


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    held = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(held)


def test_an_idle_agent_ends_by_its_setting(tmp_path: Path, session_home: Path) -> None:
    variables = {
        **os.environ,
        "REMOTE_EXEC_HOME": str(tmp_path / "state"),
        "REMOTE_EXEC_AGENT_IDLE_TIMEOUT_IN_SECONDS": "0.2",
    }
    code = "from remote_exec.client.connections import connections as c; print(c.session().welcome.pid)"
    told = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True
    )
    until(lambda: not Path(f"/proc/{told.stdout.strip()}").exists(), seconds=5)


def test_what_a_client_does_not_set_stays_as_another_told() -> None:
    told = Settings().told({"quotas": {"gpus": 1, "jobs": 3}, "retention_in_days": 2}, {})
    assert (told.quotas.gpus, told.quotas.cpus, told.queued_jobs) == (1.0, None, 3)
    assert told.retention_seconds == 2 * 86_400
    assert told.told({}, {}) == told
    assert told.told({}, {"REMOTE_EXEC_AGENT_IDLE_SECONDS": "3"}).idle_seconds == 3.0


def test_a_journal_of_before_gets_the_table_of_results(tmp_path: Path) -> None:
    from remote_exec.agent.journal import Journal
    from remote_exec.agent.results import Results

    journal = Journal.open(tmp_path / "journal.sqlite3")
    Results(journal).put("k", function="f", content=b"abc", size_bytes=3).result()
    journal.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.sqlite3")) as connection:
        assert connection.execute("SELECT key, size FROM results").fetchall() == [("k", 3)]
