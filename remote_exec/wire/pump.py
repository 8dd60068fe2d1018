"""The loop that carries a tunnel's end out: between one stream and the sockets of its connections.

Used by both ends, in one thread each. Nothing in it blocks but the wait for what is ready. What a connection's socket
does not take at once waits here, at most a window of it; a socket is read only when what it gives can be sent.
"""

from __future__ import annotations

import fcntl
import os
import select
import selectors
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

from ..model.errors import ProtocolError
from .tunnel import PIECE, Arrived, Buffer, Ended, Opened, TunnelEnd, WasReset

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
SPACE = 4 * PIECE
ALONE = 1 << 13  # bytes: what is shorter altogether is joined, which costs less than to gather it
MOST_PIECES = 512  # of one gathering write; systems allow 1,024
PIPE_SIZE = 1 << 18  # bytes: measured; wider ones only make what is small wait for longer
BEAT_SECONDS = 15.0
SILENT_BEATS = 4  # so long a stream may be silent: the far end beats, too
HEAR_OUT_SECONDS = 1.0  # of a peer that takes nothing any longer
DRAIN_SECONDS = 5.0  # for what has arrived before the stream's end, and readers have not taken


class Pipe(Protocol):
    """A stream in both directions that does not block. It may be two descriptors, or the same one twice."""

    reading: int
    writing: int

    def read_into(self, space: memoryview) -> int:
        """Read what is there; return how much, 0 at the end of the stream.

        Raises:
            BlockingIOError: nothing is there now.
            OSError: the stream has broken.
        """
        ...

    def write(self, pieces: list[Buffer]) -> int:
        """Write what is taken of the pieces, in order; return how much.

        Raises:
            BlockingIOError: nothing is taken now.
            OSError: the stream has broken.
        """
        ...

    def close(self) -> None:
        """Close it; harmless when repeated."""
        ...


class Descriptors:
    """A pipe of two descriptors, which it owns."""

    def __init__(self, reading: int, writing: int) -> None:
        self.reading, self.writing = reading, writing
        self._closed = False
        for fd in (reading, writing):
            os.set_blocking(fd, False)
            _widen(fd)

    def read_into(self, space: memoryview) -> int:
        """See `Pipe`."""
        return os.readv(self.reading, [space])

    def write(self, pieces: list[Buffer]) -> int:
        """See `Pipe`."""
        if len(pieces) == 1:
            return os.write(self.writing, pieces[0])
        return os.writev(self.writing, pieces[:MOST_PIECES])

    def close(self) -> None:
        """See `Pipe`."""
        if not self._closed:
            self._closed = True
            os.close(self.reading)
            os.close(self.writing)


class _Local:
    """The socket of one connection."""

    __slots__ = ("deaf", "ended", "number", "reads", "ready", "sock", "waiting", "watched")

    def __init__(self, number: int, sock: socket.socket, ready: Callable[[_Local, int], None]) -> None:
        self.number, self.sock = number, sock
        self.ready = partial(ready, self)
        self.waiting = bytearray()  # what came for it and was not taken
        self.reads = True  # it has not ended
        self.ended = False  # nothing more comes for it
        self.deaf = ""  # why nobody takes what comes for it; what it has sent before goes on its way
        self.watched = 0  # events


