"""``remote-exec shell``: a shell, or a command, on a host."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from ..backends.host import Host
from .host import complete_hosts


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("name", metavar="HOST", shell_complete=complete_hosts)
@click.argument("words", nargs=-1, metavar="[-- COMMAND...]", type=click.UNPROCESSED)
def command(name: str, words: tuple[str, ...]) -> None:
    """Open the user's shell on HOST (or an instance type), or run COMMAND there, and exit as that does.

    It goes over the connection that calls use, and starts where `remote-exec sync` has brought the current folder,
    else at home.

    \b
    Examples:
      remote-exec shell gpu
      remote-exec shell gpu -- nvidia-smi -l 1
      remote-exec shell gpu -- sh -c 'du -sh * | sort -h'
    """
    from ..backends.access import access_to
    from ..client.naming import host_named
    from ..model.errors import HostUnavailable

    host, words = host_named(name), words[1:] if words[:1] == ("--",) else words
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    argv = access_to(host).shell(words, folder=_folder_there(host), terminal=terminal)
    sys.stdout.flush()
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - its signals and exit code are the command's
    except FileNotFoundError:
        raise HostUnavailable(f"there is no {argv[0]} on this machine", hint=f"install {argv[0]}") from None


def _folder_there(host: Host) -> str:
    from ..client import inventory

    noted = inventory.find(host)
    here = Path.cwd()
    for folder in (here, *here.parents):
        there = noted.folders.get(str(folder)) if noted is not None else None
        if there is not None:
            return there
    return ""
