"""Connections to the agent of a host whose sshd forwards no sockets: a command there does as much, one a process."""

from __future__ import annotations

import logging
import subprocess
import threading
from collections.abc import Sequence

from ..model.errors import HostUnavailable
from . import bringing
from .host import Host
from .pipes import Command
from .tunnel import Tunnel

_log = logging.getLogger(__name__)
_tunnels: dict[Host, Tunnel] = {}
_lock = threading.Lock()


def open_tunnel(host: Host, ssh: Sequence[str], python: str, runtime: str, path: str) -> Tunnel:
    """Return this process's tunnel to the agent of a host; it is opened if there is none that lives.

    Args:
        host: which.
        ssh: the command that runs another there.
        python: there, which runs the far end.
        runtime: the folder of the carried runtime there.
        path: of the agent's socket there.

    Raises:
        HostUnavailable: there is no ssh on this machine.
    """
    with _lock:
        tunnel = _tunnels.get(host)
        if tunnel is None or tunnel.ended:
            command = " ".join(map(_quoted, bringing.relay(python, runtime, path)))
            tunnel = _tunnels[host] = Tunnel(Command(_start([*ssh, command])), on_end=_take_note)
        return tunnel


def close_tunnel(host: Host) -> None:
    """End this process's tunnel to a host, if it has one."""
    with _lock:
        tunnel = _tunnels.pop(host, None)
    if tunnel is not None:
        tunnel.close()


def _start(argv: Sequence[str]) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(argv, bufsize=0, stdin=pipe, stdout=pipe, stderr=pipe, process_group=0)
    except FileNotFoundError:
        raise HostUnavailable("there is no ssh on this machine", hint="install OpenSSH's client") from None


def _quoted(part: str) -> str:
    """Quote for whatever login shell there is; a path with a quote in it is refused by that."""
    return f"'{part}'"


def _take_note(reason: str) -> None:
    _log.info("a tunnel has ended: %s", reason)
