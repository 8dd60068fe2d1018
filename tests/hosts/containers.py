"""Containers for tests: an engine, containers in it, and what runs and is seen in them."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from remote_exec.backends.docker import kept
from remote_exec.backends.docker.access import DockerAccess
from remote_exec.backends.docker.container import Container, open_container
from remote_exec.backends.docker.engine import Engine, close_engines, open_engine
from remote_exec.backends.docker.host import DockerHost, close_ways
from remote_exec.backends.docker.settings import ContainerSettings
from remote_exec.backends.docker.streams import start_command
from remote_exec.backends.tunnel import Tunnel
from remote_exec.client.connections import connections
from remote_exec.client.session import open_session

from .docker_engine import IMAGE, DockerEngine

PATIENCE_SECONDS = 60.0
BOX = ContainerSettings(instance="box", image=IMAGE, network="none")


@pytest.fixture
def engine(docker_engine: DockerEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("DOCKER_HOST", docker_engine.url)
    found = open_engine("")
    yield found
    for left in kept.list_kept(found):
        if left.kind == "container":
            kept.remove(found, left.name)
    kept.prune(found)
    assert kept.list_kept(found) == []
    close_engines()


def opened(engine: Engine, settings: ContainerSettings = BOX) -> Container:
    return open_container(engine, settings, lambda _: None)


def run(engine: Engine, container: Container, *argv: str) -> tuple[str, str, int | None]:
    """Run a command that reads nothing in a container; return what it says on both outputs, and its exit code."""
    with start_command(engine, container.id, argv) as command:
        output = command.read_all().decode()
        until(lambda: command.exit_code() is not None)
        return output, command.errors.decode(), command.exit_code()


def python(engine: Engine, container: Container, program: str) -> Any:
    """Run a program in a container's Python; return the JSON that it prints."""
    output, errors, code = run(engine, container, container.python, "-I", "-S", "-c", program)
    assert code == 0, errors
    return json.loads(output)


def state(engine: Engine, container: Container) -> str:
    found = engine.inspect("container", container.id)
    return found["State"]["Status"] if found else "gone"


LOOK = """
import json, os
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
def writable(path):
    try:
        open(path + "/x", "w").close()
    except OSError as error:
        return error.strerror
    return True
print(json.dumps({
    "uid": os.getuid(), "capabilities": int(status["CapBnd"], 16) | int(status["CapEff"], 16),
    "no_new_privileges": status["NoNewPrivs"].strip(), "home": os.environ["HOME"],
    "written": {path: writable(path) for path in ("/usr", "/tmp", os.environ["HOME"], os.environ["REMOTE_EXEC_HOME"])},
    "networks": sorted(os.listdir("/sys/class/net")),
}))
"""


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """One whose path is short, since sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="re-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def calls(engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Engine]:
    """A project whose instance type ``box`` is a container; its sessions end with the test."""
    (tmp_path / "pyproject.toml").write_text(
        f'[tool.remote_exec.instances.box]\nbackend = "docker"\nimage_uri = "{IMAGE}"\n'
        'network_mode = "none"\nread_only = true\nmemory_limit = "512 MB"\n'
    )
    monkeypatch.chdir(tmp_path)
    yield engine
    for (host, _), dispatcher in list(connections._dispatchers.items()):
        if isinstance(host, DockerHost):
            connections.drop(dispatcher, cancel=True)
    for host, session in list(connections._sessions.items()):
        if isinstance(host, DockerHost):
            session.close()
            del connections._sessions[host]
    close_ways()


ECHO = """
import os, socketserver, sys
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        try:
            while data := self.request.recv(1 << 18):
                self.request.sendall(data)
        except OSError:
            pass
class Server(socketserver.ThreadingUnixStreamServer):
    request_queue_size = 256
    daemon_threads = True
with Server(sys.argv[1], Echo) as server:
    print("ready", flush=True)
    server.serve_forever()
"""


@contextlib.contextmanager
def tunnel_to_echo(engine: Engine, settings: ContainerSettings) -> Iterator[Tunnel]:
    """Have an echo service run in a container, and a tunnel to it by an exec, as calls have one to the agent."""
    host, path = DockerHost(settings), "/tmp/echo"
    open_session(host).close()  # the runtime, which the far end is of, is there then
    container = opened(engine, settings)
    try:
        with start_command(engine, container.id, [container.python, "-c", ECHO, path]) as service:
            assert service.read() == b"ready\n"
            tunnel = DockerAccess(host)._open_tunnel(path)
            try:
                yield tunnel
            finally:
                tunnel.close()
    finally:
        close_ways()
