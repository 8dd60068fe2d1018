"""The far end of a tunnel, as a process: its standard input and output are the stream.

For each connection that the near end opens it makes one to the agent's unix socket, or to a port of its host. It ends
when its input does, when its output breaks, or when nothing has been heard for a while; the connections end with it.
It holds no state: the agent and its workers see connections, and what becomes of a call whose connection is cut is
theirs to decide.
"""

from __future__ import annotations

import os
import socket
import struct
import sys

from ..wire.pump import Descriptors, Pump
from ..wire.tunnel import ENDED, TunnelEnd

CONNECT_SECONDS = 2  # an agent whose queue of connections is full, and stays so
SILENT_BEATS = 20  # the near end is a user's process: it may be stopped for some minutes


def main(target: str) -> int:
    """Relay until the stream ends; return the exit code.

    Args:
        target: where connections lead to; see `connect`.
    """
    reading, writing = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)  # what is printed by mistake must not go into the stream
    os.chdir("/")
    pump = Pump(
        TunnelEnd(opens=False),
        Descriptors(reading, writing),
        on_open=lambda: connect(target),
        silent_beats=SILENT_BEATS,
    )
    why = pump.run()
    pump.end_connections()
    pump.drain()
    if why != ENDED:
        print(f"the far end of the tunnel gave up: {why}", file=sys.stderr)
        return 1
    return 0


def connect(target: str) -> socket.socket:
    """Return a connection to a unix socket, or to a port of this machine's own address.

    Args:
        target: the socket's path, or the port's number.

    Raises:
        OSError: there is none to be had; its text tells of what.
    """
    if target.isdecimal():
        return _connect_to_port(int(target))
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", CONNECT_SECONDS, 0))
        sock.connect(target)
    except BlockingIOError:
        sock.close()
        raise OSError(f"{target} accepts no connection") from None
    except OSError as error:
        sock.close()
        raise OSError(f"{target}: {error.strerror or error}") from None
    return sock


def _connect_to_port(port: int) -> socket.socket:
    try:
        sock = socket.create_connection(("localhost", port), timeout=CONNECT_SECONDS)
    except OSError as error:
        raise OSError(f"port {port}: {error.strerror or error}") from None
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock
