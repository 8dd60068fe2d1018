"""Talking to the agent of this machine, or of the host that is chosen. Commands that look start none here.

Where none runs they read what is kept on the disk, and say so; what only an agent can tell is an error then.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from ..model.errors import HostUnavailable
from ..model.layout import Layout
from .show import note

if TYPE_CHECKING:
    from ..backends.host import Host
    from ..client.session import Session

ANSWER_SECONDS = 30.0
COMPLETION_SECONDS = 2.0
PAGE = 200

_CHOSEN = f"{__name__}.chosen"
_LIES_ON = f"{__name__}.lies_on"
# what changes nothing, and may be asked again
_LOOKS = frozenset(["jobs", "job", "logs", "metrics", "result", "environments", "host", "usage", "contents"])
F = TypeVar("F", bound="Callable[..., Any]")
T = TypeVar("T")

_looking: Session | None = None  # this process's, for what only looks
_said = False  # that no agent runs


def layout() -> Layout:
    """Where things lie on this machine."""
    return Layout.of(os.environ)


def running(name: str = "") -> bool:
    """Whether an agent runs here; on another host one is started to be asked.

    Args:
        name: a job that was asked for before: it is about its host.
    """
    from ..backends import local

    if far_host(name) is not None:
        return True
    sock = local.connect(layout())
    if sock is None:
        return False
    sock.close()
    return True


def session(*, start: bool = False, name: str = "") -> Session:
    """Return a session with the agent that runs, here or on the host that was chosen.

    Args:
        start: start one on this machine if there is none, and have an idle one of an older version give way.
        name: a job that was asked for before: the session is with the agent of its host.

    Raises:
        HostUnavailable: none runs, or none could be reached.
    """
    far = far_host(name)
    if start or far is not None:
        from ..client.connections import connections

        return connections.session(far)
    global _looking
    if _looking is None or _looking.lost:
        from ..backends import local
        from ..client.looking import look

        _looking = look(local.here(), local.connect(layout()))
    return _looking


def ask(what: str, *, seconds: float | None = ANSWER_SECONDS, **arguments: Any) -> Any:
    """Ask an agent, and wait for its answer; where none runs here, answer from the disk if that can.

    It is the agent of the host that ``--on`` names. Without it that of this machine is asked, and about a job (the
    argument `name`) that it does not know, those of the hosts that are known.

    Raises:
        HostUnavailable: none runs and only one could tell, or it does not answer in time.
        RemoteExecError: what it answered.
    """
    return ask_whole(what, seconds=seconds, **arguments)[0]


def ask_whole(what: str, *, seconds: float | None = ANSWER_SECONDS, **arguments: Any) -> tuple[Any, bytes]:
    """Ask as `ask` does, and return the answer with its body."""
    from ..model.errors import JobNotFound

    name = arguments.get("name", "")
    far = far_host(name)
    if far is not None:
        return _ask_far(far, what, arguments, seconds)
    try:
        return _ask_here(what, arguments, seconds)
    except JobNotFound:
        if not name or chosen() is not None:
            raise
        from ..client.finding import find_far_job

        found = _lies_on()[name] = find_far_job(name)[0]
        return _ask_far(found, what, arguments, seconds)


def _ask_far(host: Host, what: str, arguments: dict[str, Any], seconds: float | None) -> tuple[Any, bytes]:
    from ..client.connections import connections

    return connections.with_agent(host, lambda session: _answer(session, what, arguments, seconds))


def look_here(look: Callable[[Session], T]) -> T:
    """Return what this machine's agent is seen to do; the next one is looked at where it ends meanwhile.

    Args:
        look: asks an agent, and changes nothing there.

    Raises:
        NoAgent: none runs.
        HostUnavailable: it does not answer.
    """
    agent = session()
    try:
        return look(agent)
    except HostUnavailable:
        if not agent.lost:
            raise
    return look(session())


def _ask_here(what: str, arguments: dict[str, Any], seconds: float | None) -> tuple[Any, bytes]:
    from ..client.looking import NoAgent

    def answer(agent: Session) -> tuple[Any, bytes]:
        return _answer(agent, what, arguments, seconds)

    try:
        return look_here(answer) if what in _LOOKS else answer(session())
    except NoAgent:
        from ..client import kept

        if what not in kept.ANSWERED:
            raise
        found = kept.ask(layout(), what, arguments)
        _say_once()
        return found


def _answer(
    session: Session, what: str, arguments: dict[str, Any], seconds: float | None
) -> tuple[Any, bytes]:
    from ..model.errors import RemoteExecError

    try:
        return session.start(what, arguments).result(seconds)
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


def connected() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the name of each host whose lists are shown, and what asks its agent as `ask` does.

    It is the one that was chosen; else this machine, and those to which a connection is open.
    """
    host = chosen()
    yield host.name if host is not None else "local", ask
    if host is None:
        from ..client.looking import look_at_all
        from ..client.naming import far_hosts

        for far, session in look_at_all(far_hosts()):
            if session is not None:
                yield far.name, partial(_ask_over, session)
                session.close()


