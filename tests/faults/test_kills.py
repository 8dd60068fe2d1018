"""SIGKILL for worker, fork server, agent and client, at every moment: nothing lost, nothing run twice, no hang.

What a function does is counted in a file that it appends to; whoever is killed is killed by its process id.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jobs_work as work
import pytest
from own_home import agent_pid, agents_of, lives, processes_of
from waiting import SECONDS, until

from remote_exec import RemoteExecutor, remote
from remote_exec.backends import local
from remote_exec.client.connections import connections
from remote_exec.errors import MaxRuntimeExceeded, WorkerDied
from remote_exec.model.layout import Layout
from remote_exec.wire import protocol
from remote_exec.wire.control import ControlStream

AT_ONCE_SECONDS = 3.0
ITEMS = 2000
BIG = 48 << 20
VICTIMS = ("worker", "fork server", "agent")
each_victim = pytest.mark.parametrize("victim", VICTIMS)


@pytest.fixture
def pool(home: Path) -> Iterator[RemoteExecutor]:
    with RemoteExecutor(max_parallel_jobs=2) as executor:
        executor.submit(work.pids).result(20)
        yield executor


@pytest.fixture
def noted(tmp_path: Path) -> Path:
    path = tmp_path / "noted"
    path.touch()
    return path


def parent(pid: int) -> int:
    return int(Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[1])


def kill(victim: str, worker: int) -> None:
    pid = {"worker": lambda: worker, "fork server": lambda: parent(worker), "agent": agent_pid}[victim]()
    os.kill(pid, signal.SIGKILL)


def told_of(job: str) -> Any:
    """Return what the agent tells of a job."""
    return connections.with_agent(local.here(), lambda session: session.ask("job", {"name": job}))


def running(noted: Path) -> int:
    """Wait until a function has written down its worker's process id, and return it."""
    return int(until(lambda: noted.read_text().split())[0])


def well(pool: RemoteExecutor) -> bool:
    """Whether the pool works; a call that was sent before a loss was known may be lost with it."""
    try:
        return pool.submit(work.size_of, "12").result(AT_ONCE_SECONDS) == 2
    except WorkerDied:
        return pool.submit(work.size_of, "12").result(AT_ONCE_SECONDS) == 2


# --- worker, fork server, agent -----------------------------------------------------------------------------


@each_victim
def test_an_idle_one_that_is_killed_is_replaced(pool: RemoteExecutor, victim: str) -> None:
    kill(victim, pool.submit(work.pids).result(AT_ONCE_SECONDS)[0])
    assert well(pool)


@each_victim
def test_a_running_call_ends_with_its_worker_and_outlives_its_agent(
    pool: RemoteExecutor, noted: Path, victim: str
) -> None:
    future = pool.submit(work.hold, str(noted), 0.3)
    worker = running(noted)
    kill(victim, worker)
    error = future.exception(AT_ONCE_SECONDS)
    if victim == "agent":
        assert future.result() == "held"
    else:
        assert isinstance(error, WorkerDied)
        assert ("SIGKILL" if victim == "worker" else "the fork server died") in str(error)
        assert not lives(worker) or until(lambda: not lives(worker)) is True
    assert len(noted.read_text().split()) == 1
    assert well(pool)


@each_victim
def test_a_durable_job_ends_with_its_worker_and_outlives_its_agent(
    pool: RemoteExecutor, noted: Path, victim: str
) -> None:
    future = remote(work.hold).options(name=f"durable-{victim.split()[0]}").submit(str(noted), 0.4)
    kill(victim, running(noted))
    if victim == "agent":
        assert future.result(AT_ONCE_SECONDS) == "held"
        assert future.status == "succeeded"
    else:
        with pytest.raises(WorkerDied):
            future.result(AT_ONCE_SECONDS)
        assert future.status == "failed"
    assert len(noted.read_text().split()) == 1


@pytest.mark.parametrize("victim", ["worker", "agent"])
def test_the_record_of_a_job_that_outlives_its_agent_has_each_attempts_end_and_phases(
    home: Path, noted: Path, victim: str
) -> None:
    die = remote(work.die_at_first).options(name=f"second-{victim}", max_retry_attempts=1)
    future = die.submit(str(noted), 0.8 if victim == "agent" else 60.0)
    until(lambda: noted.read_text().count("\n") == 2)
    second = int(noted.read_text().split()[1])
    before = told_of(future.job)["attempts"]
    kill("agent", second)
    if victim == "worker":
        kill("worker", second)
    error = future.exception(SECONDS)
    attempts = told_of(future.job)["attempts"]
    if victim == "agent":
        assert error is None
        assert [attempt["state"] for attempt in attempts] == ["failed", "succeeded"]
    else:
        assert isinstance(error, WorkerDied)
        assert [(attempt["state"], attempt["cause"]) for attempt in attempts] == [("failed", "signal")] * 2
    assert all(attempt["started_at"] <= attempt["ended_at"] for attempt in attempts)
    assert [attempt["worker_pid"] for attempt in attempts][-1] == second
    assert [attempt["phases"] for attempt in attempts] == [attempt["phases"] for attempt in before]


