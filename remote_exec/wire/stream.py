"""A call stream as both ends use it: frames over a socket, big messages through shared arenas.

Blocking, and safe for several senders (a lock around each send); one reader at a time, which the owner sees to.
Knows nothing of calls.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections.abc import Sequence
from typing import Union

from ..model.errors import ProtocolError
from . import frames
from .arenas import THRESHOLD, ReceivingArenas, SendingArenas, pack_ids, unpack_ids
from .frames import HEADER, Frame, FrameReader

Buffer = Union[bytes, bytearray, memoryview]


def inline(
    kind: int,
    stream: Sequence[Buffer],
    buffers: Sequence[Buffer] = (),
    *,
    flags: int = 0,
    function: int = 0,
    call: int = 0,
    ack: int = 0,
) -> list[Buffer]:
    """Return what to send for one message when its buffers go over the stream itself."""
    if not buffers:
        return frames.pack(kind, stream, flags=flags, function=function, call=call, ack=ack)
    size = sum(len(part) for part in stream)
    table = struct.pack(f"<{len(buffers) + 1}Q", size, *[len(buffer) for buffer in buffers])
    parts = [table, *stream, *buffers]
    return frames.pack(kind, parts, flags=flags, count=len(buffers), function=function, call=call, ack=ack)


class CallStream:
    """One end of a call stream.

    Args:
        sock: a connected, blocking stream socket.
        fd_socket: a second one over which descriptors of arenas go, where both ends share a machine; None elsewhere.
    """

    def __init__(self, sock: socket.socket, fd_socket: socket.socket | None = None) -> None:
        self.sock = sock
        self.reader = FrameReader()
        self.send_lock = threading.Lock()
        self._fd_socket = fd_socket
        self._sending = SendingArenas(fd_socket) if fd_socket is not None else None
        self._receiving = ReceivingArenas(fd_socket) if fd_socket is not None else None
        self.closed = False

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self.sock.fileno()

    def frame(
        self,
        kind: int,
        stream: Sequence[Buffer],
        buffers: Sequence[Buffer] = (),
        *,
        flags: int = 0,
        function: int = 0,
        call: int = 0,
        ack: int = 0,
    ) -> list[Buffer]:
        """Return what to send for one message: a pickle stream and its out-of-band buffers."""
        size = sum(len(part) for part in stream)
        total = size + sum(len(buffer) for buffer in buffers)
        if total >= THRESHOLD and self._sending is not None:
            parts = [b"".join(stream) if len(stream) > 1 else stream[0], *buffers]
            payload = self._sending.pack(parts)
            return [
                HEADER.pack(len(payload), kind, flags | frames.ARENA, len(buffers), function, call, ack),
                payload,
            ]
        return inline(kind, stream, buffers, flags=flags, function=function, call=call, ack=ack)

    def parts(self, frame: Frame) -> tuple[Buffer, list[Buffer]]:
        """Return the pickle stream and the buffers of a message; the buffers are writable.

        Raises:
            ProtocolError: its lengths do not add up.
        """
        if frame.flags & frames.ARENA:
            if self._receiving is None:
                raise ProtocolError("an arena message came over a stream that has no arenas")
            views = self._receiving.unpack(frame.payload)
            return views[0], list(views[1:])
        if not frame.count:
            return frame.payload, []
        sizes = struct.unpack_from(f"<{frame.count + 1}Q", frame.payload)
        position = 8 * (frame.count + 1)
        if position + sum(sizes) != len(frame.payload):
            raise ProtocolError("a message's lengths do not add up")
        pieces: list[Buffer] = []
        for size in sizes:
            pieces.append(bytearray(frame.payload[position : position + size]))
            position += size
        return pieces[0], pieces[1:]

    def send(self, *messages: list[Buffer]) -> None:
        """Send whole messages, as `frame` or `frames.pack` made them, and what the arenas have to tell.

        Raises:
            OSError: the peer is gone.
        """
        pieces = self._notices()
        for one in messages:
            pieces += one
        with self.send_lock:
            self._send_all(pieces)

    def send_now(self, data: bytes) -> None:
        """Send bytes that are whole frames already: the short way for small calls."""
        if self._receiving is not None and self._receiving._released:  # noqa: SLF001
            data = b"".join([*self._notices(), data])
        with self.send_lock:
            self.sock.sendall(data)

    def try_send(self, message: list[Buffer]) -> bool:
        """Send a small message if it can be done without waiting; return whether it was."""
        data = b"".join(message)
        if not self.send_lock.acquire(blocking=False):
            return False
        try:
            poller = select.poll()
            poller.register(self.sock, select.POLLOUT)
            if not poller.poll(0):
                return False
            sent = self.sock.send(data, socket.MSG_DONTWAIT)
            if sent < len(data):
                self.sock.sendall(memoryview(data)[sent:])
        finally:
            self.send_lock.release()
        return True

    def next(self) -> Frame | None:
        """Return the next frame that has arrived whole; RELEASE and DROP are dealt with here."""
        while True:
            frame = self.reader.next()
            if frame is None or frame.kind < frames.RELEASE:
                return frame
            if frame.kind == frames.RELEASE and self._sending is not None:
                self._sending.released(unpack_ids(frame.payload))
            elif frame.kind == frames.DROP and self._receiving is not None:
                self._receiving.drop(unpack_ids(frame.payload))
            else:
                raise ProtocolError(f"a frame of unknown kind {frame.kind}")

    def fill(self, flags: int = 0) -> int:
        """Read once from the socket; return how many bytes came, 0 at the end of the stream.

        Raises:
            BlockingIOError: nothing was there (with MSG_DONTWAIT, or a receive timeout on the socket).
        """
        size = self.sock.recv_into(self.reader.space(), 0, flags)
        self.reader.filled(size)
        return size

    def receive(self) -> Frame | None:
        """Wait for the next frame; None at the end of the stream."""
        while True:
            frame = self.next()
            if frame is not None:
                return frame
            if not self.fill():
                return None

    def close(self) -> None:
        """Close both sockets; harmless when repeated."""
        self.closed = True
        self.sock.close()
        if self._fd_socket is not None:
            self._fd_socket.close()

    def _notices(self) -> list[Buffer]:
        pieces: list[Buffer] = []
        if self._receiving is not None and (released := self._receiving.take_released()):
            pieces += frames.pack(frames.RELEASE, [pack_ids(released)])
        if self._sending is not None and self._sending.dropped:
            dropped, self._sending.dropped = self._sending.dropped, []
            pieces += frames.pack(frames.DROP, [pack_ids(dropped)])
        return pieces

    def _send_all(self, pieces: list[Buffer]) -> None:
        total = sum(len(piece) for piece in pieces)
        if total <= frames.CHUNK:
            self.sock.sendall(b"".join(pieces))
            return
        for piece in pieces:
            self.sock.sendall(piece)
