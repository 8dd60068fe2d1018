"""An instance type of several hosts, and lists of instance types: where calls go, and what becomes of a host's end."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from waiting import until

from remote_exec import remote
from remote_exec.client import loads
from remote_exec.errors import HostUnavailable
from remote_exec.future import RemoteFuture

from .fixtures import NewHost, NewLink
from .host_work import at_work, double, home_of, home_of_long, where
from .projects import Project
from .sshd import SshServer

SECONDS = 60.0
ALL_CPUS = len(os.sched_getaffinity(0))
pytestmark = pytest.mark.usefixtures("ssh_server")


def homes_of(folder: Path) -> list[str]:
    """Where calls of `at_work` have begun."""
    return [path.read_text() for path in folder.glob("began-*")]


@pytest.fixture
def two(new_host: NewHost, project: Project) -> tuple[SshServer, SshServer]:
    """Two hosts, the instance type `gpu` of the project."""
    servers = new_host("first"), new_host("second")
    project.add("gpu", hosts=["first", "second"])
    return servers


def test_calls_jobs_and_items_go_to_the_host_that_has_least_to_do(
    two: tuple[SshServer, SshServer], tmp_path: Path
) -> None:
    homes = {str(server.home) for server in two}
    function = remote(instance_type="gpu")(at_work)
    futures: list[RemoteFuture[str]] = []
    while (
        set(homes_of(tmp_path)) != homes
    ):  # the second host is brought up as soon as the first has something to do
        assert len(futures) < 100
        futures.append(function.submit(str(tmp_path), "go"))
        time.sleep(0.2)
    (tmp_path / "go").touch()
    assert {future.result(SECONDS) for future in futures} == homes
    jobs = [function.options(detach=True).submit(str(tmp_path), "end") for _ in range(2)]
    items = function.starmap([(str(tmp_path), "end")] * 4 * ALL_CPUS)
    until(lambda: set(homes_of(tmp_path)[-2:]) and len(homes_of(tmp_path)) >= len(futures) + 4)
    (tmp_path / "end").touch()
    assert {job.result(SECONDS) for job in jobs} == homes
    assert set(items) == homes


def test_what_waits_for_a_host_that_dies_goes_elsewhere_and_what_ran_there_fails_clearly(
    two: tuple[SshServer, SshServer],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    homes = {str(server.home): server for server in two}
    function = remote(instance_type="gpu", cpus=ALL_CPUS, connection_timeout=4)(at_work)
    futures = [function.submit(str(tmp_path), "go") for _ in range(6)]  # each takes a whole host
    until(lambda: set(homes_of(tmp_path)) == set(homes))
    dead = homes_of(tmp_path)[0]
    (alive,) = set(homes) - {dead}
    homes[dead].stop()
    futures.append(function.submit(str(tmp_path), "go"))
    (tmp_path / "go").touch()
    errors = [future.exception(SECONDS) for future in futures]
    (error,) = [error for error in errors if error is not None]
    assert isinstance(error, HostUnavailable)
    assert "out of reach for 4 s" in error.message
    assert {future.result() for future, error in zip(futures, errors, strict=True) if error is None} == {
        alive
    }
    assert remote(instance_type="gpu")(where)()["HOME"] == alive
    assert capsys.readouterr().err.count("is passed over") == 1

    monkeypatch.setattr(loads, "OUT_SECONDS", 0.5)
    homes[dead].start()
    again = tmp_path / "again"
    again.mkdir()
    futures = [function.submit(str(again), "go") for _ in range(2)]
    until(lambda: set(homes_of(again)) == set(homes))
    (again / "go").touch()
    assert {future.result(SECONDS) for future in futures} == set(homes)


def test_a_call_of_which_a_part_has_never_left_goes_elsewhere(
    new_host: NewHost, new_link: NewLink, project: Project
) -> None:
    servers = {alias: new_host(alias) for alias in ("first", "second")}
    links = {alias: new_link(alias, server) for alias, server in servers.items()}
    project.add("gpu", hosts=list(servers))
    function = remote(instance_type="gpu", connection_timeout=4)(home_of_long)
    size, home = function(b"short")
    (here,) = [alias for alias, server in servers.items() if str(server.home) == home]
    links[here].freeze()
    cut = threading.Timer(1.0, links[here].refuse)
    cut.start()
    data = os.urandom(64 << 20)  # more than all the sockets on the way take in
    size, home = function.submit(data).result(SECONDS)
    assert size == len(data)
    assert home != str(servers[here].home)
    cut.join()
    links[here].resume()


def test_a_cached_result_is_found_where_it_lies(
    two: tuple[SshServer, SshServer], project: Project, tmp_path: Path
) -> None:
    _, home = remote(instance_type="gpu", cache=True)(home_of)(1, 0.0)
    (busy,) = [
        alias for alias, server in zip(("first", "second"), two, strict=True) if str(server.home) == home
    ]
    project.add("busy", host=busy)
    held = remote(instance_type="busy")(at_work).submit(str(tmp_path), "go")
    until(lambda: homes_of(tmp_path))
    again = remote(instance_type="gpu", cache=True)(home_of)  # for which the other host is the less busy one
    found = again.submit(1, 0.0)
    assert found.result(SECONDS) == (1, home)
    assert found.cached
    assert again(2, 0.0)[1] != home
    (tmp_path / "go").touch()
    assert held.result(SECONDS) == home


def test_items_that_a_dead_host_had_not_begun_are_worked_on_elsewhere(
    two: tuple[SshServer, SshServer],
) -> None:
    function = remote(instance_type="gpu", connection_timeout=3)(home_of)
    values = function.starmap([(item, 0.03) for item in range(200)], return_exceptions=True)
    found = [next(values) for _ in range(80)]
    assert {home for _, home in found} == {str(server.home) for server in two}
    two[0].stop()
    rest = list(enumerate(values, 80))
    failed = [item for item, one in rest if isinstance(one, HostUnavailable)]
    assert 0 < len(failed) <= 4 * ALL_CPUS, "what ran there"
    assert [one[0] for item, one in rest if item not in failed] == [
        item for item, _ in rest if item not in failed
    ]
    assert len(rest) == 120


def test_items_behind_one_that_turns_out_long_go_to_a_host_with_an_idle_worker(
    two: tuple[SshServer, SshServer], tmp_path: Path
) -> None:
    function = remote(instance_type="gpu", cpus=ALL_CPUS)(at_work)  # each host has one worker
    quick, long = tmp_path / "quick", tmp_path / "long"
    for folder in (quick, long):
        folder.mkdir()
        (folder / "there").touch()
    while len(set(homes_of(quick))) < len(two):
        assert set(function.starmap([(str(quick), "there")] * 500)) <= {str(server.home) for server in two}
    values = function.starmap([(str(long), "go"), (str(long), "there"), (str(long), "there")])
    until(lambda: len(homes_of(long)) == 3)
    (long / "go").touch()
    assert len(list(values)) == 3


def test_a_list_of_instance_types_is_the_first_that_can_be_had(
    project: Project, new_host: NewHost, capsys: pytest.CaptureFixture[str]
) -> None:
    server = new_host("one")
    project.add("dead", host="not-there.invalid")
    project.add("gpu", host="one")
    assert remote(instance_type=["dead", "local"])(double)(2) == 4
    assert "dead cannot be had" in capsys.readouterr().err
    function = remote(instance_type=["dead", "gpu", "local"], connection_timeout=4)(where)
    assert function()["HOME"] == str(server.home)
    server.stop()
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            assert function()["HOME"] == os.environ["HOME"]
            break
        except HostUnavailable:
            assert time.monotonic() < deadline
