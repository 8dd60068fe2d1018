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
        start: start one if there is none.

    Raises:
        HostUnavailable: none runs, or none could be reached.
    """
    from ..client.connections import connections
    from ..model.errors import HostUnavailable

    if not start and not running():
        raise HostUnavailable(
            "no agent runs on this machine; it starts with the first call, and reads again what earlier ones kept",
            hint="remote-exec hosts start",
        )
    return connections.session(layout())


def ask(what: str, *, seconds: float = ANSWER_SECONDS, **arguments: Any) -> Any:
    """Ask the agent that runs, and wait for its answer.

    Raises:
        HostUnavailable: none runs, or it does not answer in time.
        RemoteExecError: what it answered.
    """
    from ..model.errors import HostUnavailable

    try:
        return session().start(what, arguments).result(seconds)[0]
    except TimeoutError as error:
        if isinstance(error, click.ClickException) or hasattr(error, "hint"):
            raise
        raise HostUnavailable(
            f"the agent did not answer {what!r} within {seconds:g} s", hint="remote-exec doctor"
        ) from None


def complete_jobs(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a job, newest first; nothing where no agent runs."""
    from ..model.errors import RemoteExecError

    try:
        page = ask("jobs", seconds=COMPLETION_SECONDS, prefix=incomplete, limit=PAGE)
    except (RemoteExecError, OSError):
        return []
    return [CompletionItem(row["name"], help=f"{row['function']}, {row['state']}") for row in page["jobs"]]


job_argument = click.argument("name", metavar="JOB", shell_complete=complete_jobs)
