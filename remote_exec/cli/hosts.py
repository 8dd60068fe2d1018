"""``remote-exec hosts``: the agent of this machine."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import click

from .host import ask, layout, listening_pid, process_state, running, session
from .show import duration, json_option, note, print_json, print_table, size

COLUMNS = ("HOST", "AGENT", "VERSION", "UP", "CPUS", "MEMORY", "GPUS", "POOLS", "CLIENTS", "HOME")
STOP_SECONDS = 10.0


@click.group("hosts", invoke_without_command=True)
@json_option
@click.pass_context
def command(context: click.Context, *, as_json: bool) -> None:
    """Show the agent of this machine: it starts with the first call, and ends when it has been idle for long.

    \b
    Examples:
      remote-exec hosts
      remote-exec hosts stop          its workers end too
      remote-exec hosts start         to read what earlier agents kept
    """
    if context.invoked_subcommand is not None:
        return
    hosts: list[dict[str, Any]] = [{"host": "local", **ask("host")}] if running() else []
    if as_json:
        print_json(hosts)
        return
    print_table(
        COLUMNS, [_row(host) for host in hosts], none=f"no agent runs on this machine ({layout().home})"
    )


def _row(host: dict[str, Any]) -> tuple[str, ...]:
    return (
        host["host"],
        str(host["pid"]),
        host["version"],
        duration(time.time() - host["started_at"]),
        f"{host['cpus']:g}",
        size(host["memory_bytes"]),
        ", ".join(host["gpus"]) or "none",
        str(len(host["pools"])),
        str(host["clients"] - 1),  # without this command
        host["home"],
    )


@command.command("start")
def start() -> None:
    """Start the agent, if none runs."""
    note(f"the agent runs: process {session(start=True).welcome.pid}")


@command.command("stop")
def stop() -> None:
    """Stop the agent and all its workers. Jobs that run fail; what is kept stays."""
    from ..backends import local
    from ..model.errors import HostUnavailable

    if not running():
        note("no agent runs on this machine")
        return
    try:
        pid = session().welcome.pid
        ask("stop")
    except HostUnavailable:
        pid = listening_pid()
        if not pid:
            raise
        os.kill(pid, signal.SIGTERM)  # it speaks another version's protocol, but knows this
    deadline = time.monotonic() + STOP_SECONDS
    while local.connect(layout()) is not None or _lives(pid):
        if time.monotonic() > deadline:
            raise HostUnavailable(
                f"the agent (process {pid}) has not ended in {STOP_SECONDS:g} s", hint=f"kill {pid}"
            )
        time.sleep(0.02)
    note(f"the agent (process {pid}) has ended")


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return process_state(pid) != "Z"
