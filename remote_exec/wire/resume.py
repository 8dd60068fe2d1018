"""What lets a stream outlive its connection: positions, what may have to be sent again, and a connection's first words.

Each end counts the bytes that it has received, and keeps what it has sent until the other has told that it is there.
When the connection breaks, the client connects again and says which stream it means and how far it has come; the far
end answers how far it has, and both send the rest. A stream's first connection is not answered. Pure: no I/O.

A connection to an agent begins with `Opening`, unless it comes from the same machine and begins with `Hello`.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Union

from ..model.errors import ProtocolError

Buffer = Union[bytes, bytearray, memoryview]  # noqa: UP007 - evaluated when imported, on 3.10 too

MAGIC = b"\xffRX1"
CALLS = 1
CONTROL = 2
UNKNOWN = (1 << 64) - 1  # an answer: there is no such stream any longer

_OPENING = struct.Struct("<4sB?2x48sQ")
_ANSWER = struct.Struct("<Q")
OPENING_SIZE = _OPENING.size
ANSWER_SIZE = _ANSWER.size


class Opening(NamedTuple):
    """The first bytes of a connection: which stream it carries, and how far the sender has come.

    >>> Opening.unpack(Opening(CALLS, "01hv3x", 7).pack())
    Opening(kind=1, id='01hv3x', received=7, begins=False)
    """

    kind: int  # CALLS: a lease's call stream; CONTROL: a client's control stream
    id: str
    received: int = 0
    begins: bool = False  # it is the stream's first: there is no answer

    def pack(self) -> bytes:
        """Return it as `OPENING_SIZE` bytes."""
        return _OPENING.pack(MAGIC, self.kind, self.begins, self.id.encode("ascii"), self.received)

    @classmethod
    def unpack(cls, data: bytes) -> Opening:
        """Return what `pack` packed.

        Raises:
            ProtocolError: it is none.
        """
        magic, kind, begins, name, received = _OPENING.unpack(data)
        try:
            text = name.rstrip(b"\0").decode("ascii")
        except UnicodeDecodeError:
            text = ""
        if magic != MAGIC or kind not in (CALLS, CONTROL) or not text:
            raise ProtocolError("a connection does not begin as one of ours does")
        return cls(kind, text, received, begins)


def pack_position(position: int) -> bytes:
    """Return a position as `ANSWER_SIZE` bytes."""
    return _ANSWER.pack(position)


def unpack_position(data: Buffer) -> int:
    """Return what `pack_position` packed.

    Raises:
        ProtocolError: it is not of that size.
    """
    if len(data) != ANSWER_SIZE:
        raise ProtocolError("a position is cut off")
    position: int = _ANSWER.unpack(data)[0]
    return position


class Kept:
    """What was sent and may have to be sent again. Nothing is copied.

    >>> kept = Kept()
    >>> kept.add(b"hello")
    ... kept.add(b"world")
    >>> kept.acknowledge(7)
    >>> [bytes(piece) for piece in kept.pieces()], kept.size
    ([b'rld'], 3)
    """

    def __init__(self) -> None:
        self._pieces: deque[Buffer] = deque()
        self._start = 0  # the position of the first byte that is kept
        self.sent = 0  # the position behind the last

    @property
    def size(self) -> int:
        """How many bytes are kept."""
        return self.sent - self._start

    def add(self, piece: Buffer) -> None:
        """Keep what is being sent."""
        if len(piece):
            self._pieces.append(piece)
            self.sent += len(piece)

    def acknowledge(self, position: int) -> None:
        """Forget what the peer has.

        Raises:
            ProtocolError: it claims to have what was never sent.
        """
        if position > self.sent:
            raise ProtocolError(f"a peer has {position:,} bytes of a stream of {self.sent:,}")
        while self._pieces and self._start + len(self._pieces[0]) <= position:
            self._start += len(self._pieces.popleft())
        if position > self._start:
            self._pieces[0] = memoryview(self._pieces[0])[position - self._start :]
            self._start = position

    def resume(self, position: int) -> None:
        """Begin again where the peer says that it is.

        Raises:
            ProtocolError: what it lacks is not kept any longer, or was never sent.
        """
        if position < self._start:
            raise ProtocolError(
                f"a peer lacks bytes from {position:,} on; they are kept from {self._start:,} on"
            )
        self.acknowledge(position)

    def pieces(self) -> Sequence[Buffer]:
        """What is kept, in order."""
        return tuple(self._pieces)
