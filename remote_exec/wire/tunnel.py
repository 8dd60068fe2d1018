"""Many connections over one stream: frames and credit. No I/O, no clock.

Each end of the stream has a `TunnelEnd`: the one that opens connections, and the one that accepts them. Bytes that
came go in and events come out; what is to be sent goes in and buffers to write come out.

Nothing is kept here but a piece of each connection that waits to be written. Each end may send on a connection as
many bytes as the other has given it credit for, so that one which nobody reads fills its own window and holds up no
other. Data travels in pieces, one of each connection in turn, so that a small message waits for a piece of each
connection that is busy and not for all that these have to send.

Whatever a login shell or a container's engine prints before the far end speaks is skipped up to its greeting. The two
greetings differ, so that an echoing terminal is no peer, and a line end that was translated spoils them.

>>> near, far = TunnelEnd(opens=True), TunnelEnd(opens=False)
>>> number = near.open()
>>> near.send(number, b"hello")
>>> events = far.receive(b"Last login: Monday" + b"".join(near.output()))
>>> [(type(event).__name__, event.connection) for event in events]
[('Opened', 1), ('Arrived', 1)]
"""

from __future__ import annotations

import struct
from collections import deque
from typing import NamedTuple, Union

from ..model.errors import ProtocolError

Buffer = Union[bytes, bytearray, memoryview]  # noqa: UP007 - evaluated when imported, on 3.10 too

HEADER = struct.Struct("<BII")  # kind, connection, size
HEADER_SIZE = HEADER.size

OPEN = 1  # a new connection; numbers go upwards from 1
DATA = 2  # so many bytes follow
WINDOW = 3  # so many more bytes may be sent
END = 4  # nothing more is sent on it; the other direction goes on
RESET = 5  # the connection is gone; so many bytes of a reason follow
BEAT = 6  # of no connection: this end lives

GREETING = {
    True: b"\0remote_exec tunnel 1 near\xff\r\n",
    False: b"\0remote_exec tunnel 1 far\xff\r\n",
}
PIECE = 1 << 16  # bytes of data in one frame
CREDIT = 1 << 20  # bytes of one connection that may be under way or wait to be taken
MAX_CONNECTIONS = 256  # so at most 256 MiB wait here for readers that do not read
BATCH = 1 << 17  # bytes of data after which no further piece goes into one output
MAX_REASON = 1 << 10  # bytes
MAX_NOISE = 1 << 16  # bytes before the greeting
MAX_REFUSALS = 4 * MAX_CONNECTIONS  # that wait for a peer which opens and opens, and reads nothing
TOLD_NOISE = 600  # characters
ENDED = "it ended"  # where it may


class Opened(NamedTuple):
    """The peer has opened a connection."""

    connection: int


class Arrived(NamedTuple):
    """Bytes of a connection; valid for as long as what was given to `receive`. To be told of by `taken`."""

    connection: int
    data: memoryview


class Ended(NamedTuple):
    """The peer sends nothing more on a connection."""

    connection: int


class WasReset(NamedTuple):
    """The peer has let go of a connection: nothing more comes or goes. What has arrived is still to be taken."""

    connection: int
    reason: str


Event = Union[Opened, Arrived, Ended, WasReset]  # noqa: UP007


class _Connection:
    __slots__ = ("credit", "ended", "ending", "owed", "piece", "reason", "room", "said_end", "untaken")

    def __init__(self) -> None:
        self.credit = CREDIT  # that this end may send
        self.piece: Buffer | None = None  # to be sent
        self.ending = self.said_end = False  # this end sends nothing more; and has said so
        self.reason: str | None = None  # why this end resets it, after the piece
        self.room = CREDIT  # that the peer may send
        self.untaken = 0  # bytes given out as events and not yet taken
        self.owed = 0  # bytes taken that the peer has not been given credit for
        self.ended = False  # the peer sends nothing more


