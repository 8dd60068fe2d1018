"""``remote-exec cache``: what is kept so that it need not be sent or built again."""

from __future__ import annotations

from typing import Any

import click

from .host import ask, layout
from .show import json_option, note, print_json, print_table, size


@click.group("cache")
def command() -> None:
    """Show or prune the cache. What jobs that are kept refer to is never pruned.

    \b
    Examples:
      remote-exec cache ls
      remote-exec cache prune --limit '2 GB'
      remote-exec cache path
    """


@command.command("ls")
@json_option
def ls(*, as_json: bool) -> None:
    """Tell how much is kept, and where."""
    blobs, environments = ask("cache"), ask("environments")
    kept: list[dict[str, Any]] = [
        {
            "what": "blobs",
            "count": blobs["blobs"],
            "size_bytes": blobs["size_bytes"],
            "folder": blobs["folder"],
        },
        {
            "what": "environments",
            "count": len(environments),
            "size_bytes": sum(one["size_bytes"] for one in environments),
            "folder": str(layout().environments),
        },
    ]
    if as_json:
        print_json(kept)
        return
    rows = [(one["what"], str(one["count"]), size(one["size_bytes"]), one["folder"]) for one in kept]
    print_table(("WHAT", "COUNT", "SIZE", "FOLDER"), rows, none="nothing")


@command.command("prune")
@click.option("--limit", default="", metavar="SIZE", help="How much to keep, as '2 GB'; nothing by default.")
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
    told = ask("prune", seconds=600.0, limit_bytes=limit_bytes)
    if as_json:
        print_json(told)
    else:
        note(f"removed {told['removed']} blobs, {size(told['removed_bytes'])}")


@command.command("path")
def path() -> None:
    """Print the folder of the cache."""
    click.echo(layout().home / "cache")
