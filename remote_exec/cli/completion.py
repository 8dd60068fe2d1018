"""``remote-exec completion``: the line that turns completion on."""

from __future__ import annotations

import click

from .show import note

LINES = {
    "bash": 'eval "$(_REMOTE_EXEC_COMPLETE=bash_source remote-exec)"',
    "zsh": 'eval "$(_REMOTE_EXEC_COMPLETE=zsh_source remote-exec)"',
    "fish": "_REMOTE_EXEC_COMPLETE=fish_source remote-exec | source",
}
FILES = {"bash": "~/.bashrc", "zsh": "~/.zshrc", "fish": "~/.config/fish/completions/remote-exec.fish"}


@click.command()
@click.argument("shell", type=click.Choice(tuple(LINES)))
def command(shell: str) -> None:
    """Print the line that turns on completion of commands, flags and job names.

    \b
    Example:
      remote-exec completion bash >> ~/.bashrc
    """
    click.echo(LINES[shell])
    note(f"put this line into {FILES[shell]}, and open a new shell")