class TunnelEnd:
    """One end of a tunnel; one owner thread unless the owner locks. After a `ProtocolError` it is of no use.

    Args:
        opens: whether this is the end that opens connections; the other one accepts them.
    """

    def __init__(self, *, opens: bool) -> None:
        self._opens = opens
        self._connections: dict[int, _Connection] = {}
        self._last = 0  # the connection that was opened last
        self._ring: deque[int] = (
            deque()
        )  # connections that have a piece or an end to send, one after the other
        self._owing: dict[int, None] = {}  # connections that have credit to give, in order
        self._control: list[Buffer] = []  # goes before all data
        self._refused = 0  # connections since the last output
        self._beats = False
        self._greeted = False
        self._noise = bytearray()
        self._head = bytearray()  # of a frame whose header is not whole yet
        self._number = 0  # of the connection whose frame is being read
        self._left = 0  # bytes of that frame's body
        self._reason: bytearray | None = None  # where its body is one
        if opens:
            self._control.append(GREETING[True])

    # --- what the peer has sent -------------------------------------------------------------------------------

    def receive(self, data: Buffer) -> list[Event]:
        """Take in what came; return what it means, in order.

        Raises:
            ProtocolError: the peer does not speak this protocol, or passed a bound of it.
        """
        view = memoryview(data)
        if not self._greeted:
            view = self._after_greeting(view)
        events: list[Event] = []
        start, end = 0, len(view)
        while start < end:
            if self._left:
                size = min(self._left, end - start)
                self._left -= size
                self._body(view[start : start + size], events)
                start += size
            elif not self._head and end - start >= HEADER_SIZE:
                self._frame(events, *HEADER.unpack_from(view, start))
                start += HEADER_SIZE
            else:
                size = min(HEADER_SIZE - len(self._head), end - start)
                self._head += view[start : start + size]
                start += size
                if len(self._head) == HEADER_SIZE:
                    head = bytes(self._head)
                    self._head.clear()
                    self._frame(events, *HEADER.unpack(head))
        return events

    @property
    def greeted(self) -> bool:
        """Whether the peer has spoken."""
        return self._greeted

    def why_ended(self) -> str:
        """Return what the end of the stream means here and now, in words."""
        if not self._greeted:
            return f"it ended before the other end said hello{self._printed()}"
        if self._left or self._head:
            return "it was cut in the middle of a frame"
        return ENDED

    def _after_greeting(self, view: memoryview) -> memoryview:
        greeting = GREETING[not self._opens]
        searched = max(0, len(self._noise) - len(greeting) + 1)
        self._noise += view
        at = self._noise.find(greeting, searched)
        if at < 0:
            if len(self._noise) > MAX_NOISE:
                raise ProtocolError(f"the other end of a tunnel does not say hello{self._printed()}")
            return view[:0]
        rest = memoryview(bytes(self._noise[at + len(greeting) :]))
        self._noise.clear()
        self._greeted = True
        if not self._opens:
            self._control.append(GREETING[False])
        return rest

    def _printed(self) -> str:
        text = self._noise[-4 * TOLD_NOISE :].decode(errors="replace").replace("\r\n", "\n")
        text = "".join(char for char in text if char.isprintable() or char == "\n").strip()
        return f"; what it printed:\n{text[-TOLD_NOISE:]}" if text else "; it printed nothing"

    def _frame(self, events: list[Event], kind: int, number: int, size: int) -> None:
        if kind == BEAT:
            if number or size:
                raise ProtocolError("a beat of a tunnel belongs to no connection")
            return
        if kind == OPEN:
            self._accept(number, size, events)
            return
        if not 0 < number <= self._last:
            raise ProtocolError(f"a frame names connection {number}, which was never opened")
        connection = self._connections.get(number)  # None: reset, and the peer did not know yet
        if kind == DATA:
            self._expect(number, size, connection)
        elif kind == WINDOW:
            if connection is not None:
                connection.credit += size
                if not size or connection.credit > CREDIT:
                    raise ProtocolError("a connection was given credit for what was not sent")
        elif kind == END:
            if size or (connection is not None and connection.ended):
                raise ProtocolError("a connection ended twice, or with a body")
            if connection is not None:
                connection.ended = True
                connection.owed = 0
                self._owing.pop(number, None)
                events.append(Ended(number))
                self._forget_if_done(number, connection)
        elif kind == RESET:
            if size > MAX_REASON:
                raise ProtocolError(f"a reason of {size:,} bytes is over the bound of {MAX_REASON:,}")
            self._number, self._left, self._reason = number, size, bytearray()
            if not size:
                self._reset(events)
        else:
            raise ProtocolError(f"a frame of unknown kind {kind}")

    def _accept(self, number: int, size: int, events: list[Event]) -> None:
        if self._opens or number != self._last + 1 or size:
            raise ProtocolError("a connection was opened by whom, or under a number, that must not be")
        self._last = number
        if len(self._connections) >= MAX_CONNECTIONS:
            self._refused += 1
            if self._refused > MAX_REFUSALS:
                raise ProtocolError("the peer opens connections without end and does not read")
            self._say_reset(number, f"{MAX_CONNECTIONS} connections are open")
            return
        self._connections[number] = _Connection()
        events.append(Opened(number))

    def _expect(self, number: int, size: int, connection: _Connection | None) -> None:
        if not 0 < size <= PIECE:
            raise ProtocolError(f"a piece of {size:,} bytes; it must have 1 to {PIECE:,}")
        self._number, self._left, self._reason = number, size, None
        if connection is not None:
            if connection.ended:
                raise ProtocolError("data came after a connection's end")
            connection.room -= size
            if connection.room < 0:
                raise ProtocolError("more was sent on a connection than there was credit for")

    def _body(self, view: memoryview, events: list[Event]) -> None:
        if self._reason is not None:
            self._reason += view
            if not self._left:
                self._reset(events)
            return
        connection = self._connections.get(self._number)
        if connection is not None:
            connection.untaken += len(view)
            events.append(Arrived(self._number, view))

    def _reset(self, events: list[Event]) -> None:
        reason, self._reason = self._reason or b"", None
        connection = self._connections.get(self._number)
        if connection is not None:
            self._owing.pop(self._number, None)
            connection.piece = None
            connection.ending = connection.said_end = connection.ended = True
            events.append(WasReset(self._number, reason.decode(errors="replace")))
            self._forget_if_done(self._number, connection)

    # --- what this end does -----------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether no further connection can be opened now."""
        return len(self._connections) >= MAX_CONNECTIONS

    def open(self) -> int:
        """Open a connection and return its number; data may be sent on it at once. Only while it is not `full`."""
        self._last += 1
        self._connections[self._last] = _Connection()
        self._control.append(HEADER.pack(OPEN, self._last, 0))
        return self._last

    def sendable(self, connection: int) -> int:
        """Return how many bytes `send` takes of a connection now: 0 while a piece of it waits, or without credit."""
        found = self._connections.get(connection)
        if found is None or found.piece is not None or found.ending:
            return 0
        return min(found.credit, PIECE)

    def send(self, connection: int, data: Buffer) -> None:
        """Have some bytes sent, at most as many as are `sendable`; they are kept, and must not be changed."""
        found = self._connections[connection]
        if not 0 < len(data) <= self.sendable(connection):
            raise ValueError("more bytes than can be sent now, or none")
        found.credit -= len(data)
        found.piece = data
        self._ring.append(connection)

    def end(self, connection: int) -> None:
        """Send nothing more on a connection, after what was given to `send`."""
        found = self._connections.get(connection)
        if found is not None and not found.ending:
            found.ending = True
            if found.piece is None:
                self._ring.append(connection)

    def reset(self, connection: int, reason: str) -> None:
        """Let go of a connection, after what was given to `send`, and tell the peer why."""
        found = self._connections.get(connection)
        if found is None or found.reason is not None:
            return
        self._owing.pop(connection, None)
        if found.piece is not None:
            found.ending, found.reason = True, reason
            return
        del self._connections[connection]
        if not (found.said_end and found.ended):
            self._say_reset(connection, reason)

    def taken(self, connection: int, size: int) -> None:
        """Say that so many of a connection's bytes that arrived are out of the way: more may come."""
        found = self._connections.get(connection)
        if found is None:
            return
        found.untaken -= size
        if found.ended or found.reason is not None:
            self._forget_if_done(connection, found)
            return
        found.owed += size
        if found.owed >= CREDIT // 4:
            self._owing[connection] = None

    def beat(self) -> None:
        """Tell the peer that this end lives."""
        self._beats = self._opens or self._greeted

    @property
    def has_output(self) -> bool:
        """Whether `output` may have something to give."""
        return bool(self._ring or self._control or self._owing or self._beats)

    def output(self) -> list[Buffer]:
        """Return what is to be written next, in order; empty when there is nothing.

        Some of it is what `send` was given. What the connections have is cut off after a `BATCH`: ask again.
        """
        pieces, self._control, self._refused = self._control, [], 0
        if self._beats:
            self._beats = False
            pieces.append(HEADER.pack(BEAT, 0, 0))
        if self._owing:
            self._give_credit(pieces)
        size = 0
        while self._ring and size < BATCH:
            number = self._ring.popleft()
            connection = self._connections.get(number)
            if connection is None:
                continue
            if connection.piece is not None:
                size += len(connection.piece)
                pieces += (HEADER.pack(DATA, number, len(connection.piece)), connection.piece)
                connection.piece = None
            if connection.reason is not None:
                del self._connections[number]
                told = connection.reason.encode()[:MAX_REASON]
                pieces += (HEADER.pack(RESET, number, len(told)), told)
            elif connection.ending and not connection.said_end:
                connection.said_end = True
                pieces.append(HEADER.pack(END, number, 0))
                self._forget_if_done(number, connection)
        return pieces

    def _give_credit(self, pieces: list[Buffer]) -> None:
        for number in self._owing:
            connection = self._connections[number]
            pieces.append(HEADER.pack(WINDOW, number, connection.owed))
            connection.room += connection.owed
            connection.owed = 0
        self._owing.clear()

    def _say_reset(self, number: int, reason: str) -> None:
        told = reason.encode()[:MAX_REASON]
        self._control.append(HEADER.pack(RESET, number, len(told)) + told)

    def _forget_if_done(self, number: int, connection: _Connection) -> None:
        if connection.said_end and connection.ended and not connection.untaken:
            del self._connections[number]
