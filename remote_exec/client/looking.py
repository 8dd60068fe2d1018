"""Looking at agents without changing anything: none is started, none gives way, no connection is opened."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, wait

from ..backends import local
from ..backends.access import access_to
from ..backends.host import Host
from ..model.errors import HostUnavailable
from ..model.layout import Layout
from ..wire import protocol
from . import greeting
from .session import Session

LOOK_SECONDS = 3.0  # another host that is connected, or was until a moment ago


class NoAgent(HostUnavailable):
    """None runs."""


def listening_pid() -> int:
    """Return the process that listens on this machine's agent socket; 0 where none does, or it is not told."""
    sock = local.connect(Layout.of(os.environ))
    if sock is None:
        return 0
    with sock:
        return _peer_pid(sock)


def _peer_pid(sock: socket.socket) -> int:
    import struct

    if not hasattr(socket, "SO_PEERCRED"):
        return 0
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[0])


def process_state(pid: int) -> str:
    """Return the letter of a process's state, such as T where it is stopped; empty where none is told."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def look(host: Host, sock: socket.socket | None) -> Session:
    """Greet the agent that is there without making it give way to our version, whatever that is.

    Args:
        host: where it is.
        sock: a connection to it; None: there is none.

    Raises:
        NoAgent: none runs.
        HostUnavailable: it does not answer, or not in this version's protocol.
    """
    if sock is None:
        raise _no_agent()
    pid = _peer_pid(sock) if host.here else 0
    if process_state(pid) == "T":
        sock.close()
        raise HostUnavailable(f"the agent (process {pid}) is stopped", hint=f"kill -CONT {pid}")
    python = ".".join(map(str, sys.version_info[:3]))
    sock.settimeout(greeting.WELCOME_SECONDS if host.here else LOOK_SECONDS)
    try:
        stream = greeting._stream(host, sock)
        stream.send(protocol.Hello(protocol.PROTOCOL, protocol.LOOKER, "", python, os.getpid()))
        received = stream.receive()
    except OSError as error:
        sock.close()
        raise HostUnavailable(f"the agent does not answer: {error}", hint="remote-exec doctor") from None
    if received is None and host.here and not listening_pid():  # it was ending
        sock.close()
        raise _no_agent()
    welcome = received[0].message if received else None
    if not isinstance(welcome, protocol.Welcome) or not welcome.accepted:
        sock.close()
        raise HostUnavailable(
            "the agent that runs is of an incompatible version, and does not understand this one",
            hint="remote-exec hosts stop",
        )
    sock.settimeout(None)
    return Session(host, stream, welcome)


def _no_agent() -> NoAgent:
    return NoAgent(
        "no agent runs on this machine; the first call starts one, which knows what earlier ones kept",
        hint="remote-exec hosts start",
    )


def look_at_all(hosts: Iterable[Host]) -> Iterator[tuple[Host, Session | None]]:
    """Yield other hosts, each with a session with its agent by the way that is open to it now; None: there is none.

    Nothing is opened, and no agent is started. All are looked at at once, and none is waited for for long.
    """
    looks: dict[Host, Future[Session | None]] = {host: Future() for host in hosts}
    for host, answer in looks.items():
        threading.Thread(target=_look_there, args=(host, answer), daemon=True).start()
    deadline = time.monotonic() + LOOK_SECONDS
    for host, answer in looks.items():
        wait([answer], max(0.0, deadline - time.monotonic()))
        yield host, None if answer.cancel() else answer.result()


def _look_there(host: Host, answer: Future[Session | None]) -> None:
    session: Session | None = None
    with contextlib.suppress(Exception):  # whatever it is, there is no way
        sock = access_to(host).dial()
        if sock is not None:
            session = look(host, sock)
    if answer.set_running_or_notify_cancel():
        answer.set_result(session)
    elif session is not None:
        session.close()  # nobody waits for it any longer
