"""Answers to what `remote-exec` asks about the host itself: how busy it is, what is kept, a folder brought, a port.

Each reads or writes files, so it is answered from a thread; the journal is read before, in the loop's.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..wire.messages import to_plain
from ..worker import usage
from . import contents, syncing

if TYPE_CHECKING:
    from .service import Agent

Send = Callable[..., None]

CONNECT_SECONDS = 2.0


def tell_usage(agent: Agent, arguments: dict[str, Any], send: Send) -> None:
    """Tell what the host's processors, memory and GPUs are used for, and the processes `pids` with all they started."""
    pids = [int(pid) for pid in arguments["pids"]]
    gpus = agent.gpu_watch.tell()

    def look() -> dict[str, Any]:
        found = usage.sample(pids)
        return {
            **found._asdict(),
            "workers": [[pid, *use] for pid, use in found.workers.items()],
            "gpus": gpus(),
        }

    _in_thread(agent, look, send)


def tell_contents(agent: Agent, _: dict[str, Any], send: Send) -> None:
    """Tell all that is kept, the largest first."""
    noted = contents.noted_in(agent.journal.database.read)
    pools = to_plain(agent.pools.infos(time.monotonic()))

    def look() -> list[dict[str, Any]]:
        return [one._asdict() for one in contents.contents(agent.layout, noted, pools)]

    _in_thread(agent, look, send)


def sync(agent: Agent, arguments: dict[str, Any], send: Send) -> None:
    """Bring a working copy up to date with a bundle that was sent before; see `syncing.bring`."""
    bundle, files = str(arguments["bundle"]), arguments["files"]
    name, origin = str(arguments["name"]), str(arguments["origin"])
    folder, bundles = agent.layout.home / "sync", agent.layout.bundles
    _in_thread(agent, lambda: syncing.bring(folder, bundles, bundle, files, name=name, origin=origin), send)


def tell_port(agent: Agent, arguments: dict[str, Any], send: Send) -> None:
    """Tell whether something listens at a port of this host's own address."""
    port = int(arguments["port"])

    def look() -> dict[str, Any]:
        try:
            socket.create_connection(("localhost", port), timeout=CONNECT_SECONDS).close()
        except OSError as error:
            return {"listens": False, "why": error.strerror or str(error)}
        return {"listens": True}

    _in_thread(agent, look, send)


def _in_thread(agent: Agent, work: Callable[[], Any], send: Send) -> None:
    def done(told: Any, error: BaseException | None) -> None:
        send({"told": told, "reason": "" if error is None else f"{type(error).__name__}: {error}"})

    agent.reactor.in_thread(work, done)
