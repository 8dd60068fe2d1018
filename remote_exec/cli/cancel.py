"""``remote-exec cancel``: stop jobs."""

from __future__ import annotations

import click

from .host import ask, complete_jobs
from .show import json_option, note, print_json


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="JOB...", shell_complete=complete_jobs)
@json_option
def command(names: tuple[str, ...], *, as_json: bool) -> None:
    """Stop jobs: each is interrupted, then terminated, then killed.

    \b
    Examples:
      remote-exec cancel train-1 train-2
      remote-exec jobs --state running --json | jq -r '.[].name' | xargs remote-exec cancel
    """
    from ..model.errors import JobNotFound
    from .errors import say_error

    told: list[dict[str, object]] = []
    for name in names:
        try:
            told.append({"name": name, "found": True, **ask("cancel", name=name)})
        except JobNotFound as error:
            told.append({"name": name, "found": False, "cancelled": False})
            say_error(error.message, hint=error.hint)
    if as_json:
        print_json(told)
    else:
        for one in told:
            if one["found"]:
                note(f"{one['name']}: {'being stopped' if one['cancelled'] else 'has ended already'}")
    if not all(one["found"] for one in told):
        raise click.exceptions.Exit(1)
