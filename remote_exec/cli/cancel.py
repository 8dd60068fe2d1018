"""``remote-exec cancel``: stop jobs."""

from __future__ import annotations

import contextlib
import time

import click

from .host import ask, complete_jobs, on_option
from .show import json_option, note, print_json

WAIT_SECONDS = 60.0  # interrupting, terminating and killing take some
NAP_SECONDS = 0.05


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="JOB...", shell_complete=complete_jobs)
@click.option("--wait", is_flag=True, help="Return when they are gone, and their memory and GPUs free.")
@on_option
@json_option
def command(names: tuple[str, ...], *, wait: bool, as_json: bool) -> None:
    """Stop jobs: each is interrupted, then terminated, then killed.

    \b
    Examples:
      remote-exec cancel train-1 train-2
      remote-exec cancel --wait train-1 && remote-exec run train.py
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
    done = "stopped" if wait else "being stopped"
    if wait:
        deadline = time.monotonic() + WAIT_SECONDS
        for one in told:
            if one["cancelled"]:
                _await_end(str(one["name"]), deadline)
    if as_json:
        print_json(told)
    else:
        for one in told:
            if one["found"]:
                note(f"{one['name']}: {done if one['cancelled'] else 'has ended already'}")
    if not all(one["found"] for one in told):
        raise click.exceptions.Exit(1)


def _await_end(name: str, deadline: float) -> None:
    from ..model.errors import HostUnavailable, JobNotFound

    with contextlib.suppress(JobNotFound):  # a call that was not kept has ended, too
        while (state := ask("job", name=name)["job"]["state"]) in ("queued", "running"):
            if time.monotonic() > deadline:
                raise HostUnavailable(f"{name} is still {state}", hint=f"remote-exec stack {name}")
            time.sleep(NAP_SECONDS)
