"""``remote-exec doctor``: the first thing that is wrong, and its fix."""

from __future__ import annotations

import click

from .show import json_option, note, print_json, print_table


@click.command()
@json_option
def command(*, as_json: bool) -> None:
    """Check, one after the other, all that a call needs: it makes one, and so starts the agent.

    The exit code is 1 if something is wrong.

    \b
    Examples:
      remote-exec doctor
      remote-exec doctor --json | jq -r '.[] | select(.status == "wrong") | .fix'
    """
    from .checks import examine

    found = examine()
    if as_json:
        print_json([one._asdict() for one in found])
    else:
        print_table(
            ("CHECK", "STATUS", "FOUND"), [(one.name, one.status, one.found) for one in found], none=""
        )
    wrong = next((one for one in found if one.status == "wrong"), None)
    if wrong is not None:
        note(f"\nwrong: {wrong.name}: {wrong.found}\nhint: {wrong.fix}")
        raise click.exceptions.Exit(1)
    if not as_json:
        note("\nall is well")