def _ask_over(session: Session, what: str, **arguments: Any) -> Any:
    return _answer(session, what, arguments, ANSWER_SECONDS)[0]


def told(answer: Any) -> Any:
    """Return what an agent found out in a thread.

    Raises:
        HostUnavailable: it could not.
    """
    if answer["reason"]:
        raise HostUnavailable(f"the agent could not do that: {answer['reason']}")
    return answer["told"]


def home_there() -> str:
    """Return the state directory of this machine's agent, or of the host's that was chosen."""
    return str(layout().home) if far_host() is None else str(ask("host")["home"])


# --- names ------------------------------------------------------------------------------------------------------


def on_option(command: F) -> F:
    """Give a command the option ``--on``, which chooses the host that `ask` asks."""
    return click.option(
        "--on",
        metavar="HOST",
        expose_value=False,
        callback=_choose,
        shell_complete=complete_hosts,
        help="Ask the agent of this host, or instance type, instead of this machine's.",
    )(command)


def _choose(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        from ..client.naming import host_named

        context.meta[_CHOSEN] = host_named(value)


def chosen() -> Host | None:
    """Return the host that ``--on`` names."""
    context = click.get_current_context(silent=True)
    return None if context is None else context.meta.get(_CHOSEN)


def far_host(name: str = "") -> Host | None:
    """Return the host other than this machine that is to be asked: the chosen one, or where a job was found."""
    host = chosen() or _lies_on().get(name)
    return None if host is None or host.here else host


def _lies_on() -> dict[str, Host]:
    """Return the jobs that this command has found on another host; a later one of a notebook's looks anew."""
    context = click.get_current_context(silent=True)
    found: dict[str, Host] = {} if context is None else context.meta.setdefault(_LIES_ON, {})
    return found


def complete_hosts(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the name of a host; nobody is asked."""
    from ..client.naming import names_of_hosts
    from ..model.errors import RemoteExecError

    try:
        return [CompletionItem(name) for name in names_of_hosts() if name.startswith(incomplete)]
    except (RemoteExecError, OSError):
        return []


def complete_jobs(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the name of a job, newest first: those that this machine's agent knows, and those noted elsewhere."""
    from ..client.inventory import job_names
    from ..model.errors import RemoteExecError
    from ..session.cell_text import CELL_NAME

    found: list[CompletionItem] = []
    rows: list[dict[str, Any]] = []
    try:
        rows = ask("jobs", seconds=COMPLETION_SECONDS, prefix=incomplete, limit=PAGE)["jobs"]
    except (RemoteExecError, OSError):
        pass
    cells = dict.fromkeys(value for row in rows for key, value in row["tags"] if key == CELL_NAME)
    found += [CompletionItem(name, help="cells") for name in cells if name.startswith(incomplete)]
    found += [CompletionItem(row["name"], help=f"{row['function']}, {row['state']}") for row in rows]
    return found + ([CompletionItem(name) for name in job_names(incomplete)] if chosen() is None else [])


job_argument = click.argument("name", metavar="JOB", shell_complete=complete_jobs)
