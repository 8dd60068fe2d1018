"""Hosts in namespaces: they reach each other, and their links are cut, slowed and filtered for real."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from remote_exec import remote

from . import netns
from .fixtures import NewHost
from .host_work import double
from .netns import Network
from .projects import Project
from .sshd import SshClient

pytestmark = pytest.mark.usefixtures("ssh_client")  # from the first test on: it stays after the last

BULK = 4 << 20


@contextlib.contextmanager
def _echo(alias: str) -> Generator[subprocess.Popen[bytes]]:
    """Give a session that says what it hears, and has done so."""
    command = ["ssh", alias, "exec cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as session:
        _say(session, b"first\n")
        assert _hear(session) == b"first\n"
        yield session
        session.kill()


def _say(session: subprocess.Popen[bytes], line: bytes) -> None:
    assert session.stdin is not None
    session.stdin.write(line)


def _hear(session: subprocess.Popen[bytes]) -> bytes:
    assert session.stdout is not None
    return session.stdout.readline()


def _can_be_heard(session: subprocess.Popen[bytes]) -> bool:
    assert session.stdout is not None
    return bool(select.select([session.stdout], [], [], 0.05)[0])


def test_two_hosts_and_this_machine_reach_each_other(
    ssh: SshClient, new_host: NewHost, network: Network
) -> None:
    first, second = network.add(), network.add()
    new_host("gpu1", at=first)
    assert first.address in ssh.run("gpu1", "ip addr").stdout
    for other in (second.address, network.address):
        probe = f"import socket; socket.create_connection(({other!r}, 22), 5)"
        done = ssh.run("gpu1", f'python3 -c "{probe}"')
        assert done.returncode == 0 or "ConnectionRefusedError" in done.stderr


def test_a_connection_outlives_a_link_that_is_down_for_a_while(new_host: NewHost, network: Network) -> None:
    host = network.add()
    new_host("gpu1", at=host)
    with _echo("gpu1") as session:
        for stop, go_on in ((host.link_down, host.link_up), (host.drop, host.heal)):
            stop()
            _say(session, b"later\n")
            assert not _can_be_heard(session)
            go_on()
            assert _hear(session) == b"later\n"


def test_a_reset_ends_a_connection_and_refuses_others(
    ssh: SshClient, new_host: NewHost, network: Network
) -> None:
    host = network.add()
    new_host("gpu1", at=host)
    with _echo("gpu1") as session:
        host.reset()
        with contextlib.suppress(BrokenPipeError):  # an acknowledgement under way may have met it already
            _say(session, b"never\n")
        assert session.wait() == 255
    assert "Connection refused" in ssh.run("gpu1", "true").stderr
    host.heal()
    assert ssh.run("gpu1", "true").returncode == 0


def test_a_rate_holds_both_ways(ssh: SshClient, new_host: NewHost, network: Network, tmp_path: Path) -> None:
    host = network.add()
    server = new_host("gpu1", at=host)
    (tmp_path / "bulk").write_bytes(os.urandom(BULK))
    host.rate(8 * BULK * 2)  # half a second
    for source, target in ((str(tmp_path / "bulk"), "gpu1:bulk"), ("gpu1:bulk", str(tmp_path / "back"))):
        start = time.monotonic()
        subprocess.run(["scp", "-q", source, target], check=True)
        assert time.monotonic() - start > 0.4
    assert (tmp_path / "back").read_bytes() == (server.home / "bulk").read_bytes()


WAITS = """
from remote_exec import remote
from remote_exec.errors import HostUnavailable

@remote(instance_type="gpu", connection_timeout=3)
def double(x):
    return 2 * x

try:
    double(2)
except HostUnavailable as error:
    print(error)
"""


def test_a_host_that_swallows_what_it_is_sent_is_given_up_in_time_by_all_who_wait_for_it(
    new_host: NewHost, network: Network, project: Project
) -> None:
    host = network.add()
    new_host("gpu1", at=host)
    project.add("gpu", host="gpu1")
    function = remote(instance_type="gpu", connection_timeout=3)(double)
    for known in (False, True):  # whether it has ever been reached
        host.drop()
        start = time.monotonic()
        with (
            subprocess.Popen(
                [sys.executable, "-c", WAITS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            ) as other,
            ThreadPoolExecutor(2) as threads,
        ):
            here = [] if known else [threads.submit(function, 2) for _ in range(2)]  # else there is a session
            errors = [one.exception() for one in here]
            said, told = other.communicate()
        assert "gpu1 has not answered within 3 s (connection_timeout)" in said, told
        assert all("has not answered within 3 s" in str(error) for error in errors)
        assert time.monotonic() - start < 14, "before ssh itself notices"
        host.heal()
        assert function(2) == 4


def test_nothing_is_left_and_what_the_killed_have_left_is_removed(network: Network) -> None:
    network.add()
    mine = f"re{os.getpid()}-"
    assert mine in netns.run("ip", "netns", "list")
    network.close()
    gone = subprocess.Popen(["true"])
    gone.wait()
    netns.run("ip", "netns", "add", f"re{gone.pid}-1s")
    netns.remove_stale()
    left = netns.run("ip", "netns", "list") + netns.run("ip", "link")
    assert mine not in left
    assert f"re{gone.pid}-" not in left
