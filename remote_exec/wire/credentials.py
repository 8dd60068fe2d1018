"""Who is at the other end of a unix socket."""

from __future__ import annotations

import socket
import struct


def peer_uid(sock: socket.socket) -> int:
    """Return the user id of the process at the other end of a unix socket, as the kernel vouches for it.

    Raises:
        OSError: the socket is none of these.
    """
    if hasattr(socket, "SO_PEERCRED"):
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", credentials)[1])
    # LOCAL_PEERCRED of macOS and the BSDs: struct xucred begins with a version and the uid
    credentials = sock.getsockopt(0, 1, 128)
    return int(struct.unpack_from("iI", credentials)[1])