class Pump:
    """See the module's docstring. One thread's, but for what its selector is told by descriptors.

    Args:
        end: of the tunnel.
        pipe: the tunnel's stream.
        on_open: returns the socket of a connection that the peer opened; an `OSError` of it is told to the peer.
        silent_beats: how many times `BEAT_SECONDS` nothing may be heard before the stream is held to be dead.
        on_refused: told why when the peer resets a connection.
    """

    def __init__(
        self,
        end: TunnelEnd,
        pipe: Pipe,
        *,
        on_open: Callable[[], socket.socket] | None = None,
        on_refused: Callable[[str], None] | None = None,
        silent_beats: int = SILENT_BEATS,
    ) -> None:
        self.end = end
        self.why_ended: str | None = None  # set when the stream is of no use any longer
        self._pipe = pipe
        self._on_open = on_open
        self._on_refused = on_refused
        self._selector = selectors.DefaultSelector()
        self._locals: dict[int, _Local] = {}
        self._parked: dict[int, _Local] = {}  # readable, but what they give cannot be sent now
        self._space = memoryview(bytearray(SPACE))
        self._pending: list[Buffer] = []  # to be written
        self._blocked = False  # the pipe takes nothing now
        self._silent_beats = silent_beats
        self._silence = 0  # beats since something was heard
        self._hurried = False
        self._next_beat = time.monotonic() + BEAT_SECONDS
        self._selector.register(pipe.reading, READ, self._pipe_ready)

    # --- for the owner ----------------------------------------------------------------------------------------

    def watch(self, fd: int, callback: Callable[[int], None]) -> None:
        """Call back, in the loop's thread, whenever another descriptor can be read."""
        self._selector.register(fd, READ, callback)

    def unwatch(self, fd: int) -> None:
        """Call back no more."""
        self._selector.unregister(fd)

    def connect(self, sock: socket.socket) -> None:
        """Open a connection and pump it from and to a socket, which the pump owns from now on."""
        self._add(self.end.open(), sock)

    def turn(self, seconds: float | None = None) -> bool:
        """Wait until something can be done and do it; return whether there was something.

        Args:
            seconds: how long to wait at most.
        """
        left = max(0.0, self._next_beat - time.monotonic())
        ready = self._selector.select(left if seconds is None else min(left, seconds))
        for key, events in ready:
            key.data(events)
        if not ready and time.monotonic() >= self._next_beat:
            self._beat()
        self._flush()
        if self._parked and not self._blocked:
            self._unpark()
        return bool(ready)

    def run(self) -> str:
        """Turn until the stream is of no use any longer; return why."""
        self._flush()
        while self.why_ended is None:
            self.turn()
        return self.why_ended

    def send_rest(self, seconds: float) -> None:
        """Turn until all that the connections have been given so far is sent, for so long at most."""
        until = time.monotonic() + seconds
        while self.why_ended is None and (left := until - time.monotonic()) > 0:
            unsent = bool(self._pending or self._parked)
            if not self.turn(left if unsent else 0.0) and not unsent:
                return

    def end_connections(self) -> None:
        """Close the connections when the stream is of no use any longer, but for those that `drain` is for."""
        self._selector.unregister(self._pipe.reading)
        if self._blocked and self._pipe.writing != self._pipe.reading:
            self._selector.unregister(self._pipe.writing)
        for local in list(self._locals.values()):
            local.reads, local.ended = False, True  # there is nowhere to send it, and nothing more comes
            self._settle(local)

    def drain(self) -> None:
        """Give what has arrived to those who take it within `DRAIN_SECONDS`, unless `hurry` is called; then close."""
        until = time.monotonic() + DRAIN_SECONDS
        while self._locals and not self._hurried and (left := until - time.monotonic()) > 0:
            for key, events in self._selector.select(left):
                key.data(events)
        for local in list(self._locals.values()):
            self._drop(local)
        self._selector.close()

    def hurry(self) -> None:
        """Have `drain` wait for nobody."""
        self._hurried = True

    def abandon(self) -> None:
        """In a forked child: close its copies of the connections, and touch nothing that is shared."""
        self._selector.close()
        for local in self._locals.values():
            local.sock.close()
        self._locals.clear()

    # --- the stream -------------------------------------------------------------------------------------------

    def _pipe_ready(self, events: int) -> None:
        if events & WRITE:
            self._blocked = False
            self._watch_pipe()
        if not events & READ or self.why_ended is not None:
            return
        try:
            size = self._pipe.read_into(self._space)
            if not size:
                self.why_ended = self.end.why_ended()
                return
            self._silence = 0
            for event in self.end.receive(self._space[:size]):
                if isinstance(event, Arrived):
                    self._deliver(event)
                elif isinstance(event, Opened):
                    self._opened(event.connection)
                elif isinstance(event, Ended):
                    self._ended(event.connection)
                else:
                    self._was_reset(event)
        except BlockingIOError:
            pass
        except ProtocolError as error:
            self.why_ended = error.message
        except OSError as error:
            self.why_ended = _in_words(error)

    def _flush(self) -> None:
        while not self._blocked and self.why_ended is None:
            if not self._pending and not self._fetch():
                return
            try:
                self._written(self._pipe.write(self._pending))
            except BlockingIOError:
                self._blocked = True
                self._watch_pipe()
            except OSError as error:
                self._hear_out()
                self.why_ended = self.why_ended or _in_words(error)

    def _hear_out(self) -> None:
        """Take in what the peer has said before it let go of the stream."""
        poller = select.poll()
        poller.register(self._pipe.reading, select.POLLIN)
        until = time.monotonic() + HEAR_OUT_SECONDS
        while self.why_ended is None and (left := until - time.monotonic()) > 0 and poller.poll(1e3 * left):
            self._pipe_ready(READ)

    def _fetch(self) -> bool:
        """Have what is to be written next; return whether there is something."""
        if not self.end.has_output:
            return False
        self._pending = self.end.output()
        if len(self._pending) > 1 and sum(map(len, self._pending)) <= ALONE:
            self._pending = [b"".join(self._pending)]
        return bool(self._pending)

    def _written(self, size: int) -> None:
        if len(self._pending) == 1 and size == len(self._pending[0]):
            self._pending.clear()
            return
        done = 0
        for piece in self._pending:
            if size < len(piece):
                break
            size -= len(piece)
            done += 1
        del self._pending[:done]
        if size:
            self._pending[0] = memoryview(self._pending[0])[size:]

    def _watch_pipe(self) -> None:
        pipe = self._pipe
        if pipe.writing == pipe.reading:
            self._selector.modify(pipe.reading, READ | (WRITE if self._blocked else 0), self._pipe_ready)
        elif self._blocked:
            self._selector.register(pipe.writing, WRITE, self._pipe_ready)
        else:
            self._selector.unregister(pipe.writing)

    def _beat(self) -> None:
        # Counted, not timed: a machine that slept, or a process that was stopped, has missed one beat.
        self._next_beat = time.monotonic() + BEAT_SECONDS
        self._silence += 1
        if self._silence > self._silent_beats:
            self.why_ended = f"nothing was heard for {self._silent_beats * BEAT_SECONDS:.0f} seconds"
            if not self.end.greeted:
                self.why_ended = self.end.why_ended()
        self.end.beat()

    # --- connections ------------------------------------------------------------------------------------------

    def _add(self, number: int, sock: socket.socket) -> None:
        sock.setblocking(False)
        local = self._locals[number] = _Local(number, sock, self._local_ready)
        self._watch(local)

    def _opened(self, number: int) -> None:
        try:
            if self._on_open is None:
                raise OSError("nobody answers here")
            sock = self._on_open()
        except OSError as error:
            self.end.reset(number, _in_words(error))
            return
        self._add(number, sock)

    def _local_ready(self, local: _Local, events: int) -> None:
        if self._locals.get(local.number) is not local:
            return  # it was dropped in this very turn
        if events & WRITE and not self._give(local):
            return
        if events & READ and local.reads:
            self._take(local)

    def _take(self, local: _Local) -> None:
        """Read from a connection's socket what can be sent."""
        room = self.end.sendable(local.number)
        if not room:
            self._parked[local.number] = local
            self._watch(local)
            return
        try:
            data = local.sock.recv(room)
        except BlockingIOError:
            return
        except OSError as error:
            local.deaf = _in_words(error)
            data = b""
        if data:
            self.end.send(local.number, data)
            return
        local.reads = False
        if local.deaf:
            self.end.reset(local.number, local.deaf)
            self._drop(local)
        else:
            self.end.end(local.number)
            self._settle(local)

    def _unpark(self) -> None:
        for local in list(self._parked.values()):
            if self.end.sendable(local.number):
                del self._parked[local.number]
                self._watch(local)

    def _deliver(self, event: Arrived) -> None:
        local = self._locals.get(event.connection)
        if local is None or local.deaf:
            self.end.taken(event.connection, len(event.data))
            return
        data, sent = event.data, 0
        if not local.waiting:
            try:
                sent = local.sock.send(data)
            except BlockingIOError:
                pass
            except OSError as error:
                self.end.taken(local.number, len(data))
                self._deafen(local, error)
                return
            if sent:
                self.end.taken(local.number, sent)
        if sent < len(data):
            local.waiting += data[sent:]
            self._watch(local)

    def _give(self, local: _Local) -> bool:
        """Give a connection's socket what waits for it; return whether the connection still is."""
        try:
            while local.waiting:
                sent = local.sock.send(local.waiting)
                del local.waiting[:sent]
                self.end.taken(local.number, sent)
        except BlockingIOError:
            return True
        except OSError as error:
            self.end.taken(local.number, len(local.waiting))
            self._deafen(local, error)
            return self._locals.get(local.number) is local
        self._settle(local)
        return self._locals.get(local.number) is local

    def _ended(self, number: int) -> None:
        local = self._locals.get(number)
        if local is not None:
            local.ended = True
            if not local.waiting:
                self._settle(local)

    def _settle(self, local: _Local) -> None:
        """Tell the socket of the end once it has been given everything; let go of it when both directions ended."""
        if local.ended and not local.waiting:
            if not local.reads:
                self._drop(local)
                return
            try:
                local.sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # whoever holds the other end has let go of it, which reading will tell
        self._watch(local)

    def _deafen(self, local: _Local, error: OSError) -> None:
        local.deaf = _in_words(error)
        local.waiting.clear()
        if local.reads:
            self._watch(local)
        else:
            self.end.reset(local.number, local.deaf)
            self._drop(local)

    def _was_reset(self, event: WasReset) -> None:
        if self._on_refused is not None:
            self._on_refused(event.reason)
        local = self._locals.get(event.connection)
        if local is not None:
            local.reads, local.ended = False, True
            self._settle(local)

    def _drop(self, local: _Local) -> None:
        del self._locals[local.number]
        self._parked.pop(local.number, None)
        local.waiting.clear()
        local.reads = False
        self._watch(local)
        local.sock.close()

    def _watch(self, local: _Local) -> None:
        wanted = READ if local.reads and local.number not in self._parked else 0
        if local.waiting:
            wanted |= WRITE
        if wanted == local.watched:
            return
        if not local.watched:
            self._selector.register(local.sock, wanted, local.ready)
        elif not wanted:
            self._selector.unregister(local.sock)
        else:
            self._selector.modify(local.sock, wanted, local.ready)
        local.watched = wanted


def _widen(fd: int) -> None:
    """Make room in a pipe, where that can be had: fewer turns for the same bytes."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    except (AttributeError, OSError):
        pass  # another system, no pipe, or over what a user may have of them


def _in_words(error: OSError) -> str:
    return error.strerror or str(error)
