"""A call stream as both ends use it: frames over a socket, big messages through shared arenas.

Blocking, and safe for several senders (a lock around each send); one reader at a time, which the owner sees to,
and which is also the one that asks for `parts`. Knows nothing of calls.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Union

from ..model.errors import ProtocolError
from . import frames
from .arenas import THRESHOLD, ReceivingArenas, SendingArenas, pack_ids, unpack_ids
from .frames import Frame, FrameReader
from .parts import MANY, Assembly, table

Buffer = Union[bytes, bytearray, memoryview]  # noqa: UP007 - evaluated when imported, on 3.10 too

AWAKE_SECONDS = 0.00006  # how long one stays awake for an answer that is expected at once
_offer_processor = getattr(os, "sched_yield", lambda: None)

ALONE = 1 << 17  # bytes: what is longer is not worth a copy to save a system call


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
    parts = [table(stream, buffers), *stream, *buffers]
    count = min(len(buffers), MANY)
    return frames.pack(kind, parts, flags=flags, buffers=count, function=function, call=call, ack=ack)


class CallStream:
    """One end of a call stream.

    Args:
        sock: a connected, blocking stream socket.
        fd_socket: a second one, over which descriptors of arenas go where both ends share a machine; None elsewhere.

    Example::

        stream = CallStream(sock)
        stream.send(stream.frame(frames.CALL, [pickled], buffers, function=1, call=7))
        while (frame := stream.receive()) is not None:
            data, buffers = stream.parts(frame)
    """

    def __init__(self, sock: socket.socket, fd_socket: socket.socket | None = None) -> None:
        self.sock = sock
        self.reader = FrameReader()
        self.send_lock = threading.Lock()
        self._fd_socket = fd_socket
        self._sending = SendingArenas(fd_socket) if fd_socket is not None else None
        self._receiving = ReceivingArenas(fd_socket) if fd_socket is not None else None
        self.cut_at = 0.0  # monotonic: when its connection broke, if it outlives that; see `resumable`
        self.closed = False

    @property
    def is_sending(self) -> bool:
        """Whether much of what was sent may not have arrived; see `resumable`."""
        return False

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
        """Return what to send for one message: a pickle stream and its out-of-band buffers.

        A big one is copied into an arena here and now; what is returned must then be sent, and soon.

        Args:
            kind: of the frame.
            stream: the pickle, in order.
            buffers: contiguous bytes each.
            flags: as for `frames.pack`.
            function: as for `frames.pack`.
            call: as for `frames.pack`.
            ack: as for `frames.pack`.
        """
        if self._sending is not None:
            total = sum(len(part) for part in stream) + sum(len(buffer) for buffer in buffers)
            parts = [b"".join(stream) if len(stream) != 1 else stream[0], *buffers]
            payload = self._sending.pack(parts) if total >= THRESHOLD else None
            if payload is not None:
                flags |= frames.ARENA
                return frames.pack(kind, [payload], flags=flags, function=function, call=call, ack=ack)
        return inline(kind, stream, buffers, flags=flags, function=function, call=call, ack=ack)

    def parts(self, frame: Frame) -> tuple[Buffer, list[Buffer]]:
        """Return the pickle stream and the buffers of a message.

        The buffers are writable, and outlive the frame. Those that were not where they come from may be `bytes`.

        Raises:
            ProtocolError: its lengths do not add up.
        """
        if frame.flags & frames.ARENA:
            if self._receiving is None:
                raise ProtocolError("an arena message came over a stream that has no arenas")
            views = self._receiving.unpack(frame.payload)
            return views[0], list(views[1:])
        if frame.parts is not None or not frame.buffers:
            return frame.payload, frame.parts or []
        message = Assembly(frame.buffers)
        message.add(memoryview(frame.payload))
        stream, buffers = message.finish()
        return stream, buffers or []

    def send(self, *messages: list[Buffer]) -> None:
        """Send whole messages, as `frame` or `frames.pack` made them, and what the arenas have to tell.

        Raises:
            OSError: the peer is gone.
        """
        with self.send_lock:
            pieces = self._notices()
            for one in messages:
                pieces += one
            self._send_all(pieces)

    def send_now(self, data: bytes) -> None:
        """Send bytes that are whole frames already: the short way for small calls.

        Raises:
            OSError: the peer is gone.
        """
        with self.send_lock:
            if self._receiving is not None and self._receiving.released:
                data = b"".join([*self._notices(), data])
            self.sock.sendall(data)

    def try_send(self, message: list[Buffer]) -> bool:
        """Send a small message if that can be begun without waiting; return whether it was sent.

        It waits only for the rest of a message that the socket has taken a part of: a frame must not be cut.

        Raises:
            OSError: the peer is gone.
        """
        data = b"".join(message)
        if not self.send_lock.acquire(blocking=False):
            return False
        try:
            if not self.closed and not has_room(self.sock):
                return False
            sent = self.sock.send(data, socket.MSG_DONTWAIT)
            if sent < len(data):
                self.sock.sendall(memoryview(data)[sent:])
        except BlockingIOError:
            return False
        finally:
            self.send_lock.release()
        return True

    def next(self) -> Frame | None:
        """Return the next frame that has arrived whole, or None; those about the stream itself are dealt with here.

        Raises:
            ProtocolError: the peer does not speak this protocol.
        """
        while True:
            frame = self.reader.next()
            if frame is None or frame.kind < frames.RELEASE:
                return frame
            self._hear(frame)

    def _hear(self, frame: Frame) -> None:
        """Take in a frame that is about the stream itself."""
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

    def fill_soon(self) -> int:
        """As `fill`, for bytes that are expected within some microseconds: for so long it stays awake.

        To be woken costs more than a small call does. The processor is offered to others meanwhile, and above all to
        the peer, where there is only one.

        Raises:
            BlockingIOError: nothing came within the socket's receive timeout.
        """
        until = time.monotonic() + AWAKE_SECONDS
        while True:
            try:
                return self.fill(socket.MSG_DONTWAIT)
            except BlockingIOError:
                if time.monotonic() >= until:
                    return self.fill()
                _offer_processor()

    def receive(self, *, soon: bool = False) -> Frame | None:
        """Wait for the next frame; None at the end of the stream, even where that cuts a message.

        Args:
            soon: it is expected within some microseconds: see `fill_soon`.

        Raises:
            ProtocolError: the peer does not speak this protocol.
            OSError: the stream has broken.
        """
        while True:
            frame = self.next()
            if frame is not None:
                return frame
            if not (self.fill_soon() if soon else self.fill()):
                return None

    def give_up(self) -> None:
        """End the stream, and wake who waits for something to come."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def finish(self) -> None:
        """The far end is gone: let the stream end when what it has sent has been read."""
        self.give_up()

    def close(self) -> None:
        """Close both sockets; harmless when repeated. Arrays that were received live on."""
        self.closed = True
        self.sock.close()
        if self._fd_socket is not None:
            self._fd_socket.close()
        if self._sending is not None:
            self._sending.close()
        if self._receiving is not None:
            self._receiving.close()

    def _notices(self) -> list[Buffer]:
        pieces: list[Buffer] = []
        if self._receiving is not None and (released := self._receiving.take_released()):
            pieces += frames.pack(frames.RELEASE, [pack_ids(released)])
        if self._sending is not None and (dropped := self._sending.take_dropped()):
            pieces += frames.pack(frames.DROP, [pack_ids(dropped)])
        return pieces

    def _send_all(self, pieces: Iterable[Buffer]) -> None:
        """Send long pieces as they are, and short ones together."""
        together: list[Buffer] = []
        size = 0
        for piece in pieces:
            if len(piece) >= ALONE:
                if together:
                    self._put(b"".join(together))
                    together, size = [], 0
                self._put(piece)
                continue
            together.append(piece)
            size += len(piece)
            if size >= ALONE:
                self._put(b"".join(together))
                together, size = [], 0
        if together:
            self._put(b"".join(together))

    def _put(self, data: Buffer) -> None:
        """Send bytes that continue the stream. Under `send_lock`."""
        self.sock.sendall(data)


def has_room(sock: socket.socket) -> bool:
    """Whether a small message would be taken whole, and not a part of it."""
    poller = select.poll()
    poller.register(sock, select.POLLOUT)
    return bool(poller.poll(0))
