"""``remote-exec env``: the environments that were built on a host."""

from __future__ import annotations

import click

from .host import ask, on_option
from .show import json_option, moment, note, print_json, print_table, size

COLUMNS = ("DIGEST", "PYTHON", "SIZE", "LAST USED", "STATE", "SUMMARY")
SHORT = 12


@click.group("env", invoke_without_command=True)
@on_option
@json_option
@click.pass_context
def command(context: click.Context, *, as_json: bool) -> None:
    """List or remove the environments that were built. One that is missing is built again when it is needed.

    \b
    Examples:
      remote-exec env ls
      remote-exec env remove 3f2a91bc04de
    """
    if context.invoked_subcommand is None:
        context.invoke(ls, as_json=as_json)


@command.command("ls")
@on_option
@json_option
def ls(*, as_json: bool = False) -> None:
    """List environments."""
    found = ask("environments")
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one["digest"].partition(":")[2][:SHORT],
            one["python"],
            size(one["size_bytes"]),
            moment(one["last_used_at"]),
            "sick" if one["sick"] else "in use" if one["in_use"] else "idle",
            one["summary"],
        )
        for one in found
    ]
    print_table(COLUMNS, rows, none="no environments were built")


@command.command("remove")
@click.argument("digest")
@on_option
@json_option
def remove(digest: str, *, as_json: bool) -> None:
    """Remove the environments whose digest begins with DIGEST, unless they are in use."""
    from ..model.errors import ConfigurationError

    wanted = digest.partition(":")[2] or digest
    removed = ask("remove_environment", digest=wanted)["removed"]
    if as_json:
        print_json({"removed": removed})
    if not removed:
        raise ConfigurationError(
            f"DIGEST {digest!r} begins no environment that can be removed: it is unknown, or in use",
            hint="remote-exec env ls",
        )
    if not as_json:
        note(f"removed: {', '.join(removed)}")
