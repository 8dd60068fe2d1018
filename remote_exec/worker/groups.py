"""What a worker does for a call that is one of a group's: its place in variables, and nothing left of it afterwards."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import threading
from collections.abc import Generator
from typing import Any

from ..model.group import Group
from . import context

LEAVE_SECONDS = 5.0
INTERFACE = "GLOO_SOCKET_IFNAME"
SIOCGIFADDR = 0x8915


def free_port() -> int:
    """Return a port of this host that nobody listens on now."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("", 0))
        port: int = sock.getsockname()[1]
        return port


@contextlib.contextmanager
def member(group: Group) -> Generator[None, None, None]:
    """Be this one of a group: for `current_job`, and for all libraries that look at the usual variables."""
    variables = group.variables | _interface_variables(group.address)
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    context.set_group(group)
    try:
        yield
    finally:
        context.set_group(None)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _interface_variables(address: str) -> dict[str, str]:
    """Tell Gloo the interface that leads to rank 0's host: else it takes the one that the host's own name means.

    That is often the loopback interface, by which other hosts cannot reach this one.
    """
    if INTERFACE in os.environ:
        return {}
    name = interface_towards(address)
    return {INTERFACE: name} if name else {}


def interface_towards(address: str) -> str:
    """Return the name of the interface that leads to another host; "" where there is none, or it is not known."""
    if sys.platform != "linux":
        return ""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.connect((address, 9))  # which sends nothing
        own = sock.getsockname()[0]
        for _, name in socket.if_nameindex() if not own.startswith("127.") else ():
            with contextlib.suppress(OSError):  # it has no address
                request = struct.pack("256s", name.encode())
                if socket.inet_ntoa(fcntl.ioctl(sock, SIOCGIFADDR, request)[20:24]) == own:
                    return name
    return ""


def leave_process_group(*, sound: bool) -> bool:
    """Let go of a process group of PyTorch's that the function has left: the next call makes one of its own.

    After the outcome has been told, since the other ranks may fail by it.

    Args:
        sound: whether the function has returned; what one that failed has left is of no use to anybody.

    Returns:
        Whether this process is as good as before.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_initialized():
        return True
    if not sound:
        return False
    leaving = threading.Thread(target=_destroy, args=(distributed,), daemon=True)
    leaving.start()
    leaving.join(LEAVE_SECONDS)
    return not leaving.is_alive() and not distributed.is_initialized()


def _destroy(distributed: Any) -> None:
    with contextlib.suppress(Exception):
        distributed.destroy_process_group()
