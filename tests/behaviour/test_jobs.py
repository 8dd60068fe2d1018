"""Calls and jobs beyond their caller: found by another process, cancelled, tried again, told of when they have died.

What a function does is counted in a file that it appends to.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import jobs_work as work
import pytest
from commands import command, run_command, told_of
from waiting import until

from remote_exec import RemoteExecutor, RemoteFuture, get_future, list_futures, remote
from remote_exec.backends.host import Host
from remote_exec.client.connections import connections
from remote_exec.errors import ConfigurationError, JobNotFound, MaxRuntimeExceeded, WorkerDied

SECONDS = 30.0
CANCEL_SECONDS = 2.5
PATIENCE_SECONDS = 1  # with a client elsewhere that has gone


@pytest.fixture
def noted(tmp_path: Path) -> Path:
    path = tmp_path / "noted"
    path.touch()
    return path


@pytest.fixture
def pool() -> Iterator[RemoteExecutor]:
    with RemoteExecutor(max_parallel_jobs=2) as executor:
        executor.submit(work.living, []).result(SECONDS)
        yield executor


@pytest.fixture
def at_once(host: Host) -> float:
    """Within how many seconds the agent has done what it does at once; elsewhere a client is first waited for."""
    return 3.0 if host.here else SECONDS


def running(noted: Path) -> int:
    """Wait until a function has written down its worker's process id, and return it."""
    return int(until(lambda: noted.read_text().split())[0])


def new_jobs(function: Callable[..., Any]) -> Callable[[], list[RemoteFuture[Any]]]:
    """Return what finds the calls and jobs of a function that are not listed yet."""
    prefix = f"{function.__name__}-"
    before = {found.job for found in list_futures(prefix)}
    return lambda: [found for found in list_futures(prefix) if found.job not in before]


# --- a client that is gone ---

CLIENTS = {
    "attached": "future = remote(work.hold).submit(path, 1.5); future.result()",
    "blocking": "remote(work.hold)(path, 1.5)",
    "durable": "remote(work.hold).options(job_name_prefix='hold', detach=True).submit(path, 1.5).result()",
    "slow map": "list(remote(work.hold).map([path], [1.5]))",
}


def client(code: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start another process of the user's."""
    script = (
        f"import sys; import jobs_work as work; from remote_exec import remote; path = sys.argv[1]; {code}"
    )
    environ = {
        **os.environ,
        "PYTHONPATH": os.path.dirname(work.__file__),
        "REMOTE_EXEC_CONNECTION_TIMEOUT": str(PATIENCE_SECONDS),
    }
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], env=environ, stderr=subprocess.DEVNULL
    )


@pytest.mark.parametrize("kind", CLIENTS)
def test_what_a_killed_client_has_started_is_found_by_another(
    host: Host, noted: Path, at_once: float, kind: str
) -> None:
    found = new_jobs(work.hold)
    with client(CLIENTS[kind], str(noted)) as process:
        worker = running(noted)
        process.kill()
    (job,) = until(found)
    assert get_future(job.job).result(at_once) == "held"
    assert len(noted.read_text().split()) == 1
    until(lambda: not is_leased(host, worker), at_once)


def test_a_big_result_whose_client_was_killed_is_kept(noted: Path) -> None:
    found = new_jobs(work.hold_many)
    with client("remote(work.hold_many)(path, 70_000_000)", str(noted)) as process:
        running(noted)
        process.kill()
    (job,) = until(found)
    assert len(get_future(job.job).result(SECONDS)) == 70_000_000


def is_leased(host: Host, worker: int) -> bool:
    pools = connections.session(host).ask("host")["pools"]
    return any(w["pid"] == worker and w["state"] == "InUse" for found in pools for w in found["workers"])


