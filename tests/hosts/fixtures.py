"""Fixtures that give hosts; a conftest that wants them imports them.

    from hosts.fixtures import gpu1, network, new_host, new_link, ssh, ssh_client, ssh_server  # noqa: F401

The client and the server behind `gpu1` are the session's, and stay. A module not all of whose tests use them has to
have them from its first test on, else they count as left behind by it:

    pytestmark = pytest.mark.usefixtures("ssh_server")

What cannot be had here is skipped, by name; in CI it is a failure.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import pytest

from .link import Link
from .netns import Network, NetworkError, NetworkHost
from .sshd import SERVER, SshClient, SshServer

PREFIX = "ssh-"


class NewHost:
    """What `new_host` gives: hosts of the test's own."""

    def __init__(self, ssh: SshClient) -> None:
        self._ssh = ssh
        self._servers: dict[str, SshServer] = {}

    def __call__(
        self,
        alias: str,
        *,
        at: NetworkHost | None = None,
        pythons: Mapping[str, Path] | None = None,
        shell: str = "/bin/bash",
        noise: str = "",
        settings: Mapping[str, str] | None = None,
    ) -> SshServer:
        """Start one, and let `ssh` know it by a name. `at`: in which namespace."""
        server = self._servers[alias] = SshServer(
            Path(tempfile.mkdtemp(prefix="h-", dir=self._ssh.folder.parent)),
            self._ssh.public_key,
            pythons=pythons,
            shell=shell,
            noise=noise,
            settings=settings,
            address=at.address if at else "127.0.0.1",
            port=22 if at else None,
            prefix=at.prefix if at else (),
        )
        server.start()
        self._ssh.add(alias, server)
        return server

    def remove(self) -> None:
        """Remove them, and show their logs."""
        for alias, server in self._servers.items():
            print(f"sshd of {alias}:\n{server.log()}")
            self._ssh.forget(alias)
            server.remove()


class NewLink:
    """What `new_link` gives: links before servers."""

    def __init__(self, ssh: SshClient) -> None:
        self._ssh = ssh
        self._links: dict[str, Link] = {}

    def __call__(self, alias: str, server: SshServer, *, delay_seconds: float = 0.0) -> Link:
        """Let `ssh` reach a server through a link, by a name that may be new or that of the server."""
        link = self._links[alias] = Link(server.address, server.port, delay_seconds=delay_seconds)
        self._ssh.add(alias, server, via=link)
        return link

    def remove(self) -> None:
        """Remove them."""
        for alias, link in self._links.items():
            self._ssh.forget(alias)
            link.close()


def missing(what: str) -> NoReturn:
    """Skip the test, for what is not to be had here."""
    pytest.skip(f"NOT TO BE HAD HERE: {what}")


@pytest.fixture(scope="session")
def ssh_client(session_home: Path) -> Iterator[SshClient]:
    """The user's side, for all tests; `ssh` is the one that tests ask for."""
    if SERVER is None:
        missing("an SSH server; apt-get install openssh-server")
    client = SshClient(Path(tempfile.mkdtemp(prefix=PREFIX, dir=session_home), "client"))
    yield client
    client.remove()
    client.folder.parent.rmdir()


@pytest.fixture(scope="session")
def ssh_server(ssh_client: SshClient) -> Iterator[SshServer]:
    """The server behind `gpu1`, for all tests."""
    with SshServer(ssh_client.folder.parent / "gpu1", ssh_client.public_key) as server:
        ssh_client.add("gpu1", server)
        yield server


@pytest.fixture
def ssh(ssh_client: SshClient, monkeypatch: pytest.MonkeyPatch) -> SshClient:
    """The user's side: its `ssh` and `scp` are those that this process and its children find."""
    monkeypatch.setenv("PATH", ssh_client.environ()["PATH"])
    return ssh_client


@pytest.fixture
def gpu1(ssh: SshClient, ssh_server: SshServer) -> Iterator[SshServer]:
    """A host that all tests share, which `ssh` knows as `gpu1`. Its log of a test that fails is shown."""
    ssh.add("gpu1", ssh_server)  # whatever another test has put before it
    start = len(ssh_server.log())
    yield ssh_server
    print(f"sshd of gpu1:\n{ssh_server.log(start)}")


@pytest.fixture
def new_host(ssh: SshClient) -> Iterator[NewHost]:
    """Start hosts of the test's own: `new_host("old", pythons={...})`. Their logs are shown when it fails."""
    hosts = NewHost(ssh)
    yield hosts
    hosts.remove()


@pytest.fixture
def new_link(ssh: SshClient) -> Iterator[NewLink]:
    """Put links before servers: `new_link("gpu1", gpu1, delay_seconds=0.005)`; they end with the test."""
    links = NewLink(ssh)
    yield links
    links.remove()


@pytest.fixture
def network() -> Iterator[Network]:
    """A switch of the test's own: `new_host("gpu1", at=network.add())`."""
    try:
        made = Network().__enter__()
    except NetworkError as error:
        missing(f"network namespaces: {error}")
    with contextlib.closing(made):
        yield made
