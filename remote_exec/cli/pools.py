"""``remote-exec pools``: warm workers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import compress
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from ..model.layout import Layout
from .env import SHORT
from .host import COMPLETION_SECONDS, ask, home_there, on_option, running
from .show import duration, json_option, note, print_json, print_table, size

COLUMNS = (
    "POOL", "USED BY", "INSTANCE TYPE", "WORKERS", "IN USE", "QUEUED", "KEPT FOR", "CLAIMS", "ENVIRONMENT", "NOTE"
)  # fmt: skip
SELDOM = ("KEPT FOR", "CLAIMS", "NOTE")  # these are left out where no pool has them


@click.group("pools", invoke_without_command=True)
@on_option
@json_option
@click.pass_context
def command(context: click.Context, *, as_json: bool) -> None:
    """List the pools of warm workers: by whose calls they are used, and what each of their workers has.

    Workers of a pool have the same environment, variables and claims. Pools that have no worker are left out, unless
    somebody waits for one.

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
    used = in_use(pools)
    print_table(*table_of(used, home_there() if used else ""), none="no pools: nothing is warm")


def in_use(pools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out pools that have no worker, and that nobody waits for: they are gone within a minute."""
    return [pool for pool in pools if pool["workers"] or pool["queued"]]


def table_of(pools: list[dict[str, Any]], home: str) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the headings and cells of pools.

    Args:
        pools: as the agent tells of them.
        home: its state directory.
    """
    rows = [_row_of(pool, home) for pool in pools]
    shown = [name not in SELDOM or any(cells) for name, *cells in zip(COLUMNS, *rows, strict=True)]
    return tuple(compress(COLUMNS, shown)), [tuple(compress(row, shown)) for row in rows]


def _row_of(pool: dict[str, Any], home: str) -> tuple[str, ...]:
    workers = pool["workers"]
    return (
        pool["key"],
        users_of(pool),
        pool.get("instance_type", ""),
        f"{len(workers)}/{pool['max_workers']}",
        str(sum(worker["state"] == "InUse" for worker in workers)),
        str(pool["queued"]),
        duration(pool["keep_alive_seconds"] or None),
        _claims(pool["shape"]),
        environment_of(pool, home),
        pool["note"],
    )


def users_of(pool: Mapping[str, Any]) -> str:
    """Return whose calls a pool is used by: functions and notebooks, the last ones first."""
    return ", ".join(pool.get("asked_by", ()))


def environment_of(pool: Mapping[str, Any], home: str) -> str:
    """Return a pool's Python for people: its version, and the built environment's digest, or the path from home.

    Args:
        pool: it, or a worker of it.
        home: the state directory of its agent.
    """
    version, where = pool.get("python_version", ""), _place_of(pool["python"], home)
    return " ".join(part for part in (version, where) if part)


def _place_of(python: str, home: str) -> str:
    built, user = str(Layout(Path(home), Path(home)).environments), os.path.expanduser("~")
    if python.startswith(built + os.sep):
        return f"env {python[len(built) + 1 :][:SHORT]}"
    return f"~{python[len(user) :]}" if python.startswith(user + os.sep) else python


def _claims(shape: dict[str, Any]) -> str:
    cpus, gpus = shape["cpus"], shape["gpus"]
    parts = (
        cpus and f"{cpus:g} cpu{'s' * (cpus != 1)}",
        shape["memory_bytes"] and size(shape["memory_bytes"]),
        gpus and f"{gpus:g} gpu{'s' * (gpus > 1)} {shape['gpu_type']}".rstrip(),
    )
    return ", ".join(part for part in parts if part)


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