def test_a_map_whose_client_is_killed_ends(noted: Path, at_once: float) -> None:
    found = new_jobs(work.noted)
    code = "list(remote(work.noted).starmap([(path, item) for item in range(100_000)]))"
    with client(code, str(noted)) as process:
        until(lambda: noted.read_text().count("\n") > 500)
        process.kill()
    for future in until(found):
        # one that was listed while it ran may have become part of its array's row, which has no outcome of its own
        assert isinstance(future.exception(at_once), (type(None), JobNotFound))

    def settled() -> bool:
        # the other worker's batch is a job of its own, and may not have been listed yet
        count = noted.read_text().count("\n")
        time.sleep(PATIENCE_SECONDS)
        return noted.read_text().count("\n") == count

    until(settled, at_once)
    assert max(Counter(noted.read_text().split()).values()) == 1


def test_a_map_whose_client_is_interrupted_is_cancelled(noted: Path, at_once: float) -> None:
    found = new_jobs(work.hold)
    with client("list(remote(work.hold).map([path] * 4, [60] * 4))", str(noted)) as process:
        running(noted)
        process.send_signal(signal.SIGINT)
    names = [future.job for future in until(found)]
    until(lambda: {get_future(name).status for name in names} == {"cancelled"}, at_once)


def test_a_killed_client_leaves_no_generator_running(noted: Path, at_once: float) -> None:
    with client("[0 for _ in remote(work.count_slowly)(path)]", str(noted)) as process:
        until(lambda: noted.read_text().count("\n") > 2)
        process.kill()
    until(lambda: "closed" in noted.read_text(), at_once)


# --- a worker that died ---

CALLED: dict[str, Callable[[Any, str], object]] = {
    "called": lambda function, how: function(how),
    "submitted": lambda function, how: function.submit(how).result(SECONDS),
    "mapped": lambda function, how: list(function.map([how])),
    "durable": lambda function, how: function.options(detach=True).submit(how).result(SECONDS),
}


@pytest.mark.parametrize("how", ["exit", "kill"])
@pytest.mark.parametrize("called", CALLED)
def test_a_call_whose_worker_died_is_listed_with_its_certificate_and_its_log(called: str, how: str) -> None:
    found = new_jobs(work.print_and_die)
    with pytest.raises(WorkerDied):
        CALLED[called](remote(work.print_and_die), how)
    (job,) = until(found)
    until(lambda: job.status == "failed")
    told = told_of(job.job)
    (attempt,) = told["attempts"]
    certificate = attempt["certificate"]
    expected = ("failed", {"exit": "exited", "kill": "signal"}[how])
    assert (told["job"]["state"], told["job"]["cause"]) == (attempt["state"], attempt["cause"]) == expected
    assert told["job"]["summary"].startswith("WorkerDied: ")
    assert certificate["exit_code" if how == "exit" else "signal"] == {"exit": 7, "kill": 9}[how]
    assert attempt["worker_pid"] == certificate["pid"]
    assert told["job"]["created_at"] <= attempt["ended_at"]
    assert command("logs", job.job) == "printed before the end\n"
    assert "printed before the end" in certificate["last_lines"]
    with pytest.raises(WorkerDied) as raised:
        get_future(job.job).result(SECONDS)
    assert raised.value.certificate is not None
    assert raised.value.certificate.pid == certificate["pid"]


def test_a_job_whose_worker_dies_is_tried_again_and_its_attempts_tell_why(noted: Path) -> None:
    future = remote(work.die_at_first).options(max_retry_attempts=2).submit(str(noted))
    assert future.result(SECONDS) == 2
    told = told_of(future.job)["attempts"]
    assert [(attempt["state"], attempt["cause"]) for attempt in told] == [
        ("failed", "signal"),
        ("succeeded", "none"),
    ]
    assert told[0]["certificate"]["signal"] == signal.SIGKILL
    assert told[0]["certificate"]["pid"] == int(noted.read_text().split()[0])


# --- a function that failed ---


