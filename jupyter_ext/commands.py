"""`%remote ...`: the commands of a notebook. Those that only print are the command line's own.

A command returns what it found, as an object that shows itself: ``rows = %remote jobs`` goes on with it.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click
from IPython.core.error import UsageError

from remote_exec.cli import cancel as cancel_command
from remote_exec.cli import hosts as hosts_command
from remote_exec.cli import logs as logs_command
from remote_exec.cli import metrics as metrics_command
from remote_exec.cli.host import (
    COMPLETION_SECONDS,
    ask,
    complete_jobs,
    home_there,
    job_argument,
    on_option,
    running,
)
from remote_exec.cli.jobs import STATES, attempt_facts, facts_of, newest_jobs, table_of, timeline
from remote_exec.cli.pools import in_use
from remote_exec.cli.pools import table_of as table_of_pools
from remote_exec.config import load_config, resolve_instance_types
from remote_exec.errors import JobNotFound, RemoteExecError
from remote_exec.future import beyond_result
from remote_exec.options import Options, nearest
from remote_exec.options.option_set import Origin

from .displays import Facts, Table
from .namespace import kept_in
from .tracebacks import frames_are
from .words import INSTANCE_TYPE, instance_types

if TYPE_CHECKING:
    from .job import DetachedCell
    from .magics import RemoteMagics
    from .session import Session

NONE_YET = "none yet: the first %%remote cell begins it"
COLUMNS_OF_HELP = 110
MOST_NAMES = 200


class _Commands(click.Group):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the command that was probably meant."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            near = nearest(args[0], self.commands)
            meant = f"did you mean %remote {near}?" if near else f"there are {', '.join(self.commands)}"
            raise click.UsageError(f"there is no command {args[0]!r}; {meant}", ctx=ctx)
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order in which they are best learnt."""
        return list(self.commands)


@click.group(cls=_Commands, name="%remote", invoke_without_command=True)
@click.pass_context
def group(context: click.Context) -> None:
    """Where this notebook's cells run, and what becomes of jobs. `%%remote` runs a cell there.

    \b
    Examples:
      %remote use gpu                  %%remote runs cells there from now on
      %remote jobs --state running
      rows = %remote jobs              the table's rows, as data
      model = %remote result fit       what a job returned
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def run(magics: RemoteMagics, line: str) -> Any:
    """Run a line of `%remote` and return what it found.

    Raises:
        UsageError: there is no such command, flag, job or instance type; the nearest is named.
        RemoteExecError: whatever else keeps it from being done.
    """
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise UsageError(f"%remote: {error}") from None
    try:
        with group.make_context("%remote", words, obj=magics, terminal_width=COLUMNS_OF_HELP) as context:
            return group.invoke(context)
    except click.exceptions.Exit as end:
        if end.exit_code:
            raise UsageError(f"%remote {words[0]}: not done{_meant(words)}") from None
        return None
    except click.ClickException as error:
        raise UsageError(f"%remote: {error.format_message().removesuffix('.')}") from None
    except JobNotFound as error:
        raise UsageError(f"{error.message}{_meant(words)}") from None


def _meant(words: list[str]) -> str:
    """Return the question whether another job was meant."""
    try:
        names = [row["name"] for row in ask("jobs", seconds=COMPLETION_SECONDS, limit=MOST_NAMES)["jobs"]]
    except (RemoteExecError, OSError):
        return ""
    for word in words[1:]:
        if not word.startswith("-") and word not in names and (near := nearest(word, names)):
            return f"; did you mean {near}?"
    return ""


@group.command("status")
@click.pass_obj
def status(magics: RemoteMagics) -> Facts:
    """Tell where this notebook's cells run, of the namespaces there, and what has stayed in them."""
    parts = [(_facts_of(magics.shell, session), ()) for session in magics.sessions]
    used = {"instance type": magics.default_instance_type}
    return Facts(used if parts else used | {"namespace": NONE_YET}, parts=parts)


def _facts_of(shell: Any, session: Session) -> dict[str, str]:
    options = ", ".join(f"{name}={text}" for name, text in session.options.shown().items())
    facts = {"session": session.place, "options": options}
    host = session.host
    if host is None:
        return facts | {"namespace": NONE_YET}
    broken = session.died_of
    names = [name for name in session.mirror.agreed if not name.startswith("_")]
    return facts | {
        "host": host.name,
        "namespace": f"gone: {broken}" if broken is not None else "there",
        "names known there": ", ".join(sorted(names)),
        "stay there": ", ".join(kept_in(shell, session)),
    }


@group.command("use")
@click.argument("name", metavar="[INSTANCE_TYPE]", required=False, type=INSTANCE_TYPE)
@click.pass_obj
def use(magics: RemoteMagics, name: str | None) -> Table | None:
    """Run cells of this notebook on INSTANCE_TYPE from now on; without it, list those that there are.

    It is this notebook's `c.RemoteMagics.instance_type`. What has stayed where cells ran before stays there; the next
    cell's names come to INSTANCE_TYPE as they are here.
    """
    if name is None:
        known = instance_types()
        used = magics.default_instance_type
        cells = [(kind, backend, "used" if kind == used else "") for kind, backend in known.items()]
        return Table(("INSTANCE TYPE", "BACKEND", ""), cells, rows=list(known))
    try:
        resolve_instance_types(name, load_config())
    except RemoteExecError as error:
        raise click.UsageError(f"{error.message}\n{error.hint}".rstrip()) from None
    magics.instance_type = name
    click.echo(f"%%remote runs cells on {name} from now on")
    return None


