"""The short way to the agent of a container on this machine: the folder of its sockets is one of this machine's.

Where the engine's files are this machine's, a connection then needs no tunnel, and costs what a local one does. It is a
short cut only: where it does not work (an engine in a virtual machine, a folder that a logout removed) the tunnel does.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from pathlib import Path
from typing import Any

from ...model.layout import Layout
from ...wire.credentials import peer_uid
from ...worker.private import make_private_folder
from ..local import make_sure_of
from .engine import Engine

LONGEST_PATH = 100  # of a unix socket, on every system


def share_sockets(engine: Engine, config: dict[str, Any], name: str, target: str) -> None:
    """Have a container that is to be made show its agent's sockets in a folder here, where that can work.

    Args:
        engine: where it is to be made.
        config: of the container; gets one more mount.
        name: of the container.
        target: the folder of the agent's sockets in it.
    """
    folder = Layout.of(os.environ).sockets.parent / f"c{name[-8:]}"
    if config["User"].partition(":")[0] != str(os.getuid()):
        return  # an agent speaks with its own user only
    if len(str(folder)) + len("/agent") > LONGEST_PATH or not _is_this_machine(engine):
        return
    _make(folder)
    config["HostConfig"]["Mounts"].append({"Type": "bind", "Source": str(folder), "Target": target})


def _is_this_machine(engine: Engine) -> bool:
    """Whether an engine's containers see this machine's files, as the users that they are here."""
    if not engine.endpoint.is_here:
        return False
    info = engine.info
    if (info.get("Name"), info.get("KernelVersion")) != (socket.gethostname(), os.uname().release):
        return False
    if info.get("Rootless"):  # as Podman says it
        return False
    return not any(word in str(info.get("SecurityOptions")) for word in ("userns", "rootless", "selinux"))


def prepare_sockets(found: dict[str, Any], target: str) -> None:
    """Make the folder that a container shows its sockets in, if it is gone, before it is started.

    Args:
        found: what the engine knows of the container.
        target: as for `share_sockets`.
    """
    folder = socket_folder(found, target)
    if folder is not None:
        _make(folder)


def _make(folder: Path) -> None:
    for private in (folder.parent, folder):
        make_private_folder(private)
        make_sure_of(private)


def remove_sockets(found: dict[str, Any], target: str) -> None:
    """Remove the folder of a container that is gone."""
    folder = socket_folder(found, target)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def socket_folder(found: dict[str, Any], target: str) -> Path | None:
    """Return the folder here in which a container shows its agent's sockets; None where it does not."""
    for mount in found["HostConfig"].get("Mounts") or ():
        if mount["Target"] == target and mount["Type"] == "bind":
            return Path(mount["Source"])
    return None


def connect(folder: Path | None) -> socket.socket | None:
    """Return a connection to the agent, or None where there is no short way to it.

    Args:
        folder: where its sockets show; None: nowhere.
    """
    if folder is None:
        return None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.suppress(OSError):
        for private in (folder.parent, folder):
            make_sure_of(private)
        sock.connect(str(folder / "agent"))
        if peer_uid(sock) == os.getuid():
            return sock
    sock.close()
    return None
