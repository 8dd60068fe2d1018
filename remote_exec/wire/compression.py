"""Chunks of big messages that go compressed, where that is sooner there: over links slower than the compressor.

How fast the link is, is measured while big messages go, not configured: a slow one holds the sender up. Until it has,
all goes as it is, and what does not shrink always does. One object for each stream's sending end, under its lock.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Union

from .frames import COMPRESSED, HEADER

Buffer = Union[bytes, bytearray, memoryview]  # noqa: UP007 - evaluated when imported, on 3.10 too

LEAST = 1 << 16  # bytes of a chunk that is worth the trouble
SAMPLE = 1 << 15
LEVEL = 1
GOOD = 0.8  # what is left of a chunk that is worth it
# chunks that go untried behind some that did not shrink: to try one costs a tenth of sending it fast
MOST_PASSED = 16
WINDOW_SECONDS = 0.1  # of sending, after which the link's rate is known anew
HELD_UP = 0.25  # of a window: who waits for less is not held up by the link
GROWTH = 1.1  # the rate of a link that holds nobody up is taken to be higher, window by window
FIRST_SPEED = 100e6  # bytes a second that the compressor takes in, until it has been measured


class Compression:
    """See the module's docstring.

    Args:
        clock: monotonic seconds.

    Example::

        for piece in compression.applied(frames.pack(...)):
            sock.sendall(piece)
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rate = float("inf")  # of the link, in bytes a second
        self._speed = FIRST_SPEED  # of the compressor
        self._elapsed = self._waited = 0.0  # in this window
        self._sent = 0
        self._pass = self._passed = 0  # chunks to go untried from one that did not shrink, and how many have

    def applied(self, pieces: Iterable[Buffer]) -> Iterator[Buffer]:
        """Yield what to send for whole frames, as `frames.pack` made them; each piece is sent before the next."""
        pieces, clock = iter(pieces), self._clock
        self._pass = self._passed = 0
        for header in pieces:
            if not len(header):
                continue
            began = clock()
            chunk: list[Buffer] = [header]
            size = left = HEADER.unpack(header)[0]
            while left:
                chunk.append(next(pieces))
                left -= len(chunk[-1])
            if size < LEAST:  # it says nothing of the link
                yield from chunk
                continue
            packed = self.packed(chunk[1:], size)
            if packed is not None:
                _, kind, flags, *rest = HEADER.unpack(header)
                total = sum(map(len, packed))
                chunk = [HEADER.pack(total, kind, flags | COMPRESSED, *rest), *packed]
            ready = clock()
            yield from chunk
            ended = clock()
            self.took(sum(map(len, chunk)), ended - began, ended - ready)

    def packed(self, parts: Sequence[Buffer], size: int) -> list[bytes] | None:
        """Return bytes compressed, to be undone by `frames.expanded`; None where they had better go as they are.

        Args:
            parts: of them.
            size: all parts together, in bytes.
        """
        if size < LEAST or self._rate >= self._speed or not self._worth_it(max(parts, key=len)):
            return None
        began = self._clock()
        packer = zlib.compressobj(LEVEL)
        packed = [piece for part in parts if (piece := packer.compress(part))]
        packed.append(packer.flush())
        self._speed += (size / max(self._clock() - began, 1e-6) - self._speed) / 4
        return packed if sum(map(len, packed)) < size else None

    def _worth_it(self, part: Buffer) -> bool:
        if self._passed < self._pass:
            self._passed += 1
            return False
        shrinks = _shrinks(part)
        self._pass, self._passed = 0 if shrinks else min(2 * self._pass + 1, MOST_PASSED), 0
        return shrinks

    def took(self, size: int, elapsed: float, waited: float) -> None:
        """Take in how long so many bytes of something big took, and for how much of that the link was waited for."""
        self._sent += size
        self._elapsed += elapsed
        self._waited += waited
        if self._elapsed < WINDOW_SECONDS:
            return
        seen = self._sent / self._elapsed
        if self._waited >= HELD_UP * self._elapsed:
            self._rate = seen
        else:
            self._rate = GROWTH * max(seen, self._rate)
        self._elapsed, self._waited, self._sent = 0.0, 0.0, 0


def _shrinks(part: Buffer) -> bool:
    middle = max(0, len(part) - SAMPLE) // 2
    sample = memoryview(part)[middle : middle + SAMPLE]
    return len(zlib.compress(sample, LEVEL)) < GOOD * len(sample)
