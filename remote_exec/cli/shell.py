"""``remote-exec shell``: a shell, or a command, on a host or where a job runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from ..backends.host import Host
from .host import ask, chosen, complete_hosts, complete_jobs, far_host, on_option
from .show import note

# Its text goes to the job's host, and is run by the interpreter that the job runs in.
_ENTER = """
import os, sys
pid, words = sys.argv[1], sys.argv[2:]
try:
    with open(f"/proc/{pid}/environ", "rb") as file:
        told = [one.partition(b"=") for one in file.read().split(bytes(1)) if b"=" in one]
    os.chdir(f"/proc/{pid}/cwd")
except OSError as error:
    sys.exit(f"the job's process {pid} cannot be entered: {error.strerror}")
variables = {name: value for name, _, value in told if name not in (b"PWD", b"OLDPWD")}
here = os.environb
variables.update({name: here[name] for name in (b"TERM", b"COLORTERM", b"SSH_AUTH_SOCK", b"SHELL") if name in here})
words = words or [os.environ.get("SHELL") or "/bin/sh"]
try:
    os.execvpe(words[0], words, variables)
except OSError as error:
    sys.exit(f"{words[0]}: {error.strerror}")
"""


def _complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [*complete_hosts(context, parameter, incomplete), *complete_jobs(context, parameter, incomplete)]


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("name", metavar="HOST|JOB", shell_complete=_complete)
@click.argument("words", nargs=-1, metavar="[-- COMMAND...]", type=click.UNPROCESSED)
@on_option
def command(name: str, words: tuple[str, ...]) -> None:
    """Open the user's shell on HOST (or an instance type), or run COMMAND there, and exit as that does.

    It goes over the connection that calls use, and starts where `remote-exec sync` has brought the current folder,
    else at home. For a job that runs it starts in the folder of its process, with the environment variables that
    this began with: `python` is the job's own. With --on, the name is always a job's.

    \b
    Examples:
      remote-exec shell gpu
      remote-exec shell gpu -- nvidia-smi -l 1
      remote-exec shell gpu -- sh -c 'du -sh * | sort -h'
      remote-exec shell train-1
      remote-exec shell train-1 -- python -m pip list
    """
    from ..model.errors import HostUnavailable

    words = words[1:] if words[:1] == ("--",) else words
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    host = _host_of(name)
    argv = _on(host, words, terminal) if host is not None else _beside(name, words, terminal)
    sys.stdout.flush()
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - its signals and exit code are the command's
    except FileNotFoundError:
        raise HostUnavailable(f"there is no {argv[0]} on this machine", hint=f"install {argv[0]}") from None


def _host_of(name: str) -> Host | None:
    """Return the host that is called so; None where it is a job's name.

    Raises:
        ConfigurationError: there is neither.
    """
    from ..client.naming import host_named
    from ..model.errors import ConfigurationError, JobNotFound

    if chosen() is not None:
        return None
    try:
        return host_named(name)
    except ConfigurationError:
        try:
            ask("job", name=name)
        except JobNotFound:
            pass
        else:
            return None
        raise


def _on(host: Host, words: tuple[str, ...], terminal: bool) -> list[str]:
    from ..backends.access import access_to

    return access_to(host).shell(words, folder=_folder_there(host), terminal=terminal)


def _beside(name: str, words: tuple[str, ...], terminal: bool) -> list[str]:
    """Return the command that runs one in the folder of a job's process, and with its variables.

    Raises:
        JobNotFound: it has no process now.
    """
    from ..backends.access import access_to
    from ..model.errors import JobNotFound

    told = ask("job", name=name)
    if told["job"]["state"] != "running" or not told["attempts"]:
        waits = told["job"]["state"] == "queued"
        raise JobNotFound(
            f"{name} {'waits for ' + told['why'] if waits else 'has ended'}: it has no process",
            hint=f"remote-exec jobs {name}",
        )
    pid, host = str(told["attempts"][-1]["worker_pid"]), far_host(name)
    if terminal:
        note(f"{name} is process {pid} of {host.name if host is not None else 'this machine'}")
    python = sys.executable if host is None else f"/proc/{pid}/exe"
    enter = (python, "-I", "-S", "-c", _ENTER, pid, *words)
    return list(enter) if host is None else access_to(host).shell(enter, folder="", terminal=terminal)


def _folder_there(host: Host) -> str:
    from ..client import inventory

    noted = inventory.find(host)
    here = Path.cwd()
    for folder in (here, *here.parents):
        there = noted.folders.get(str(folder)) if noted is not None else None
        if there is not None:
            return there
    return ""
