"""A call stream that outlives its connection.

To its owner a broken connection looks like a peer that says nothing for a while. The stream takes another connection
when there is one (`attach`), or ends (`give_up`); how one comes about is not its business. See `resume`.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from . import frames
from .compression import Compression
from .frames import Frame
from .resume import ANSWER_SIZE, UNKNOWN, Kept, pack_position, unpack_position
from .stream import Buffer, CallStream, has_room

MOST_KEPT_BYTES = 4 << 20  # of what may be left out as well
TOLD_BYTES = 1 << 20  # how much is received before the peer is told, so that it may forget it


class ResumableStream(CallStream):
    """See the module's docstring; it begins without a connection.

    Args:
        receive_seconds: how long reading waits before it says that nothing is there; 0: for ever.
        on_cut: called when a connection is found to be broken, in whatever thread found it.
    """

    def __init__(self, *, receive_seconds: float = 0.0, on_cut: Callable[[], None] = lambda: None) -> None:
        self._receive_seconds = receive_seconds
        self._on_cut = on_cut
        self._swap = threading.Lock()  # guards all that follows, but for `_kept`, which `send_lock` guards
        self._silence: tuple[socket.socket, socket.socket] | None = None
        self._former: list[socket.socket] = []  # somebody may wait on them yet
        self._answer: bytes | None = None  # the far end's position, as far as it has come; None: it is known
        self._kept = Kept()
        self.reached = 0  # no byte of the stream from this position on has ever left this machine
        self._compression = Compression()
        self._read_lock = threading.Lock()  # held by who reads; guards what follows
        self._early: deque[Frame] = deque()  # taken in while the stream's reader was busy
        self._peer_has = 0
        self._told = 0
        self.received = 0
        self.answers = 0  # how often a far end has said where it is
        self.ended = False
        self._deaf: socket.socket | None = None  # a connection whose far end takes nothing any longer
        self._last = False  # there will be no other connection
        self.forgotten = False  # it has, since the far end knows of no such stream any longer
        super().__init__(self._make_silence())
        self.cut_at = time.monotonic()

    @property
    def is_sending(self) -> bool:
        """Whether so much was sent that the far end would have told of it, had it arrived."""
        return self._kept.size > 2 * TOLD_BYTES

    # --- connections ------------------------------------------------------------------------------------------

    def attach(self, sock: socket.socket, position: int | None, *, answer: bool = False) -> bool:
        """Go on over a connected, blocking socket, which is the stream's from now on.

        Args:
            sock: on which nothing has been sent or received but what `resume` says goes first.
            position: how much of the stream the far end has; None: it is what comes next, and until then nothing
                is sent.
            answer: tell the far end first how much of its stream has come here: it waits for that.

        Returns:
            False when the stream has ended; then the socket was closed.

        Raises:
            ProtocolError: the far end has what was never sent, or lacks what is gone.
        """
        self.cut()
        with self.send_lock:
            if position is not None:
                self._kept.resume(position)
            if not self._take(sock, answered=position is not None):
                return False
            if answer:
                self._push(pack_position(self.received), 0)
            if position is not None:
                self._push_kept()
        return True

    def cut(self, sock: socket.socket | None = None) -> None:
        """Let go of the connection, or of this one if it is the connection: it is broken."""
        with self._swap:
            if self._silence is not None or self.ended or (sock is not None and sock is not self.sock):
                return
            if self._last:
                self.ended = True
                _shut_down(self.sock)
                return
            former, self.sock = self.sock, self._make_silence()
            self._former.append(former)
            self._answer = None
            self.cut_at = time.monotonic()
        _shut_down(former)
        self._on_cut()

    @property
    def sent(self) -> int:
        """How many bytes were to be sent until now."""
        return self._kept.sent

    def finish(self) -> None:
        """Let the stream end with its connection: the far end is gone. What it has sent before still comes."""
        with self._swap:
            self._last = True
            if self._silence is None:
                return
        self.give_up()

    def give_up(self) -> None:
        """End the stream: nobody will come."""
        with self._swap:
            self.ended = True
            ends = (self.sock, *(self._silence or ()))
        for sock in ends:
            _shut_down(sock)

    def close(self) -> None:
        """Close it; harmless when repeated."""
        super().close()
        with self._swap:
            former, self._former = [*self._former, *(self._silence or ())], []
        for sock in former:
            sock.close()

    def _take(self, sock: socket.socket, *, answered: bool) -> bool:
        with self._swap:
            if self.ended or self.closed:
                sock.close()
                return False
            self._set_timeout(sock)
            silence, self._silence = self._silence, None
            self.sock, self.cut_at, self._told = sock, 0.0, self.received
            self._answer = None if answered else b""
            if silence is not None:
                self._former += silence
                _shut_down(silence[1])  # wakes who waits for something to come from the other
        return True

    def _make_silence(self) -> socket.socket:
        """Return what stands in for a connection: nothing ever comes from it."""
        self._silence = socket.socketpair()
        self._set_timeout(self._silence[0])
        return self._silence[0]

    def _set_timeout(self, sock: socket.socket) -> None:
        if self._receive_seconds:
            seconds, micros = divmod(int(self._receive_seconds * 1_000_000), 1_000_000)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", seconds, micros))

    # --- receiving --------------------------------------------------------------------------------------------

    def fill(self, flags: int = 0) -> int:
        """Read once; return how many bytes came, 0 when the stream has ended.

        Raises:
            BlockingIOError: nothing was there, for as long as one was to wait.
            ProtocolError: the far end is no end of this stream.
        """
        with self._read_lock:
            return 1 if self._early else self._fill(flags)

    def fill_soon(self) -> int:
        """As `fill`: over a link nothing is there so soon that to stay awake pays."""
        return self.fill()

    def next(self) -> Frame | None:
        """Return the next frame that has arrived whole, or None; those about the stream itself are dealt with here.

        Raises:
            ProtocolError: the peer does not speak this protocol.
        """
        with self._read_lock:
            return self._early.popleft() if self._early else self._next()

    def _next(self) -> Frame | None:
        """Return the next frame with a payload of its own: another thread may read while it is looked at."""
        frame = super().next()
        if frame is None or not isinstance(frame.payload, memoryview):
            return frame
        return frame._replace(payload=bytes(frame.payload))

    def _catch_up(self) -> None:
        """Take in what has come, unless somebody reads: positions are among it."""
        if self._read_lock.acquire(blocking=False):
            try:
                while self._fill(socket.MSG_DONTWAIT):
                    while (frame := self._next()) is not None:
                        self._early.append(frame)
            except BlockingIOError:
                pass  # that was all
            finally:
                self._read_lock.release()

    def _fill(self, flags: int) -> int:
        while True:
            sock, answer = self.sock, self._answer
            data = b""
            try:
                if answer is None:
                    size = sock.recv_into(self.reader.space(), 0, flags)
                else:
                    data = sock.recv(ANSWER_SIZE - len(answer), flags)
                    size = len(data)
            except BlockingIOError:
                raise
            except OSError:
                size = 0
            with self._swap:
                current = sock is self.sock  # what came over a connection that was given up comes again
                if current and size and answer is not None:
                    self._answer = answer + data
                elif current and size:
                    self.received += size
                    self.reader.filled(size)
            if current and size and answer is None:
                if self.received - self._told >= TOLD_BYTES:
                    self._tell_position()
                return size
            if self.ended or self.closed:
                return 0
            if current and size:
                self._hear_answer()
            elif current:
                self.cut(sock)

    def _hear_answer(self) -> None:
        with self.send_lock:
            answer = self._answer
            if answer is None or len(answer) < ANSWER_SIZE:
                return
            position = unpack_position(answer)
            if position == UNKNOWN:
                self.forgotten = True
                self.give_up()
                return
            self._kept.resume(position)
            self._answer = None
            self.answers += 1
            self._push_kept()

    def _hear(self, frame: Frame) -> None:
        if frame.kind != frames.POSITION:
            super()._hear(frame)
            return
        self._peer_has = max(unpack_position(frame.payload), self._peer_has)
        if self.send_lock.acquire(blocking=False):  # else whoever sends sees to it
            try:
                self._kept.acknowledge(self._peer_has)
            finally:
                self.send_lock.release()

    def _tell_position(self) -> None:
        """Tell how much has come, if that goes without waiting: the peer may be waiting for us to read."""
        if self.try_send(frames.pack(frames.POSITION, [pack_position(self.received)])):
            self._told = self.received

    # --- sending ----------------------------------------------------------------------------------------------

    def send_now(self, data: bytes) -> None:
        """Send bytes that are whole frames already.

        Raises:
            OSError: the stream has ended.
        """
        with self.send_lock:
            self._put(data)

    def send_frames(self, pieces: Iterable[Buffer]) -> None:
        """Send whole frames, in pieces that are taken as they go.

        Raises:
            OSError: the stream has ended.
        """
        with self.send_lock:
            self._send_all(pieces)

    def try_send(self, message: list[Buffer]) -> bool:
        """Send a small message if there is a connection that takes it at once; return whether it was sent.

        Raises:
            OSError: the stream has ended.
        """
        if not self.send_lock.acquire(blocking=False):
            return False
        try:
            if self.ended or self.closed:
                raise ConnectionError("the stream has ended")
            if self._kept.size > MOST_KEPT_BYTES and self._answer is None:  # to hear it takes our lock
                self._catch_up()
                self._kept.acknowledge(self._peer_has)
            too_much = self._kept.size > MOST_KEPT_BYTES
            if too_much or self.cut_at or self._answer is not None or not has_room(self.sock):
                return False
            self._put(b"".join(message))
        finally:
            self.send_lock.release()
        return True

    def _send_all(self, pieces: Iterable[Buffer]) -> None:
        super()._send_all(self._compression.applied(pieces))

    def _put(self, data: Buffer) -> None:
        """Keep bytes, and send them if there is a connection. Under `send_lock`."""
        if self.ended or self.closed:
            raise ConnectionError("the stream has ended")
        self._kept.acknowledge(self._peer_has)
        self._kept.add(data)
        if self._answer is None:
            self._push(data, self._kept.sent)

    def _push_kept(self) -> None:
        end = self._kept.sent - self._kept.size
        for piece in self._kept.pieces():
            end += len(piece)
            self._push(piece, end)

    def _push(self, data: Buffer, end: int) -> None:
        """Send bytes that end at a position of the stream; 0: they are none of it."""
        sock = self.sock
        if self.cut_at or sock is self._deaf:
            return
        before, self.reached = self.reached, max(end, self.reached)
        try:
            sock.sendall(data)
        except OSError:
            self._deaf = sock  # what it has sent before may be its last: who reads finds the end
            self.reached = max(end - 1, before)  # the last of it has not gone
        except BaseException:  # a Ctrl-C: how much of it went is not known
            self.cut(sock)
            raise


def _shut_down(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
