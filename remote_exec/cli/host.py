"""Talking to the agent of this machine. Commands that look never start one: they say that none runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from ..model.layout import Layout

if TYPE_CHECKING:
    from ..client.session import Session

ANSWER_SECONDS = 30.0
COMPLETION_SECONDS = 2.0
PAGE = 200

_looking: Session | None = None  # this process's, for what only looks


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
    from ..model.errors import HostUnavailable
    from ..wire import protocol
    from ..wire.control import ControlStream

    sock = local.connect(layout())
    if sock is None:
        raise HostUnavailable(
            "no agent runs on this machine; the first call starts one, which knows what earlier ones kept",
            hint="remote-exec hosts start",
        )
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


def ask(what: str, *, seconds: float = ANSWER_SECONDS, **arguments: Any) -> Any:
    """Ask the agent that runs, and wait for its answer.

    Raises:
        HostUnavailable: none runs, or it does not answer in time.
        RemoteExecError: what it answered.
    """
    from ..model.errors import HostUnavailable, RemoteExecError

    try:
        return session().start(what, arguments).result(seconds)[0]
    except TimeoutError as error:
        if isinstance(error, RemoteExecError):
            raise
        raise HostUnavailable(
            f"the agent did not answer {what!r} within {seconds:g} s", hint="remote-exec doctor"
        ) from None


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
