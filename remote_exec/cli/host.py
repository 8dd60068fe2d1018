"""Talking to the agent of this machine. Commands that look never start one.

Where none runs they read what is kept on the disk, and say so; what only an agent can tell is an error then.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from ..model.errors import HostUnavailable
from ..model.layout import Layout
from .show import note

if TYPE_CHECKING:
    from ..client.session import Session

ANSWER_SECONDS = 30.0
COMPLETION_SECONDS = 2.0
PAGE = 200

_looking: Session | None = None  # this process's, for what only looks
_said = False  # that no agent runs


class _NoAgent(HostUnavailable):
    """None runs."""


def layout() -> Layout:
    """Where things lie on this machine."""
    return Layout.of(os.environ)


def running() -> bool:
    """Whether an agent runs."""
    from ..backends import local

    sock = local.connect(layout())
    if sock is None:
        return False
    sock.close()
    return True


def listening_pid() -> int:
    """Return the process that listens on the agent's socket; 0 where none does, or the system does not tell."""
    from ..backends import local

    sock = local.connect(layout())
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


def session(*, start: bool = False) -> Session:
    """Return a session with the agent that runs.

    Args:
        start: start one if there is none, and have an idle one of an older version give way.

    Raises:
        HostUnavailable: none runs, or none could be reached.
    """
    if start:
        from ..client.connections import connections

        return connections.session(layout())
    global _looking
    if _looking is None or _looking.lost:
        _looking = _look()
    return _looking


def _look() -> Session:
    """Connect to the agent that is there without making it give way to our version, whatever that is."""
    import sys

    from ..backends import local
    from ..client import session as sessions
    from ..wire import protocol
    from ..wire.control import ControlStream

    sock = local.connect(layout())
    if sock is None:
        raise _NoAgent(
            "no agent runs on this machine; the first call starts one, which knows what earlier ones kept",
            hint="remote-exec hosts start",
        )
    pid = _peer_pid(sock)
    if process_state(pid) == "T":
        sock.close()
        raise HostUnavailable(f"the agent (process {pid}) is stopped", hint=f"kill -CONT {pid}")
    python = ".".join(map(str, sys.version_info[:3]))
    sock.settimeout(sessions.GREET_SECONDS)
    stream = ControlStream(sock)
    try:
        # as the oldest version there can be: an older client leaves every agent alone
        stream.send(protocol.Hello(protocol.PROTOCOL, "0", "", python, os.getpid()))
        received = stream.receive()
    except OSError as error:
        raise HostUnavailable(f"the agent does not answer: {error}", hint="remote-exec doctor") from None
    welcome = received[0].message if received else None
    if not isinstance(welcome, protocol.Welcome) or not welcome.accepted:
        raise HostUnavailable(
            "the agent that runs is of an incompatible version, and does not understand this one",
            hint="remote-exec hosts stop",
        )
    sock.settimeout(None)
    return sessions.Session(sock, welcome)


def ask(what: str, *, seconds: float | None = ANSWER_SECONDS, **arguments: Any) -> Any:
    """Ask the agent that runs, and wait for its answer; where none runs, answer from the disk if that can.

    Raises:
        HostUnavailable: none runs and only one could tell, or it does not answer in time.
        RemoteExecError: what it answered.
    """
    return ask_whole(what, seconds=seconds, **arguments)[0]


def ask_whole(what: str, *, seconds: float | None = ANSWER_SECONDS, **arguments: Any) -> tuple[Any, bytes]:
    """Ask as `ask` does, and return the answer with its body."""
    from ..model.errors import RemoteExecError

    try:
        return session().start(what, arguments).result(seconds)
    except _NoAgent:
        from . import kept

        if what not in kept.ANSWERED:
            raise
        _say_once()
        return kept.ask(layout(), what, arguments)
    except TimeoutError as error:
        if isinstance(error, RemoteExecError):
            raise
        raise HostUnavailable(
            f"the agent did not answer {what!r} within {seconds:g} s", hint="remote-exec doctor"
        ) from None


def _say_once() -> None:
    global _said
    if not _said and "_REMOTE_EXEC_COMPLETE" not in os.environ:
        note("no agent runs on this machine: this is what is kept on its disk")
    _said = True


def complete_jobs(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the name of a job, newest first; nothing where no agent runs."""
    from ..model.errors import RemoteExecError

    try:
        page = ask("jobs", seconds=COMPLETION_SECONDS, prefix=incomplete, limit=PAGE)
    except (RemoteExecError, OSError):
        return []
    return [CompletionItem(row["name"], help=f"{row['function']}, {row['state']}") for row in page["jobs"]]


job_argument = click.argument("name", metavar="JOB", shell_complete=complete_jobs)
