"""A control stream over a unix socket: messages with descriptors, queued when the socket is full.

Used by agent, fork server and worker (non-blocking, inside their loops) and by the client's session (blocking).
Descriptors travel with the first byte of their message; the receiver gets them in the order sent.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from typing import Any, NamedTuple

from ..model.errors import ProtocolError
from . import descriptors
from .messages import MessageReader, encode

MAX_QUEUED = 256 << 20  # bytes; a peer that reads nothing for so long is cut off
MAX_FDS = 32  # of one message: a worker may hold sixteen GPUs


class Received(NamedTuple):
    """One message and its body. Its descriptors are taken from the stream, by who knows how many they are."""

    message: Any
    body: bytes


class ControlStream:
    """One end of a control stream; one owner thread unless the owner locks.

    Args:
        sock: a connected unix stream socket, blocking or not; the stream owns it from now on.

    Example::

        stream.send(protocol.Fork(1, {}), fds=(theirs.fileno(),))
        for message, body in stream.receive() or ():
            ...
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fds: deque[int] = deque()  # received and not yet taken
        self._reader = MessageReader()
        self._queue: deque[tuple[memoryview, list[int]]] = deque()
        self._queued_size = 0
        self.closed = False

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self.sock.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether something waits for the socket to take more."""
        return bool(self._queue)

    def send(self, message: object, body: bytes | memoryview = b"", fds: tuple[int, ...] = ()) -> None:
        """Send what can be sent now, queue the rest; descriptors are duplicated while they wait.

        Args:
            message: one of `protocol`'s.
            body: bytes that JSON should not carry.
            fds: descriptors to go along, at most `MAX_FDS`; they stay the caller's.

        Raises:
            ProtocolError: the message is over a bound.
            OSError: the peer is gone, or has not read for too long.
        """
        if len(fds) > MAX_FDS:
            raise ProtocolError(f"{len(fds)} descriptors are more than one message can carry")
        data = memoryview(encode(message, body))
        if self.closed:
            raise ConnectionError("this end of a control stream is closed")
        if self._queued_size + len(data) > MAX_QUEUED:
            raise ConnectionError("the peer of a control stream does not read")
        waiting: list[int] = []
        self._queue.append((data, waiting))
        for fd in fds:
            waiting.append(os.dup(fd))
        self._queued_size += len(data)
        self.flush()

    def flush(self) -> None:
        """Send as much as the socket takes.

        Raises:
            OSError: the peer is gone.
        """
        while self._queue:
            data, fds = self._queue[0]
            try:
                if fds:
                    sent = socket.send_fds(self.sock, [data], fds)
                    while fds:
                        os.close(fds.pop())
                else:
                    sent = self.sock.send(data)
            except BlockingIOError:
                return
            self._queued_size -= sent
            if sent == len(data):
                self._queue.popleft()
            else:
                self._queue[0] = (data[sent:], [])

    def receive(self) -> list[Received] | None:
        """Read once; return the messages that are whole now, or None at the end of the stream.

        Raises:
            ProtocolError: the peer does not speak this protocol.
            OSError: the stream has broken.
            BlockingIOError: nothing was there, on a non-blocking socket.
        """
        data, fds, lost = descriptors.receive(self.sock, 1 << 16, MAX_FDS)
        self.fds.extend(fds)
        if lost:
            raise ProtocolError(
                "descriptors were lost: more came than a message may carry, or than can be open"
            )
        if len(self.fds) > MAX_FDS * 4:
            raise ProtocolError("descriptors came that no message asked for")
        if not data:
            return None
        return [Received(message, body) for message, body in self._reader.feed(data)]

    def take_fds(self, count: int) -> list[int]:
        """Return the next `count` descriptors; the caller owns them.

        Raises:
            ProtocolError: the message said that more would come than did.
        """
        if not 0 <= count <= len(self.fds):
            raise ProtocolError("a message came without its descriptors")
        return [self.fds.popleft() for _ in range(count)]

    def close(self) -> None:
        """Close the socket and every descriptor not taken; harmless when repeated."""
        self.closed = True
        self.sock.close()
        for fd in self.fds:
            os.close(fd)
        for _, fds in self._queue:
            for fd in fds:
                os.close(fd)
        self.fds.clear()
        self._queue.clear()
        self._queued_size = 0