def test_an_error_of_the_user_is_not_tried_again(noted: Path) -> None:
    future = remote(work.note_and_fail).options(max_retry_attempts=2).submit(str(noted))
    with pytest.raises(ValueError, match="of the user"):
        future.result(SECONDS)
    assert noted.read_text().count("\n") == 1


def test_a_call_that_failed_can_be_debugged_and_is_known_at_once() -> None:
    future = remote(work.fail_with_locals).submit(21)
    assert isinstance(future.exception(SECONDS), ValueError)
    again = get_future(future.job)
    assert again.status == "failed"
    error = again.exception(SECONDS)
    assert isinstance(error, ValueError)
    assert str(error) == "no luck with 21"
    assert "(10.5, ***)" in command("debug", future.job, stdin="p half, password\n")
    assert "remote-exec debug" in run_command("jobs", future.job).stderr
    assert told_of(future.job)["job"]["summary"] == "ValueError: no luck with 21"


# --- names ---


def test_a_name_is_one_jobs_alone(noted: Path) -> None:
    hold = remote(work.hold)
    name = f"hold-one-{noted.parent.name}"
    future = hold.options(name=name).submit(str(noted), 0)
    with pytest.raises(ConfigurationError, match=name):
        hold.options(name=name).submit(str(noted), 0)
    assert future.result(SECONDS) == "held"
    assert [found.job for found in list_futures(name)] == [name]
    with pytest.raises(JobNotFound, match=f"{name}-x"):
        get_future(f"{name}-x")


# --- cancelling what does not heed ---

DEAF = {
    "sleeps": work.sleep,
    "swallows the interrupt": work.swallow,
    "ignores SIGTERM": work.ignore_all,
    "holds the GIL": work.hold_the_gil,
    "is stopped": work.stop_itself,
}


@pytest.mark.parametrize("how", DEAF)
def test_cancel_ends_a_function_within_two_seconds_and_harms_no_neighbour(
    pool: RemoteExecutor, noted: Path, tmp_path: Path, at_once: float, how: str
) -> None:
    neighbour_noted = tmp_path / "neighbour"
    neighbour_noted.touch()
    future = pool.submit(DEAF[how], str(noted))
    worker = running(noted)
    neighbour = pool.submit(work.hold, str(neighbour_noted), 0.2)
    running(neighbour_noted)
    began = time.monotonic()
    assert future.cancel(wait=True)
    assert time.monotonic() - began < CANCEL_SECONDS
    assert future.cancelled()
    with pytest.raises(CancelledError):
        future.result(0)
    assert neighbour.result(at_once) == "held"
    assert pool.submit(work.living, [worker]).result(SECONDS) == ([worker] if how == "sleeps" else [])


@pytest.mark.parametrize("death", ["cancel", "kill"])
def test_child_processes_end_with_their_function(
    pool: RemoteExecutor, noted: Path, at_once: float, death: str
) -> None:
    future = pool.submit(work.with_children, str(noted))
    pids = [int(pid) for pid in until(lambda: noted.read_text().split())]
    assert pool.submit(work.living, pids).result(SECONDS) == pids
    if death == "cancel":
        future.cancel(wait=True)
    else:
        pool.submit(os.kill, pids[0], signal.SIGKILL).result(SECONDS)
        assert isinstance(future.exception(at_once), WorkerDied)
        until(lambda: not pool.submit(work.living, pids).result(SECONDS), 1.0)
    assert not pool.submit(work.living, pids[1:]).result(SECONDS)


def test_max_runtime_holds_for_each_item_of_a_map_and_for_a_job(noted: Path) -> None:
    function = remote(work.hold).options(max_runtime_in_seconds=1)
    slow, quick = function.map([str(noted)] * 2, [60, 0], return_exceptions=True)
    assert isinstance(slow, MaxRuntimeExceeded)
    assert quick == "held"
    with pytest.raises(MaxRuntimeExceeded):
        function.options(detach=True).submit(str(noted), 60).result(SECONDS)
