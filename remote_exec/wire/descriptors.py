"""Receiving descriptors over a unix socket. (The standard library's `socket.recv_fds` ignores its flags.)"""

from __future__ import annotations

import array
import os
import socket

_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


def receive(sock: socket.socket, size: int, most: int, flags: int = 0) -> tuple[bytes, list[int], bool]:
    """Read once; return the data, the descriptors that came along, and whether some more were lost.

    Args:
        sock: a unix socket.
        size: how many bytes to read at most.
        most: how many descriptors to take at most; more are lost.
        flags: as for ``recvmsg``.

    Raises:
        OSError: the stream has broken; `BlockingIOError` where nothing was there.
    """
    fds = array.array("i")
    space = socket.CMSG_SPACE(most * fds.itemsize)
    data, ancillary, told, _ = sock.recvmsg(size, space, flags | _CLOSE_ON_EXEC)
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    if not _CLOSE_ON_EXEC:
        for fd in fds:
            os.set_inheritable(fd, False)
    return data, fds.tolist(), bool(told & socket.MSG_CTRUNC) or len(fds) > most