def test_a_job_that_fails_while_there_is_no_agent_is_tried_again(home: Path, noted: Path) -> None:
    fail = remote(work.fail_at_first).options(name="busy", max_retry_attempts=1)
    future = fail.submit(str(noted), 0.3)
    kill("agent", running(noted))
    assert future.result(SECONDS) == 2
    assert len(noted.read_text().split()) == 2
    attempts = told_of(future.job)["attempts"]
    assert [attempt["state"] for attempt in attempts] == ["failed", "succeeded"]


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.1])
def test_a_job_whose_agent_dies_while_its_call_is_sent_is_sent_again(
    pool: RemoteExecutor, noted: Path, delay: float
) -> None:
    data = os.urandom(1 << 10) * (BIG >> 10)
    future = remote(work.note_size).options(name=f"sent-{delay}").submit(str(noted), data)
    until(lambda: future.status == "running")
    time.sleep(delay)
    kill("agent", 0)
    assert future.result(2 * AT_ONCE_SECONDS) == BIG
    assert len(noted.read_text().split()) == 1
    assert [attempt["state"] for attempt in told_of(future.job)["attempts"]] == ["succeeded"]


@pytest.mark.parametrize("direction", ["argument", "result"])
@each_victim
def test_a_big_transfer_that_is_cut_off_fails_or_arrives_whole(
    pool: RemoteExecutor, victim: str, direction: str
) -> None:
    data = os.urandom(1 << 10) * (BIG >> 10)
    for delay in (0.0, 0.02, 0.05):
        worker = pool.submit(work.pids).result(AT_ONCE_SECONDS)[0]
        killer = threading.Timer(delay, kill, (victim, worker))
        killer.start()
        try:
            if direction == "argument":
                assert pool.submit(work.size_of, data).result(10) == BIG
            else:
                assert pool.submit(work.repeated, 1 << 10, BIG >> 10).result(10) == bytes(range(256)) * 4 * (
                    BIG >> 10
                )
        except WorkerDied:
            assert victim != "agent"
        killer.join()
        assert well(pool)


