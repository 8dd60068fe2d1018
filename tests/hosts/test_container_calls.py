"""Calls in containers of a real engine: the ways into one, and what is told of one that was killed."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from waiting import until

from remote_exec import remote
from remote_exec.backends.docker import kept
from remote_exec.backends.docker.engine import Engine
from remote_exec.backends.docker.host import DockerHost, close_ways
from remote_exec.client.connections import connections
from remote_exec.client.session import open_session
from remote_exec.errors import HostUnavailable, WorkerDied
from remote_exec.model.job import Cause
from remote_exec.testing import check_transport

from .containers import BOX, PATIENCE_SECONDS, opened, run, tunnel_to_echo

pytestmark = pytest.mark.usefixtures("docker_engine")


def test_a_function_runs_in_a_container_as_it_would_here(
    calls: Engine, capfd: pytest.CaptureFixture[str]
) -> None:
    @remote(instance_type="box", dependencies=[])
    def where(number: int) -> tuple[int, int, str]:
        print("printed there")
        if number < 0:
            raise ValueError("no roots of", number)
        return number * 2, os.getuid(), os.environ["HOME"]

    assert where(21) == (42, os.getuid() or 1000, "/remote_exec/home")
    assert "printed there" in capfd.readouterr().out
    with pytest.raises(ValueError, match="no roots of"):
        where(-1)
    data = os.urandom(1 << 22)
    echo = remote(lambda data: data[::-1], instance_type="box", dependencies=[])
    assert echo(data) == data[::-1]


@pytest.mark.parametrize("user", ["", f"{os.getuid()}:{os.getgid()}"], ids=["by tunnel", "directly"])
def test_a_container_that_was_killed_is_told_and_started_again_with_what_it_kept(
    engine: Engine, user: str
) -> None:
    """As another user than this, whom an agent only hears through its relay; and as this one."""
    settings = replace(BOX, user=user)
    host = DockerHost(settings)
    try:
        first = open_session(host)
        assert first.ask("host")["home"] == "/remote_exec/state"
        first.close()
        (container,) = [left for left in kept.list_kept(engine) if left.kind == "container"]
        run(engine, opened(engine, settings), "/bin/touch", "/remote_exec/state/of-the-first")
        engine.api.kill(container.name)
        with pytest.raises(HostUnavailable, match=r"is gone: it is exited \(exit 137\)"):
            until(lambda: host.connect().close() is not None)
        second = open_session(host)
        assert second.welcome.runtime == first.welcome.runtime
        second.close()
    finally:
        close_ways()
    listed, _, _ = run(engine, opened(engine, settings), "/bin/ls", "/remote_exec/state")
    assert "of-the-first" in listed


@pytest.fixture(params=["1000:1000", f"{os.getuid()}:{os.getgid()}"], ids=["by tunnel", "directly"])
def user(request: pytest.FixtureRequest, calls: Engine, tmp_path: Path) -> None:
    """Whose rights processes in ``box`` have: a way to its agent for each."""
    with (tmp_path / "pyproject.toml").open("a") as file:
        file.write(f'user = "{request.param}"\n')


def kill_container(engine: Engine) -> None:
    (name,) = [left.name for left in kept.list_kept(engine) if left.kind == "container"]
    engine.api.kill(name)


def is_known_to_be_broken() -> bool:
    """Whether this process has found that there is no connection to any worker in a container."""
    return all(
        channel.stream.cut_at or channel.closed
        for (host, _), dispatcher in connections._dispatchers.items()
        for channel in dispatcher._lanes.channels
        if isinstance(host, DockerHost)
    )


@pytest.mark.usefixtures("user")
def test_a_call_whose_container_was_killed_has_died_and_is_not_run_again(calls: Engine) -> None:
    box = remote(instance_type="box", dependencies=[], connection_timeout=600)

    @box
    def hang() -> None:
        with (Path.home() / "begun").open("a") as file:
            file.write("once;")
        time.sleep(600)

    @box
    def begun() -> str:
        path = Path.home() / "begun"
        return path.read_text() if path.exists() else ""

    future = hang.submit()
    until(lambda: begun() == "once;")
    kill_container(calls)
    with pytest.raises(WorkerDied):
        future.result(PATIENCE_SECONDS)
    assert begun() == "once;"  # in the next container, which has the same home


@pytest.mark.usefixtures("user")
def test_a_call_after_its_idle_container_was_killed_starts_another(calls: Engine) -> None:
    # for so long an agent that is out of reach would be waited for: that it is gone is seen
    add = remote(lambda x, y: x + y, instance_type="box", dependencies=[], connection_timeout=600)
    assert add(1, 2) == 3
    for _ in range(2):
        kill_container(calls)
        until(is_known_to_be_broken)  # what is sent before may have begun there, for all that is known
        assert add.submit(3, 4).result(PATIENCE_SECONDS) == 7


@pytest.mark.parametrize(
    ("first", "told"),
    [
        ("", "its host has 512 MB"),
        (
            "/proc/1/oom_score_adj",
            r"container remote_exec-\w+ was killed for using more memory than its limit of 512 MB",
        ),
    ],
    ids=["the worker", "the container"],
)
def test_a_call_that_takes_more_memory_than_there_is_says_so(calls: Engine, first: str, told: str) -> None:
    """Whichever the kernel kills for that: the worker, as it would, or the container's first process."""

    @remote(instance_type="box", dependencies=[])
    def eat() -> int:
        if first:
            Path(first).write_text("1000")
        return len(bytearray(1 << 30))

    with pytest.raises(WorkerDied, match=told) as caught:
        eat()
    assert caught.value.certificate is not None
    assert caught.value.certificate.cause is Cause.OUT_OF_MEMORY
    assert remote(lambda: 42, instance_type="box", dependencies=[])() == 42


def test_a_containers_streams_answer_the_rude_questions(engine: Engine) -> None:
    with tunnel_to_echo(engine, BOX) as tunnel:
        check_transport(tunnel.connect, cut=lambda: kill_container(engine))
