"""``remote-exec pools``: warm workers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from ..model.layout import Layout
from .env import SHORT
from .host import COMPLETION_SECONDS, ask, home_there, on_option, running
from .show import duration, json_option, note, print_json, print_table, size

COLUMNS = ("POOL", "WORKERS", "IN USE", "QUEUED", "REUSES", "KEPT FOR", "SHAPE", "ENVIRONMENT", "NOTE")


@click.group("pools", invoke_without_command=True)
@on_option
@json_option
@click.pass_context
def command(context: click.Context, *, as_json: bool) -> None:
    """List the pools of warm workers: those of one environment, its variables and one shape.

    \b
    Examples:
      remote-exec pools --json
      remote-exec pools release               end all idle workers, and the others when they are
      remote-exec pools release 8f98a6650d
    """
    if context.invoked_subcommand is not None:
        return
    pools: list[dict[str, Any]] = ask("host")["pools"] if running() else []
    if as_json:
        print_json(pools)
        return
    home = home_there() if pools else ""
    print_table(COLUMNS, [row_of(pool, home) for pool in pools], none="no pools: nothing is warm")


def row_of(pool: dict[str, Any], home: str) -> tuple[str, ...]:
    """Return one pool's cells, under `COLUMNS`."""
    workers = pool["workers"]
    return (
        pool["key"],
        f"{len(workers)}/{pool['max_workers']}",
        str(sum(worker["state"] == "InUse" for worker in workers)),
        str(pool["queued"]),
        str(sum(worker["reuses"] for worker in workers)),
        duration(pool["keep_alive_seconds"]),
        _shape(pool["shape"]),
        environment_of(pool["python"], home),
        pool["note"],
    )


def environment_of(python: str, home: str) -> str:
    """Return where a pool's Python belongs, for people: a built environment's digest, or the path from home.

    Args:
        python: its path.
        home: the state directory of its agent.
    """
    built, user = str(Layout(Path(home), Path(home)).environments), os.path.expanduser("~")
    if python.startswith(built + os.sep):
        return f"env {python[len(built) + 1 :][:SHORT]}"
    return f"~{python[len(user) :]}" if python.startswith(user + os.sep) else python


def _shape(shape: dict[str, Any]) -> str:
    parts = (
        shape["cpus"] and f"{shape['cpus']:g} cpus",
        shape["memory_bytes"] and size(shape["memory_bytes"]),
        shape["gpus"] and f"{shape['gpus']:g} gpus {shape['gpu_type']}".rstrip(),
    )
    return ", ".join(part for part in parts if part) or "any"


def _complete(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from ..model.errors import RemoteExecError

    try:
        pools = ask("host", seconds=COMPLETION_SECONDS)["pools"]
    except (RemoteExecError, OSError):
        return []
    return [CompletionItem(pool["key"]) for pool in pools if pool["key"].startswith(incomplete)]


@command.command("release")
@click.argument("key", required=False, shell_complete=_complete)
@on_option
def release(key: str | None) -> None:
    """End the idle workers of the pool whose key begins with KEY, or of all pools; those at work end after it."""
    from ..model.errors import ConfigurationError

    if not running():
        note("no agent runs on this machine: nothing is warm")
        return
    pools = [pool["key"] for pool in ask("host")["pools"]]
    chosen = [pool for pool in pools if pool.startswith(key or "")]
    if key and len(chosen) != 1:
        raise ConfigurationError(
            f"KEY must begin the key of one pool, not of {len(chosen)}: {key!r}", hint="remote-exec pools"
        )
    ask("release", pool=chosen[0] if key else "")
    note(f"released: {', '.join(chosen) or 'nothing was warm'}")
