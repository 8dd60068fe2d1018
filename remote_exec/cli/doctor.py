"""``remote-exec doctor``: the first thing that is wrong, and its fix."""

from __future__ import annotations

import click

from .host import complete_hosts
from .show import json_option, note, print_json, print_table


@click.command()
@click.argument("name", required=False, metavar="[HOST]", shell_complete=complete_hosts)
@json_option
def command(name: str | None, *, as_json: bool) -> None:
    """Check, one after the other, all that a call needs: it makes one, and so starts the agent.

    With HOST, or an instance type, the way there is walked: its configuration, name, port, key and login, what is
    there, the agent, a call. The exit code is 1 if something is wrong.

    \b
    Examples:
      remote-exec doctor
      remote-exec doctor gpu
      remote-exec doctor --json | jq -r '.[] | select(.status == "wrong") | .fix'
    """
    from .checks import examine

    if name is None or name == "local":
        found = examine()
    else:
        from .far_checks import examine_host

        found = examine_host(name)
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
