"""A control stream that outlives its connection. It carries no descriptors. See `resume`."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque

from ..model.errors import ProtocolError
from .control import MAX_QUEUED, ControlStream, Received
from .messages import encode
from .protocol import Position
from .resume import Kept

TOLD_BYTES = 1 << 20  # how much is received before the peer is told, so that it may forget it


class ResumableControl(ControlStream):
    """One end; one thread receives, any thread sends.

    Args:
        sock: its first connection, blocking or not; the stream owns it from now on.

    When `receive` returns None the connection has ended: what is sent from then on is kept for the next one, which
    `resume` brings.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.cut = False
        self.received = 0
        self.heard = 0  # how often anything came
        self._kept = Kept()
        self._told = 0
        self._lock = threading.RLock()

    def send(self, message: object, body: bytes | memoryview = b"", fds: tuple[int, ...] = ()) -> None:
        """Send what can be sent now, queue the rest; keep all of it until the peer has it.

        Raises:
            ProtocolError: the message is over a bound, or has descriptors.
            OSError: this end is closed, or the peer has not read for too long.
        """
        if fds:
            raise ProtocolError("descriptors cannot go to another machine")
        data = encode(message, body)
        with self._lock:
            if self.closed:
                raise ConnectionError("this end of a control stream is closed")
            if self._kept.size + len(data) > MAX_QUEUED:
                raise ConnectionError("the peer of a control stream does not read")
            try:
                self._kept.add(data)
                if not self.cut:
                    self._queue.append((memoryview(data), []))
                    self._queued_size += len(data)
                    self.flush()
            except (
                BaseException
            ):  # Ctrl-C: how much of it went is not known, so the next connection takes all of it
                self.let_go()
                raise

    def flush(self) -> None:
        """Send as much as the socket takes."""
        with self._lock:
            try:
                super().flush()
            except OSError:
                self.let_go()

    def receive(self) -> list[Received] | None:
        """Read once; return the messages that are whole now, or None when the connection has ended.

        Raises:
            ProtocolError: the peer does not speak this protocol.
            BlockingIOError: nothing was there, on a non-blocking socket.
        """
        try:
            data = self.sock.recv(1 << 16)
        except BlockingIOError:
            raise
        except OSError:
            data = b""
        if not data:
            self.let_go()
            return None
        self.received += len(data)
        self.heard += 1
        messages: list[Received] = []
        asked = False
        for message, body in self._reader.feed(data):
            if isinstance(message, Position):
                self._kept.acknowledge(message.received)
                asked = asked or message.answer
            else:
                messages.append(Received(message, body))
        if asked or self.received - self._told >= TOLD_BYTES:
            self.tell_position()
        return messages

    def tell_position(self, *, ask: bool = False) -> None:
        """Tell the peer how much has come here; `ask` it to do the same."""
        with self._lock:
            if not (self.cut or self.closed):
                self._told = self.received
                self.send(Position(self.received, ask))

    def let_go(self) -> None:
        """Nothing comes or goes over the connection any more."""
        with self._lock:
            self.cut = True
            self._queue.clear()
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)  # who waits on it hears of it

    def resume(self, sock: socket.socket, position: int) -> None:
        """Go on over another connection, blocking or not, to a peer that has so much of the stream.

        Raises:
            ProtocolError: it is not this stream's peer.
        """
        with self._lock:
            self._kept.resume(position)
            self.sock.close()
            self.sock, self.cut = sock, False
            self._queue = deque((memoryview(piece), []) for piece in self._kept.pieces())
            self._queued_size = self._kept.size
            self.flush()
