"""``remote-exec stack``: what a running job is doing now."""

from __future__ import annotations

import re

import click

from .host import ask, job_argument, on_option
from .show import json_option, print_json

_MACHINERY = re.compile(r'  File "(<string>", line 1, in <module>|[^"]*/remote_exec_runtime/)')


@click.command()
@job_argument
@click.option("--all", "everything", is_flag=True, help="The frames of remote_exec itself, too.")
@on_option
@json_option
def command(name: str, *, everything: bool, as_json: bool) -> None:
    """Show the call stack of a running job. The job goes on undisturbed.

    \b
    Example:
      remote-exec stack train-1
    """
    from ..model.errors import HostUnavailable

    told = ask("stack", name=name)
    if told["silent"]:
        raise HostUnavailable(
            f"the worker of {name} (process {told['pid']}) does not answer: it is stopped, "
            "or holds the interpreter in compiled code",
            hint=f"py-spy dump --native --pid {told['pid']}",
        )
    text = told["stack"] if everything else _users_frames(told["stack"])
    print_json({"name": name, "pid": told["pid"], "stack": text}) if as_json else click.echo(text.rstrip())


def _users_frames(text: str) -> str:
    """Leave out the outermost frames: the machinery that called the function."""
    entries = re.split(r"(?m)^(?=  File )", text)
    first = next((n for n, entry in enumerate(entries) if entry and not _MACHINERY.match(entry)), 0)
    return "".join(entries[first:])
