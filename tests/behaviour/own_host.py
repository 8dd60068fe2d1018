"""Hosts with agents of the test's own, of the backend that the test runs on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hosts.letting_go import leave
from hosts.sshd import SshServer

from remote_exec.backends import local
from remote_exec.backends.access import access_to
from remote_exec.backends.host import Host
from remote_exec.backends.ssh import SshHost
from remote_exec.client.connections import connections
from remote_exec.client.placement import hosts_of
from remote_exec.config import load_config

CONFIGURATION = Path("remote_exec", "config.toml")


@pytest.fixture
def own_host(
    host: Host, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Any]]:
    """Call it to have calls go to one; returns what asks its agent.

    Its arguments are a name, where a test has several, and environment variables that are set before: here, and where
    the agent starts, but in containers.
    """
    found: dict[str, Host] = {}
    start_up: Path | None = None
    if isinstance(host, SshHost):
        server: SshServer = request.getfixturevalue("ssh_server")
        start_up = server.home / ".bashrc"

    def enter(name: str = "own", /, **variables: str) -> Callable[..., Any]:
        for variable, value in variables.items():
            monkeypatch.setenv(variable, value)
        if start_up is not None:
            start_up.write_text("".join(f"export {key}='{value}'\n" for key, value in variables.items()))
        if host.here:
            monkeypatch.setenv("REMOTE_EXEC_HOME", str(tmp_path / name))
            found[name] = local.here()
        else:
            session: Path = request.getfixturevalue("session_home")
            monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / f"{name}-config"))
            found[name] = _configure(name, session / "config", tmp_path / f"{name}-config")
        return connections.session(found[name]).ask

    yield enter
    for own in found.values():
        leave(own)
        if not own.here:
            access = access_to(own)
            access.remove()
            access.close()
    if start_up is not None:
        start_up.unlink(missing_ok=True)


def _configure(name: str, like: Path, mine: Path) -> Host:
    """Configure an instance type like the session's, with a state directory, or a container, of its own."""
    text = (like / CONFIGURATION).read_text()
    text = text.replace('"conforming"\n[instances.conforming]', f'"{name}"\n[instances.{name}]')
    text = text.replace('backend = "ssh"\n', f'backend = "ssh"\nhome = "~/{name}"\n')
    text = text.replace('backend = "docker"\n', 'backend = "docker"\npids_limit = 4000\n')
    (mine / CONFIGURATION).parent.mkdir(parents=True, exist_ok=True)
    (mine / CONFIGURATION).write_text(text)
    instance = load_config().instances[name]
    (own,) = hosts_of(instance, instance.options)
    return own
