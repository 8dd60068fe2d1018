"""``remote-exec cache``: what is kept so that it need not be sent or built again."""

from __future__ import annotations

from typing import Any

import click

from ..agent.contents import KINDS, Entry
from .host import ask, far_host, home_there, layout, on_option, running, told
from .show import json_option, moment, note, print_json, print_table, size

COLUMNS = ("WHAT", "ID", "SIZE", "LAST USED", "HELD BY", "ABOUT")
SHORT = 12
SHOWN = 20


@click.group("cache", invoke_without_command=True)
@on_option
@json_option
@click.pass_context
def command(context: click.Context, *, as_json: bool) -> None:
    """Show or prune what is kept. What jobs that are kept refer to is never pruned.

    \b
    Examples:
      remote-exec cache ls --what environments
      remote-exec cache prune --limit '2 GB'
      remote-exec cache path
    """
    if context.invoked_subcommand is None:
        context.invoke(ls, as_json=as_json)


@command.command("ls")
@click.option("--what", type=click.Choice(KINDS), help="Only these.")
@click.option("--all", "everything", is_flag=True, help=f"All, not only the {SHOWN} largest.")
@on_option
@json_option
def ls(*, what: str | None = None, everything: bool = False, as_json: bool = False) -> None:
    """List what is kept, the largest first: its size, its last use, and what holds it there."""
    found = [entry for entry in _entries() if what is None or entry.what == what]
    if as_json:
        print_json([entry._asdict() for entry in found])
        return
    shown = found if everything else found[:SHOWN]
    rows = [
        (
            one.what,
            one.id.removeprefix("sha256:")[:SHORT],
            size(one.size_bytes),
            moment(one.used_at),
            one.held_by,
            one.about,
        )
        for one in shown
    ]
    print_table(COLUMNS, rows, none=f"nothing is kept in {home_there()}/cache")
    if len(shown) < len(found):
        note(f"the largest {SHOWN} are shown; --all shows all {len(found)}")
    for kind in KINDS:
        sizes = [one.size_bytes for one in found if one.what == kind]
        if sizes:
            note(f"{kind}: {len(sizes)}, {size(sum(sizes))}")


def _entries() -> list[Entry]:
    if far_host() is not None:
        return [Entry(**one) for one in told(ask("contents"))]
    from ..agent.contents import contents, noted_in
    from ..client.kept import Reader

    pools: list[Any] = ask("host")["pools"] if running() else []
    return contents(layout(), noted_in(Reader(layout()).read), pools)


@command.command("prune")
@click.option("--limit", default="", metavar="SIZE", help="How much to keep, as '2 GB'; nothing by default.")
@on_option
@json_option
def prune(*, limit: str, as_json: bool) -> None:
    """Remove the blobs that were not used for longest, until at most SIZE is left.

    What was used a moment ago stays, and so does what unpacked local code or a job that is kept still needs.
    """
    from ..options.values import size as size_kind

    try:
        limit_bytes = size_kind().check(limit) if limit else 0
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--limit") from None
    pruned = ask("prune", seconds=600.0, limit_bytes=limit_bytes)
    if as_json:
        print_json(pruned)
    else:
        note(f"removed {pruned['removed']} blobs, {size(pruned['removed_bytes'])}")


@command.command("path")
@on_option
def path() -> None:
    """Print the folder of the cache."""
    click.echo(f"{home_there()}/cache")
