"""What is left of calls that died or failed: nothing about them is lost, whoever else died meanwhile.

As in `test_kills`, everything is asked through the public API and the commands that a user types.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jobs_work as work
import pytest
from commands import command, told_of
from own_home import agent_pid, lives
from waiting import until

from remote_exec import get_future, remote
from remote_exec.backends import local
from remote_exec.client.connections import connections
from remote_exec.errors import HostUnavailable, JobNotFound, WorkerDied
from remote_exec.model.layout import Layout

SECONDS = 10.0


@pytest.fixture
def noted(tmp_path: Path) -> Path:
    path = tmp_path / "noted"
    path.touch()
    return path


def rows(function: str) -> list[dict[str, Any]]:
    """What is listed of a function, newest first."""
    page = connections.with_agent(
        local.here(), lambda session: session.ask("jobs", {"prefix": f"{function}-"})
    )
    return list(page["jobs"])


def new_rows(function: Callable[..., Any]) -> Callable[[], list[dict[str, Any]]]:
    """Return what finds the rows of a function that are not there yet."""
    before = {row["name"] for row in rows(function.__name__)}
    return lambda: [row for row in rows(function.__name__) if row["name"] not in before]


def ended(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in found if row["ended_at"]]


def running(noted: Path) -> int:
    """Wait until a function has written down its worker's process id, and return it."""
    return int(until(lambda: noted.read_text().split())[0])


def parent(pid: int) -> int:
    return int(Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[1])


# --- the worker died -----------------------------------------------------------------------------------------------


def test_the_name_of_the_future_is_the_name_of_the_record(home: Path) -> None:
    future = remote(work.print_and_die).submit("exit")
    with pytest.raises(WorkerDied):
        future.result(SECONDS)
    assert get_future(future.job).status == "failed"


def test_a_call_whose_function_ends_the_process_when_it_is_loaded_is_recorded(home: Path) -> None:
    found = new_rows(work.takes)
    with pytest.raises(WorkerDied):
        remote(work.takes)(work.EndsWhenLoaded())
    (row,) = until(lambda: ended(found()))
    assert told_of(row["name"])["attempts"][0]["certificate"]["exit_code"] == 9


def test_a_map_whose_worker_died_leaves_one_record_of_that(home: Path) -> None:
    found = new_rows(work.die_at_five)
    answers = list(remote(work.die_at_five).map(range(200), return_exceptions=True))
    died = [answer for answer in answers if isinstance(answer, WorkerDied)]
    assert died
    (row,) = until(lambda: [row for row in ended(found()) if row["state"] == "failed"])
    assert told_of(row["name"])["attempts"][0]["certificate"]["exit_code"] == 5


def test_what_ended_before_its_worker_died_did_not_die_with_it(home: Path) -> None:
    function = remote(work.pids)
    worker, _ = function()
    found = new_rows(work.pids)
    os.kill(worker, signal.SIGKILL)
    until(lambda: not lives(worker))
    other = until(lambda: _other(function, worker))
    assert other != worker
    assert not [row for row in found() if row["state"] == "failed"]


def _other(function: Any, worker: int) -> int:
    try:
        found: int = function()[0]
    except WorkerDied:  # sent before its death was known
        return 0
    return found if found != worker else 0


def test_a_listed_call_whose_fork_server_died_is_recorded(home: Path, noted: Path) -> None:
    found = new_rows(work.hold)
    future = remote(work.hold).submit(str(noted), 60)
    worker = running(noted)
    (row,) = until(found)
    os.kill(parent(worker), signal.SIGKILL)
    assert isinstance(future.exception(SECONDS), WorkerDied)
    until(lambda: get_future(row["name"]).status == "failed")
    assert told_of(row["name"])["attempts"][0]["certificate"]["cause"] == "host_lost"


# --- the agent died, too -------------------------------------------------------------------------------------------