@each_victim
def test_a_map_of_two_thousand_items_loses_nothing_and_runs_nothing_twice(
    home: Path, noted: Path, victim: str
) -> None:
    function = remote(work.noted).options(max_parallel_jobs=2)
    worker = remote(work.pids).options(max_parallel_jobs=2)()[0]

    def kill_in_the_midst() -> None:
        until(lambda: noted.read_text().count("\n") > ITEMS // 8)
        kill(victim, worker)

    killer = threading.Thread(target=kill_in_the_midst)
    killer.start()
    answers = list(function.starmap([(str(noted), item) for item in range(ITEMS)], return_exceptions=True))
    killer.join()
    died = {item for item, answer in enumerate(answers) if isinstance(answer, WorkerDied)}
    runs = Counter(map(int, noted.read_text().split()))
    assert len(answers) == ITEMS
    assert all(answer == item * item for item, answer in enumerate(answers) if item not in died)
    assert not [item for item, times in runs.items() if times > 1], "an item ran twice"
    assert set(range(ITEMS)) - set(runs) <= died, "an item neither ran nor failed"
    assert not died if victim == "agent" else len(died) < ITEMS // 4


# --- the client -----------------------------------------------------------------------------------------------


def client(code: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start another process that uses the same agent."""
    script = (
        f"import sys; import jobs_work as work; from remote_exec import remote; path = sys.argv[1]; {code}"
    )
    environ = {**os.environ, "PYTHONPATH": os.path.dirname(work.__file__)}
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], env=environ, stderr=subprocess.DEVNULL
    )


def test_workers_end_when_neither_agent_nor_client_is_left(fresh_home: Path, noted: Path) -> None:
    with client("remote(work.with_children)(path)", str(noted)) as process:
        worker, *children = map(int, until(lambda: noted.read_text().split()))
        server = parent(worker)
        os.kill(agent_pid(), signal.SIGKILL)
        process.kill()
    os.kill(server, signal.SIGKILL)
    until(lambda: not any(map(lives, [worker, *children])))
    until(lambda: not processes_of(fresh_home))


@pytest.mark.parametrize("used", [True, False])
def test_a_fork_server_that_no_agent_comes_for_ends(home: Path, used: bool) -> None:
    wait = 0.2 if used else 60.0  # one that no agent has used ends with its agent
    code = (
        f"import remote_exec.worker.forkserver as f; f.ORPHAN_SECONDS = {wait}; "
        "import socket, sys; f.main(sys.argv[1], int(sys.argv[2]))"
    )
    ours, theirs = socket.socketpair()
    path = os.path.join(os.environ["XDG_RUNTIME_DIR"], "f-orphan")
    with subprocess.Popen(
        [sys.executable, "-c", code, path, str(theirs.fileno())], pass_fds=[theirs.fileno()]
    ) as process:
        theirs.close()
        stream = ControlStream(ours)
        assert stream.receive()
        if used:
            stream.send(protocol.Preload(()))
            assert stream.receive()
        stream.close()
        assert process.wait(AT_ONCE_SECONDS) == 0
    assert not os.path.exists(path)


# --- cancelling what does not heed ------------------------------------------------------------------------------

DEAF = {
    "sleeps": work.sleep,
    "swallows the interrupt": work.swallow,
    "holds the GIL": work.hold_the_gil,
}


@pytest.mark.parametrize("what", ["function", "argument"])
def test_a_call_is_cancelled_while_it_is_loaded(home: Path, noted: Path, what: str) -> None:
    slow = work.SleepsWhenLoaded(str(noted))
    future = remote(lambda: slow).submit() if what == "function" else remote(work.takes).submit(slow)
    worker = running(noted)
    assert future.cancel(wait=True)
    assert future.cancelled()
    until(lambda: not lives(worker), AT_ONCE_SECONDS)


def test_what_a_module_keeps_running_outlives_a_later_call_that_is_cancelled(home: Path, noted: Path) -> None:
    with RemoteExecutor(max_parallel_jobs=1) as pool:
        helper = pool.submit(work.keep_a_child).result(10)
        time.sleep(0.05)
        future = pool.submit(work.sleep, str(noted))
        running(noted)
        future.cancel(wait=True)
        assert lives(helper)
        assert pool.submit(work.keep_a_child).result(AT_ONCE_SECONDS) == helper
    os.kill(helper, signal.SIGKILL)


@pytest.mark.parametrize("how", ["sleeps", "swallows the interrupt", "holds the GIL"])
def test_max_runtime_is_kept(home: Path, noted: Path, how: str) -> None:
    function = remote(DEAF[how]).options(max_runtime_in_seconds=1)
    assert remote(work.size_of)("warm") == 4
    began = time.monotonic()
    with pytest.raises(MaxRuntimeExceeded, match="max_runtime_in_seconds"):
        function(str(noted))
    assert time.monotonic() - began < 1 + 2.5
    assert lives(running(noted)) == (how == "sleeps")


# --- the agent's start ------------------------------------------------------------------------------------------


def test_an_agent_started_by_six_processes_at_once_is_one(fresh_home: Path, noted: Path) -> None:
    code = "from remote_exec.client.connections import connections; assert remote(pow)(2, 5) == 32; "
    code += "work.note(path, connections.session().welcome.pid)"
    processes = [client(code, str(noted)) for _ in range(6)]
    assert [process.wait(30) for process in processes] == [0] * 6
    assert len(noted.read_text().split()) == 6
    assert len(set(noted.read_text().split())) == 1
    assert len(agents_of(fresh_home)) == 1


def test_a_stale_socket_is_cleaned_up(fresh_home: Path) -> None:
    layout = Layout.of(os.environ)
    layout.sockets.mkdir(mode=0o700, parents=True)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(layout.agent_socket))
    assert remote(work.size_of)("abc") == 3


def test_a_folder_of_sockets_that_others_can_enter_is_closed_to_them(fresh_home: Path) -> None:
    layout = Layout.of(os.environ)
    layout.sockets.mkdir(parents=True)
    layout.sockets.chmod(0o777)
    assert remote(work.size_of)("abc") == 3
    assert layout.sockets.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "garbage", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 4096, b"\0" * 4096, os.urandom(1 << 16)]
)
def test_a_stranger_at_the_agents_socket_harms_nobody(
    pool: RemoteExecutor, noted: Path, garbage: bytes
) -> None:
    future = pool.submit(work.hold, str(noted), 0.1)
    agent = agent_pid()
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(Layout.of(os.environ).agent_socket))
        stranger.settimeout(AT_ONCE_SECONDS)
        try:
            stranger.sendall(garbage)
            stranger.shutdown(socket.SHUT_WR)
            while stranger.recv(1 << 16):
                pass
        except ConnectionError:
            pass
    assert future.result(AT_ONCE_SECONDS) == "held"
    assert well(pool)
    assert lives(agent)
