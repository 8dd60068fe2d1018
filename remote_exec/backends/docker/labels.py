"""What tells ours from what else an engine keeps: labels, on containers, volumes and images."""

from __future__ import annotations

import getpass
import os
import socket
import time

from .settings import ContainerSettings

KEY, OWNER, INSTANCE, CREATED, CLIENT, PYTHON = (
    f"remote_exec.{word}" for word in ("key", "owner", "instance", "created", "client", "python")
)


def labels_of(settings: ContainerSettings) -> dict[str, str]:
    """Return the labels of what is made now, for these settings, by this process."""
    return {
        OWNER: owner(),
        INSTANCE: settings.instance,
        CREATED: f"{time.time():.0f}",
        CLIENT: f"{socket.gethostname()}:{os.getpid()}",
    }


def owner() -> str:
    """Return whose containers ours are: an engine may serve several people."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid without a name
        return str(os.getuid())
