"""``remote-exec debug``: pdb on what was kept of the frames of a job or call that failed."""

from __future__ import annotations

import sys

import click

from .host import job_argument, on_option
from .result import outcome_of
from .show import note


@click.command()
@job_argument
@on_option
def command(name: str) -> None:
    """Open pdb on the frames of a job or call that failed, wherever and whenever that was.

    where, up, down, list, p and pp work. Small locals are there as values, others as their remote repr; what
    looks secret is masked.

    \b
    Example:
      remote-exec debug train-1
    """
    from ..model.errors import JobNotFound
    from ..serial import failures, postmortem

    failure = outcome_of(name, wait=False).failure
    if failure is None:
        raise JobNotFound(
            f"{name} did not fail: there is nothing to debug", hint=f"remote-exec result {name}"
        )
    note(failures.format(failure).rstrip())
    try:
        if sys.stdin.isatty():
            postmortem.post_mortem(failure)
        else:
            postmortem.post_mortem(failure, stdin=sys.stdin, stdout=sys.stdout)
    except ValueError as error:
        raise JobNotFound(str(error)) from None