STARTED: dict[str, Callable[[Any, str], Any]] = {
    "attached": lambda function, path: function.submit(path, 60),
    "durable": lambda function, path: function.options(name="hold-and-die").submit(path, 60),
}


@pytest.mark.parametrize("another", [False, True], ids=["while there is none", "while there is another"])
@pytest.mark.parametrize("kind", STARTED)
def test_a_worker_that_dies_after_its_agent_has_a_certificate(
    fresh_home: Path, noted: Path, kind: str, another: bool
) -> None:
    future = STARTED[kind](remote(work.hold), str(noted))
    worker = running(noted)
    agent = agent_pid()
    os.kill(agent, signal.SIGKILL)
    until(lambda: not lives(agent))
    if another:
        until(lambda: [row for row in rows("hold") if row["state"] == "running"])
    os.kill(worker, signal.SIGKILL)
    error = future.exception(SECONDS)
    assert isinstance(error, WorkerDied)
    assert error.certificate is not None
    assert (error.certificate.signal, error.certificate.pid) == (signal.SIGKILL, worker)
    (row,) = until(lambda: ended(rows("hold")))
    (attempt,) = told_of(row["name"])["attempts"]
    assert attempt["certificate"]["signal"] == signal.SIGKILL
    assert len(noted.read_text().split()) == 1


def test_where_nobody_knows_how_a_worker_died_that_is_said_soon(fresh_home: Path, noted: Path) -> None:
    future = remote(work.hold).submit(str(noted), 60)
    worker = running(noted)
    server = parent(worker)
    os.kill(agent_pid(), signal.SIGKILL)
    os.kill(server, signal.SIGKILL)
    with pytest.raises(WorkerDied, match="unknown"):
        future.result(SECONDS)