@group.command("jobs")
@click.argument("name", required=False, metavar="[JOB]", shell_complete=complete_jobs)
@click.option(
    "--state", "states", multiple=True, type=click.Choice(STATES), help="Only these. May be repeated."
)
@click.option("--prefix", default="", help="Only names that begin so.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many at most.")
@on_option
def jobs(name: str | None, *, states: tuple[str, ...], prefix: str, limit: int) -> Table | Facts:
    """List jobs and calls, newest first; with JOB, tell everything of that one."""
    if name is not None:
        told = ask("job", name=name)
        parts = [(attempt_facts(attempt), list(timeline(attempt))) for attempt in told["attempts"]]
        return Facts(facts_of(told), parts=parts, data=told)
    rows, more = newest_jobs(states=states, prefix=prefix, limit=limit)
    note = f"the newest {len(rows)}; --limit shows more" if more else ""
    return Table(*table_of(rows), rows=rows, none="no jobs", note=note)


group.add_command(logs_command.command, "logs")
group.add_command(metrics_command.command, "metrics")
group.add_command(cancel_command.command, "cancel")


@group.command("result")
@job_argument
@click.option("--apply", is_flag=True, help="Bind the names, too, that a detached cell has changed.")
@click.pass_obj
def result(magics: RemoteMagics, name: str, *, apply: bool) -> Any:
    """Wait for a job and return what it returned, or raise what it raised. The stop button ends the waiting alone.

    A detached cell's is the value of its last expression.
    """
    from .job import DetachedCell

    found = _attached(magics, name)
    if found.status in ("queued", "running"):
        magics.show(found)
    try:
        if apply and isinstance(found, DetachedCell):
            names = found.apply()
            click.echo(f"bound: {', '.join(names) or 'nothing'}")
        return found.result()
    except JobNotFound:
        raise
    except BaseException as error:
        raise frames_are(error, beyond_result(error.__traceback__)) from None


@group.command("attach")
@job_argument
@click.pass_obj
def attach(magics: RemoteMagics, name: str) -> DetachedCell | Any:
    """Return a job as an object whose display goes on updating: a detached cell, or a future."""
    return _attached(magics, name)


def _attached(magics: RemoteMagics, name: str) -> Any:
    from .job import attached

    return attached(magics.shell, name)


@group.command("pools")
@on_option
def pools() -> Table:
    """List the pools of warm workers: by whose calls they are used, and what each of their workers has."""
    found = in_use(ask("host")["pools"]) if running() else []
    home = home_there() if found else ""
    return Table(*table_of_pools(found, home), rows=found, none="no pools: nothing is warm")


@group.group("hosts", invoke_without_command=True)
@click.pass_context
def hosts(context: click.Context) -> Table | None:
    """Show this machine and the hosts that are known, with their agents."""
    if context.invoked_subcommand is not None:
        return None
    found = hosts_command.known_hosts()
    cells = [hosts_command.row_of(host) for host in found]
    return Table(hosts_command.COLUMNS, cells, rows=found, none=hosts_command.none_known())


for _command in (hosts_command.start, hosts_command.stop, hosts_command.remove, hosts_command.prune):
    hosts.add_command(_command)


@group.command("config")
@click.option("--set", "only_set", is_flag=True, help="Only what something has set.")
@click.pass_obj
def config(magics: RemoteMagics, *, only_set: bool) -> Table:
    """Show each option of this notebook's cells, its value and the place that set it."""
    loaded = load_config()
    used = magics.default_instance_type.partition(",")[0]
    given = Options.from_keywords(Origin.CALL, instance_type=used)
    (instance,) = resolve_instance_types(used, loaded)
    found = [one for one in loaded.explain(given, instance) if not only_set or one.source != "default"]
    note = "\n".join(loaded.notes)
    rows = [one._asdict() for one in found]
    return Table(
        ("OPTION", "VALUE", "SOURCE"), found, rows=rows, none="every option has its default", note=note
    )


@group.command("restart")
@click.argument("name", metavar="[INSTANCE_TYPE]", required=False, type=INSTANCE_TYPE)
@click.pass_obj
def restart(magics: RemoteMagics, name: str | None) -> None:
    """End this notebook's worker on INSTANCE_TYPE, or all: a namespace there is gone, names here stay.

    The next cell begins another.
    """
    ended = [session for session in magics.sessions if name in (None, session.place)]
    for session in ended:
        magics.sessions.end(session)
    if not ended:
        click.echo(f"there was none on {name}" if name is not None else "there was none")
    elif len(ended) == 1:
        click.echo("the remote namespace is gone; the next cell begins another")
    else:
        places = ", ".join(session.place for session in ended)
        click.echo(f"the remote namespaces ({places}) are gone; the next cells begin others")


def _complete_commands(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in group.commands if name.startswith(incomplete)]


@group.command("help")
@click.argument("names", nargs=-1, metavar="[COMMAND]", shell_complete=_complete_commands)
@click.pass_context
def help_(context: click.Context, names: tuple[str, ...]) -> None:
    """Tell of the commands, or of one of them."""
    described = context.parent or context
    for name in names:
        of = described.command
        found = of.resolve_command(described, [name])[1] if isinstance(of, click.Group) else None
        if found is None:
            raise click.UsageError(f"there is no command {' '.join(names)!r}")
        described = found.make_context(name, [], parent=described, resilient_parsing=True)
    click.echo(described.get_help())
