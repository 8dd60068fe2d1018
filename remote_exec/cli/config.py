"""``remote-exec config``: each option's value, and the place that set it."""

from __future__ import annotations

import os
from pathlib import Path

import click

from .show import json_option, note, print_json, print_table


@click.group("config", invoke_without_command=True)
@json_option
@click.pass_context
def command(context: click.Context, *, as_json: bool) -> None:
    """Show what the configuration comes to here, and which files it is read from.

    Highest first: the call, the decorator, environment variables, the instance type's table, the project file
    (pyproject.toml, [tool.remote_exec]), the user file, SageMaker's configuration, the default.

    \b
    Examples:
      remote-exec config show
      remote-exec config show --set --json
      remote-exec config path
    """
    if context.invoked_subcommand is None:
        context.invoke(show, as_json=as_json)


@command.command("show")
@click.option("--set", "only_set", is_flag=True, help="Only what something has set.")
@json_option
def show(*, only_set: bool = False, as_json: bool = False) -> None:
    """Show every option with its value and its source."""
    from ..config import load_config

    config = load_config()
    found = [one for one in config.explain() if not only_set or one.source != "default"]
    if as_json:
        print_json([one._asdict() for one in found])
    else:
        print_table(("OPTION", "VALUE", "SOURCE"), found, none="nothing is set: every option has its default")
    for sentence in config.notes:
        note(f"note: {sentence}")


@command.command("path")
@json_option
def path(*, as_json: bool) -> None:
    """Print the configuration files that are read here, highest first."""
    from ..config import load_config

    read = [str(file) for file in load_config().files]
    if as_json:
        print_json({"read": read, "user_file": str(_user_file())})
        return
    for file in read:
        click.echo(file)
    if str(_user_file()) not in read:
        note(f"{_user_file()} would be read, but is not there")


def _user_file() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return Path(base if os.path.isabs(base) else Path.home() / ".config", "remote_exec", "config.toml")
