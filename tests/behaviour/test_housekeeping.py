"""What an agent does by itself: settings taken from clients, quotas, memory limits, retention, eviction."""

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

from remote_exec import RemoteExecutor, get_future, remote
from remote_exec.agent import memory
from remote_exec.agent.pool_events import LeaseRequested, Quotas, QuotasSet, RefuseLease, Resources
from remote_exec.agent.pools import Pools
from remote_exec.agent.settings import Settings
from remote_exec.client.connections import connections
from remote_exec.errors import HostUnavailable, JobNotFound, ResourceLimitExceeded, WorkerDied
from remote_exec.model.environment import EnvironmentKind, EnvironmentSpec
from remote_exec.model.job import Cause
from remote_exec.model.layout import Layout
from remote_exec.model.pool import PoolSpec, Shape


@pytest.fixture
def agent(
    session_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Any]]:
    """Starts an agent of the test's own, configured by environment variables; returns what asks it."""
    monkeypatch.setenv("REMOTE_EXEC_HOME", str(tmp_path / "state"))

    def start(**variables: str) -> Callable[..., Any]:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return connections.session().ask

    yield start
    session = connections.session()
    with contextlib.suppress(HostUnavailable):
        session.ask("stop")
    _wait(lambda: session.lost)


def _wait(done: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def test_a_quota_refuses_at_once_what_it_can_never_allow(agent: Callable[..., Any]) -> None:
    agent(REMOTE_EXEC_QUOTAS="cpus=1")

    @remote
    def one() -> int:
        return 1

    assert one.options(cpus=1)() == 1
    with pytest.raises(ResourceLimitExceeded, match=r"cpus=1\.5 was asked for; the option quotas allows 1"):
        one.options(cpus=1.5)()


def test_a_quota_of_jobs_refuses_those_beyond_it(agent: Callable[..., Any], tmp_path: Path) -> None:
    agent(REMOTE_EXEC_QUOTAS="jobs=1,cpus=1")
    gate = tmp_path / "gate"

    @remote(cpus=1, detach=True)
    def hold() -> int:
        while not gate.exists():
            time.sleep(0.01)
        return 1

    running = hold.submit()
    _wait(lambda: running.status == "running")
    queued = hold.submit()
    with pytest.raises(
        ResourceLimitExceeded, match="1 jobs are queued on this host, and the option quotas allows 1"
    ):
        hold.submit()
    gate.touch()
    assert (running.result(20), queued.result(20)) == (1, 1)


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


def test_a_worker_over_its_memory_is_killed_and_its_certificate_says_so(agent: Callable[..., Any]) -> None:
    agent()

    @remote(memory="200 MB")
    def grow() -> None:
        kept = bytearray(400_000_000)
        for start in range(0, len(kept), 4096):
            kept[start] = 1
        time.sleep(30)

    started = time.monotonic()
    with pytest.raises(WorkerDied, match="used more memory than was asked for it") as caught:
        grow()
    assert time.monotonic() - started < 10
    assert caught.value.certificate is not None
    assert caught.value.certificate.cause is Cause.OUT_OF_MEMORY


def test_children_that_share_a_workers_memory_are_not_counted_twice(agent: Callable[..., Any]) -> None:
    agent()

    @remote(memory="300 MB")
    def share() -> int:
        kept = bytearray(b"x" * 150_000_000)
        children: list[int] = []
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                time.sleep(1.5)
                os._exit(0)
            children.append(pid)
        for pid in children:
            os.waitpid(pid, 0)
        return len(kept)

    assert share() == 150_000_000


def test_idle_workers_are_given_up_when_memory_runs_low(agent: Callable[..., Any]) -> None:
    ask = agent(REMOTE_EXEC_AGENT_LOW_MEMORY_SHARE="1.0")

    with RemoteExecutor() as executor:
        first = executor.submit(os.getpid).result()
    _wait(lambda: not any(pool["workers"] for pool in ask("host")["pools"]))
    assert not Path(f"/proc/{first}").exists()


@pytest.mark.parametrize(("available", "low"), [("40", True), ("60", False)])
def test_memory_runs_low_below_a_twentieth(tmp_path: Path, available: str, low: bool) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(
        f"MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: {available} kB\n"
    )
    assert memory.runs_low(tmp_path) is low


def test_jobs_past_their_retention_go_with_their_folders_and_no_others(agent: Callable[..., Any]) -> None:
    ask = agent(REMOTE_EXEC_RETENTION_IN_DAYS="0.00001")
    layout = Layout.of(os.environ)

    @remote
    def say(gate: str) -> str:
        print("here")
        while gate and not os.path.exists(gate):
            time.sleep(0.01)
        return "done"

    gate = layout.home / "gate"
    living = say.options(name="train-more").submit(str(gate))
    ended = say.options(name="train").submit("")
    assert ended.result(20) == "done"
    _wait(lambda: living.status == "running")
    assert (layout.jobs / "train.1").is_dir()
    _wait(lambda: ask("tidy") and not (layout.jobs / "train.1").exists())
    with pytest.raises(JobNotFound):
        get_future("train")
    assert (layout.jobs / "train-more.1").is_dir()
    gate.touch()
    assert living.result(20) == "done"


def test_the_oldest_jobs_go_while_results_and_logs_take_too_much_room(agent: Callable[..., Any]) -> None:
    ask = agent(REMOTE_EXEC_RETENTION_SIZE_LIMIT="3 MB")

    @remote
    def blob(size: int) -> bytes:
        return os.urandom(size)

    names = [f"big-{number}" for number in range(3)]
    for name in names:
        blob.options(name=name).submit(1_200_000).result(20)
    removed = ask("tidy")["removed"]
    assert removed["jobs"] >= 1
    with pytest.raises(JobNotFound):
        get_future(names[0])


def test_folders_that_nothing_refers_to_are_swept_after_a_while(agent: Callable[..., Any]) -> None:
    ask = agent()
    jobs = Layout.of(os.environ).jobs
    for name, age in {"lost.1": 3600, "lost.2": 0, "old-lease": 20 * 86_400, "young-lease": 3600}.items():
        (jobs / name).mkdir(parents=True)
        os.utime(jobs / name, (time.time() - age, time.time() - age))
    assert ask("tidy")["removed"]["folders"] == 2
    assert sorted(path.name for path in jobs.iterdir()) == ["lost.2", "young-lease"]


def test_runtimes_go_when_they_were_not_used_for_long_and_nothing_runs_from_them(
    agent: Callable[..., Any],
) -> None:
    ask = agent()
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
    _wait(lambda: session.lost)
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


def test_cached_results_are_bounded_and_the_least_recently_used_goes_first(agent: Callable[..., Any]) -> None:
    ask = agent(REMOTE_EXEC_CACHE_SIZE_LIMIT="400 kB")

    @remote(cache=True)
    def blob(x: int) -> bytes:
        return bytes([x]) * 40_000

    for number in (1, 2, 1, 3):
        blob(number)
    assert ask("tidy")["removed"]["results"] == 1
    assert [blob.submit(number).cached for number in (1, 3, 2)] == [True, True, False]


def test_a_jobs_log_is_kept_up_to_its_limit(agent: Callable[..., Any]) -> None:
    agent()

    @remote(log_size_limit="100 kB", detach=True)
    def talk() -> None:
        for _ in range(200):
            print("x" * 10_000)

    future = talk.submit()
    future.result(20)
    folder = next(Layout.of(os.environ).jobs.glob(f"{future.job}.*"))
    assert sum(file.stat().st_size for file in folder.iterdir()) < 200_000


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
    _wait(lambda: not Path(f"/proc/{told.stdout.strip()}").exists(), seconds=5)


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
