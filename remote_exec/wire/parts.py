"""The parts of a message: a pickle and its out-of-band buffers, which a table of their sizes tells apart.

A payload of `buffers` buffers is the table, the pickle, and the buffers one after the other. Each is received into
memory of its own: what a page of new memory costs is several times what a copy costs, so none is taken twice.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import Union

from ..model.errors import ProtocolError

Buffer = Union[bytes, bytearray, memoryview]  # noqa: UP007 - evaluated when imported, on 3.10 too

MANY = 0xFFFF  # what the header's `buffers` holds when there are so many or more: then the payload begins with it
READ_ONLY = 1 << 63  # of a buffer's size: it cannot be written to where it comes from, and arrives as `bytes`
_NOT_ADDING_UP = "a message's lengths do not add up"


def table(stream: Sequence[Buffer], buffers: Sequence[Buffer]) -> bytes:
    """Return the table of sizes, which goes before the parts."""
    sizes = [sum(len(part) for part in stream)]
    sizes += [len(one) | (READ_ONLY if memoryview(one).readonly else 0) for one in buffers]
    if len(buffers) >= MANY:
        sizes.insert(0, len(buffers))
    return struct.pack(f"<{len(sizes)}Q", *sizes)


class Assembly:
    """A message's payload on its way in, in pieces of any size. Memory is taken as they come, not as announced.

    Args:
        buffers: what the header says of how many there are; with none, the payload is one part, and has no table.

    Example:
        >>> assembly = Assembly(1)
        >>> for piece in (table([b"pickle"], [b"buffer"]), b"pick", b"lebuffer"):
        ...     assembly.add(memoryview(piece))
        >>> assembly.finish()
        (b'pickle', [b'buffer'])
    """

    def __init__(self, buffers: int) -> None:
        self.size = 0  # of all that has come
        self._parts: list[Buffer] = []  # that are whole
        # as much as has come of the next: it becomes bytes, or a writable view, without a copy
        self._part = io.BytesIO()
        self._count = buffers
        self._sizes: Sequence[int] = ()  # as in the table
        self._table = bytearray()  # as far as it has come
        self._told = 8 if buffers == MANY else 8 * (buffers + 1) if buffers else 0  # how much it must be
        self._counted = buffers != MANY

    def add(self, data: memoryview) -> None:
        """Take in what comes next.

        Raises:
            ProtocolError: it is more than was announced.
        """
        self.size += len(data)
        if not self._told:
            self._part.write(data)
            return
        while not self._sizes:
            lacking = self._told - len(self._table)
            self._table += data[:lacking]
            data = data[lacking:]
            if len(self._table) < self._told:
                return
            self._read_table()
        sizes, parts = self._sizes, self._parts
        while len(parts) < len(sizes):
            size, read_only = sizes[len(parts)] & ~READ_ONLY, not parts or sizes[len(parts)] & READ_ONLY
            before = self._part.tell()
            piece = data[: size - before]
            if len(piece) == size:
                parts.append(bytes(piece) if read_only else bytearray(piece))
            else:
                self._part.write(piece)
                if before + len(piece) < size:
                    return
                parts.append(self._part.getvalue() if read_only else self._part.getbuffer())
                self._part = io.BytesIO()
            data = data[len(piece) :]
        if len(data):
            raise ProtocolError(_NOT_ADDING_UP)

    def finish(self) -> tuple[Buffer, list[Buffer] | None]:
        """Return the pickle and the buffers; None where there is no table. The buffers of writable ones are writable.

        Raises:
            ProtocolError: it is less than was announced.
        """
        if not self._told:
            return self._part.getvalue(), None
        if not self._sizes or len(self._parts) < len(self._sizes):
            raise ProtocolError(_NOT_ADDING_UP)
        return self._parts[0], self._parts[1:]

    def _read_table(self) -> None:
        if not self._counted:
            self._count, self._counted = struct.unpack("<Q", self._table)[0], True
            self._table.clear()
            self._told = 8 * (self._count + 1)
            return
        self._sizes = struct.unpack(f"<{self._count + 1}Q", self._table)
        self._table.clear()
        if self._sizes[0] & READ_ONLY:
            raise ProtocolError(_NOT_ADDING_UP)
