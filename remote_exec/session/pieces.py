"""A large update goes over a link in pieces, ahead of its outcome: between two of them an interrupt is heeded."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from pickle import PickleBuffer
from typing import Any, NamedTuple

from .updates import Update

LARGE_BYTES = 4 << 20  # of an update; what is smaller goes as one
LEAST_BYTES, MOST_BYTES = 1 << 16, 8 << 20  # of a piece
UNDER_WAY = 2  # pieces: the link is never idle, and what an interrupt waits behind is little
QUICK_SECONDS, SLOW_SECONDS = (
    0.15,
    0.4,
)  # from a piece to its answer: those that follow are larger, or smaller


class Coming(NamedTuple):
    """Told first: of what there will be pieces.

    Attributes:
        sizes: of the update's stream and its buffers, in bytes.
        fixed: which of them cannot be written to.
    """

    sizes: tuple[int, ...]
    fixed: tuple[bool, ...]


class Piece(NamedTuple):
    """What comes next of it; to be answered."""

    data: Any


def send_ahead(
    update: Update,
    tell: Callable[[object], None],
    answered: Callable[[], object],
    between: Callable[[], None],
) -> Update:
    """Send what an update holds, in pieces; return the rest of it, which is small.

    Args:
        update: of which much is to be sent.
        tell: sends.
        answered: returns when the next piece has been answered.
        between: called before each piece; what it raises ends the sending.
    """
    parts = [memoryview(update.stream), *(PickleBuffer(buffer).raw() for buffer in update.buffers)]
    tell(Coming(tuple(part.nbytes for part in parts), tuple(part.readonly for part in parts)))
    size, under_way = LEAST_BYTES, deque[float]()
    for part in parts:
        begin = 0
        while begin < part.nbytes:
            if len(under_way) == UNDER_WAY:
                answered()
                took = time.monotonic() - under_way.popleft()
                if took < QUICK_SECONDS:
                    size = min(2 * size, MOST_BYTES)
                elif took > SLOW_SECONDS:
                    size = max(size // 2, LEAST_BYTES)
            between()
            under_way.append(time.monotonic())
            tell(Piece(PickleBuffer(part[begin : begin + size])))
            begin += size
    return update._replace(stream=b"", buffers=[])


class Arriving:
    """What has come of an update.

    Args:
        coming: what is to come.

    Example:
        >>> arriving = Arriving(Coming((2, 3), (True, False)))
        >>> for data in (b"up", b"da", b"t"):
        ...     _ = arriving.take(Piece(data))
        >>> arriving.parts()
        (b'up', [bytearray(b'dat')])
    """

    def __init__(self, coming: Coming) -> None:
        self._coming = coming
        self._parts = [bytearray(size) for size in coming.sizes]
        self._at: int = 0  # the part that is to be filled, ...
        self._filled: int = 0  # ... and how far it is
        self._skip()

    def take(self, piece: Piece) -> int:
        """Take in what comes next; return how many bytes that is."""
        data = memoryview(piece.data)
        end = self._filled + data.nbytes
        self._parts[self._at][self._filled : end] = data
        self._filled = end
        self._skip()
        return data.nbytes

    def _skip(self) -> None:
        while self._at < len(self._parts) and self._filled == len(self._parts[self._at]):
            self._at, self._filled = self._at + 1, 0

    def parts(self) -> tuple[bytes, Sequence[Any]]:
        """Return the update's stream and its buffers, when all has come."""
        buffers = [
            memoryview(part).toreadonly() if fixed else part
            for part, fixed in zip(self._parts[1:], self._coming.fixed[1:], strict=True)
        ]
        return bytes(self._parts[0]), buffers

    def completed(self, update: Update) -> Update:
        """Return the update, whole again."""
        stream, buffers = self.parts()
        return update._replace(stream=stream, buffers=list(buffers))
