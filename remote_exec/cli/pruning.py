"""What `remote-exec hosts prune` removes: notes of hosts that are gone, their sockets here, containers not in use."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from .host import layout
from .show import note

GONE_SECONDS = 30 * 86400.0
LOOK_SECONDS = 15.0

Removed = tuple[str, str]  # what, and why


def prune_hosts() -> Iterator[Removed]:
    """Forget the hosts in the inventory that are gone. One that was reached lately and is silent now is not."""
    from ..backends.access import access_to
    from ..client import inventory

    known = inventory.known()
    found: dict[str, bool] = {}  # whether the state directory is there, of those that answer

    def look(one: inventory.Known) -> None:
        with contextlib.suppress(Exception):  # whatever it is, it is no answer
            found[one.key] = bool(access_to(one.host).look()["there"])

    threads = [threading.Thread(target=look, args=(one,), daemon=True) for one in known]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + LOOK_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    for one in known:
        if found.get(one.key):
            continue
        if one.key in found:
            why = "nothing of ours is there"
        elif time.time() - one.reached_at > GONE_SECONDS:
            why = "it does not answer, and has not been reached for 30 days"
        else:
            note(f"{one.host.name} does not answer; it was reached lately, and stays")
            continue
        with contextlib.suppress(Exception):
            access_to(one.host).close()
        inventory.forget(one.host)
        yield one.host.name, why


def prune_folders() -> Iterator[Removed]:
    """Remove folders of sockets whose connection has ended and whose host nobody knows."""
    from ..client.naming import far_hosts

    kept = {getattr(host, "folder", None) for host in far_hosts()}
    for folder in layout().sockets.parent.glob("h" + "[0-9a-f]" * 8):
        if folder not in kept and not _listens(folder / "m"):
            shutil.rmtree(folder, ignore_errors=True)
            yield str(folder), "its connection has ended, and its host is not known"


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(str(path))
        except OSError:
            return False
        return True


def prune_containers() -> Iterator[Removed]:
    """Remove containers of ours that do not run, with their volumes, from the engines of the configuration."""
    from ..config import load_config
    from ..model.errors import RemoteExecError

    names = {
        str(instance.settings.get("engine", ""))
        for instance in load_config().instances.values()
        if instance.backend == "docker"
    }
    for name in sorted(names):
        from ..backends.docker import kept
        from ..backends.docker.engine import close_engines, open_engine

        try:
            for one in kept.prune(open_engine(name)):
                yield f"{one.kind} {one.name}", one.detail or f"its state was {one.state}"
        except RemoteExecError as error:
            note(f"the containers of {name or 'the default engine'} were not looked at: {error.message}")
        finally:
            close_engines()