def test_a_map_goes_on_when_agent_and_worker_have_died(fresh_home: Path, noted: Path) -> None:
    function = remote(work.noted).options(max_parallel_jobs=1)
    answers = function.starmap([(str(noted), item) for item in range(2000)], return_exceptions=True)
    worker = remote(work.pids).options(max_parallel_jobs=1)()[0]
    until(lambda: noted.read_text().count("\n") > 100)
    agent = agent_pid()
    os.kill(agent, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    kept = list(answers)
    died = [answer for answer in kept if isinstance(answer, WorkerDied)]
    ran = noted.read_text().split()
    assert len(kept) == 2000
    assert len(ran) == len(set(ran)), "an item ran twice"
    assert all(answer.certificate is not None for answer in died)


def test_a_call_without_a_client_ends_with_its_worker(home: Path, noted: Path) -> None:
    found = new_rows(work.hold)
    code = "import sys, jobs_work as work; from remote_exec import remote; remote(work.hold)(sys.argv[1], 60)"
    folders = os.pathsep.join([os.path.dirname(work.__file__), *sys.path])
    with subprocess.Popen(
        [sys.executable, "-c", code, str(noted)],
        env={**os.environ, "PYTHONPATH": folders},
        stderr=subprocess.DEVNULL,
    ) as process:
        worker = running(noted)
        process.kill()
    (row,) = until(lambda: [row for row in found() if row["kind"] == "job"])
    future = get_future(row["name"])
    os.kill(worker, signal.SIGKILL)
    error = future.exception(SECONDS)
    assert isinstance(error, WorkerDied)
    assert error.certificate is not None
    assert error.certificate.signal == signal.SIGKILL


# --- the call failed -------------------------------------------------------------------------------------------------


def test_items_that_failed_are_counted_and_the_first_can_be_debugged(home: Path) -> None:
    found = new_rows(work.fail_at_odd)
    answers = list(remote(work.fail_at_odd).map(range(100), return_exceptions=True))
    assert sum(isinstance(answer, ValueError) for answer in answers) == 50

    def counted() -> list[dict[str, Any]]:
        seen = ended(found())
        return seen if sum(row["count"] for row in seen) == 100 else []

    failed = [row for row in until(counted) if row["state"] == "failed"]
    assert sum(row["failed"] if row["kind"] == "array" else 1 for row in failed) == 50
    assert "item is odd" in command("debug", failed[0]["name"], stdin="p item\n")


def test_a_flood_of_failures_is_recorded_within_bounds(home: Path) -> None:
    function = remote(work.fail_with).options(max_parallel_jobs=1)
    futures = [function.submit("x" * 200_000) for _ in range(150)]
    assert all(isinstance(future.exception(30), ValueError) for future in futures)
    names = [future.job for future in futures]
    assert all(get_future(name).status == "failed" for name in names)
    assert 20 < sum(map(told_kept, names)) < 120


def told_kept(name: str) -> bool:
    return bool(connections.session().ask("job", {"name": name})["kept"])


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("called", ["called", "mapped"])
def test_a_name_that_was_listed_is_always_found(home: Path, noted: Path, called: str) -> None:
    function = remote(work.hold).options(max_parallel_jobs=1)
    found = new_rows(work.hold)
    results: Iterator[str]
    if called == "called":
        results = iter([function.submit(str(noted), 0.4) for _ in range(2)])
    else:
        results = function.map([str(noted)] * 2, [0.4] * 2)
    (row,) = until(found)
    name = row["name"]
    future = get_future(name)
    state = "running"
    while state == "running":
        state = connections.session().ask("job", {"name": name})["job"][
            "state"
        ]  # JobNotFound: it had vanished
    assert state == "succeeded"
    assert name in get_future(name).job
    assert isinstance(future.exception(SECONDS), JobNotFound)  # only its caller has the value
    assert len(list(results)) == 2


def test_quick_calls_add_up_in_one_array(home: Path) -> None:
    found = new_rows(work.size_of)
    function = remote(work.size_of).options(max_parallel_jobs=1)
    for count in (100, 200):
        assert sum(function.map(["ab"] * count)) == 2 * count
        until(lambda count=count: [row for row in found() if row["count"] >= count])
    (row,) = until(lambda: [row for row in found() if row["count"] == 300])
    assert (row["kind"], row["failed"]) == ("array", 0)


# --- bounds and permissions -------------------------------------------------------------------------------------------


def test_a_worker_forgets_functions_that_were_defined_long_ago(home: Path) -> None:
    first = remote(_with_mark(0)).options(max_parallel_jobs=1)
    assert first() == 0
    alive = [remote(_with_mark(number)).options(max_parallel_jobs=1)() for number in range(1, 700)]
    assert alive == list(range(1, 700))
    assert first() == 0, "it is defined anew"
    assert 100 < remote(work.count_marks).options(max_parallel_jobs=1)() < 400


def _with_mark(number: int) -> Callable[[], int]:
    mark = work.Mark(number)
    return lambda: mark.number


@pytest.mark.parametrize("which", ["folder", "parent"])
def test_a_folder_of_sockets_that_is_a_link_is_refused(fresh_home: Path, tmp_path: Path, which: str) -> None:
    layout = Layout.of(os.environ)
    place = layout.sockets if which == "folder" else layout.sockets.parent
    aside = place.with_name(place.name + "-aside")
    if place.exists():
        place.rename(aside)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(tmp_path)
    try:
        with pytest.raises(HostUnavailable, match="symbolic link"):
            remote(work.size_of)("abc")
        assert not list(tmp_path.iterdir())
    finally:
        place.unlink()
        if aside.exists():
            aside.rename(place)


def test_a_folder_of_sockets_of_another_user_is_refused(
    fresh_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout.of(os.environ)
    layout.sockets.mkdir(parents=True)
    if os.getuid() == 0:
        os.chown(layout.sockets, 12345, 12345)
    else:
        own = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: own + 1)
    with pytest.raises(HostUnavailable, match="belongs to another user"):
        connections.session()
