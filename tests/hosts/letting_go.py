"""Ends what a test has at hosts of an instance type: calls, the session, the agent, the way there."""

from __future__ import annotations

import threading
import time

from remote_exec.backends.docker.engine import close_engines
from remote_exec.backends.docker.host import DockerHost, close_ways
from remote_exec.backends.host import Host
from remote_exec.backends.ssh import SshHost
from remote_exec.backends.ssh_access import SshAccess
from remote_exec.client import inventory
from remote_exec.client.connections import connections
from remote_exec.client.loads import loads
from remote_exec.client.placement import hosts_of
from remote_exec.config import load_config

SECONDS = 20.0
TRYING = ("remote_exec-mend", "remote_exec-load", "remote_exec-ask")


def let_go(name: str) -> None:
    """Stop the agents of an instance type that this process has reached, and close the ways to them."""
    instance = load_config().instances[name]
    reached = [host for host in connections._sessions if _is_node_of(host, name)]
    for host in dict.fromkeys((*hosts_of(instance, instance.options), *reached)):
        leave(host)
        if isinstance(host, SshHost):
            SshAccess(host).close()
        elif isinstance(host, DockerHost):
            close_ways()
            close_engines()


def _is_node_of(host: Host, name: str) -> bool:
    """Whether a host is a container that a group has had beside the first."""
    return isinstance(host, DockerHost) and host.settings.instance == name


def leave(host: Host) -> None:
    """End what this process has at a host, and the agent there."""
    for (there, _), dispatcher in list(connections._dispatchers.items()):
        if there == host:
            connections.drop(dispatcher)
    session = connections._sessions.pop(host, None)
    if session is not None and not session.lost:
        if not session.away:  # else it is gone, and will not come back
            session.ask("stop")
        session.close()
        while not session._told_loss:
            time.sleep(0.005)
    _until_left_alone()
    loads._known.pop(host, None)  # the next one of that name may be another
    if not host.here:
        inventory.forget(host)


def _until_left_alone() -> None:
    """Wait for those who try to reach a host that is out of reach: they would make its folder anew."""
    deadline = time.monotonic() + SECONDS
    while any(thread.name in TRYING for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.005)
