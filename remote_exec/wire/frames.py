"""The frames of a call stream: a 20-byte header and a payload. No I/O, no clock.

Both ends use the same header; `kind` says what the payload is. A frame longer than `CHUNK` is sent as several,
all but the last bearing `MORE`; `FrameReader` puts them together again and refuses what passes its bound.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple, Union

from ..model.errors import ProtocolError

Buffer = Union[bytes, bytearray, memoryview]

HEADER = struct.Struct("<IBBHIII")  # payload length, kind, flags, buffer count, function id, call number, ack
HEADER_SIZE = HEADER.size

# from the client
DEFINE = 1  # payload: a pickled function; `function` is the id that calls name it by
CALL = 2  # payload: pickled (args, kwargs)
BATCH = 3  # payload: pickled list of argument tuples, run in order, answered by BATCH_RESULT frames
CONTEXT = 4  # payload: JSON; holds for the calls that follow (working directory, ...)
ACK = 5  # nothing but the header's ack
CREDIT = 6  # `function` more values may be yielded by the generator call
CLOSE_GENERATOR = 7  # the consumer wants no more of the generator call's values
BYE = 8  # the client ends the lease in good order: everything it waited for has been acknowledged

# from the worker
RESULT = 20  # payload: pickled value, or a failure (flag FAILED)
BATCH_RESULT = 21  # payload: pickled list of (ok, value or failure JSON); `function` is the first item's index
YIELD = 22  # payload: one pickled value of a generator call
OUTPUT = 23  # payload: bytes written to stdout (flag 0) or stderr (flag STDERR)
EVENT = 24  # payload: JSON: progress, log records, phases
GOAWAY = 25  # the worker takes no call after number `call`: later ones were not begun and may be sent elsewhere

# either way
RELEASE = 40  # payload: packed arena ids that the receiver holds no view of any longer
DROP = 41  # payload: packed arena ids that the sender has given up

# flags
FAILED = 1
MORE = 2
ARENA = 4  # the payload tells where in a shared arena the message lies
STDERR = 8
CANCELLED = 16
LAST = 32  # a BATCH_RESULT that completes its batch; a RESULT that ends a generator

CHUNK = 1 << 20
MAX_MESSAGE = 1 << 40


class Frame(NamedTuple):
    """One whole frame. `payload` is valid until the reader's next call unless it was put together from chunks."""

    kind: int
    flags: int
    count: int
    function: int
    call: int
    ack: int
    payload: Buffer


def pack(
    kind: int,
    payload: Sequence[Buffer] = (),
    *,
    flags: int = 0,
    count: int = 0,
    function: int = 0,
    call: int = 0,
    ack: int = 0,
) -> list[Buffer]:
    """Return the buffers that make up one frame, cut into chunks where it is long.

    Args:
        kind: one of the constants above.
        payload: its parts, in order; none of them is copied.
        flags: FAILED, ARENA, ... or-ed together.
        count: how many out-of-band buffers follow the pickle stream.
        function: function id, or as the kind says.
        call: call number, from 1 upwards on each stream.
        ack: the highest call number whose outcome this side has taken in.
    """
    total = sum(len(part) for part in payload)
    if total <= CHUNK:
        return [HEADER.pack(total, kind, flags, count, function, call, ack), *payload]
    frames: list[Buffer] = []
    left = total
    for part in payload:
        view = memoryview(part)
        for start in range(0, len(view), CHUNK):
            piece = view[start : start + CHUNK]
            left -= len(piece)
            more = MORE if left else 0
            frames.append(HEADER.pack(len(piece), kind, flags | more, count, function, call, ack))
            frames.append(piece)
    return frames


class FrameReader:
    """Bytes in, frames out. Feed it what a socket gave; it keeps what is not whole yet.

    The socket writes straight into `space()`; `filled(n)` says how much it wrote; `next()` gives a frame or None.
    """

    def __init__(self, *, max_message: int = MAX_MESSAGE) -> None:
        self._buffer = bytearray(1 << 16)
        self._view = memoryview(self._buffer)
        self._start = 0
        self._end = 0
        self._parts: list[bytes] = []
        self._parts_size = 0
        self._max_message = max_message

    def space(self) -> memoryview:
        """Return where the next bytes go; never empty."""
        if self._start == self._end:
            self._start = self._end = 0
        elif len(self._buffer) - self._end < HEADER_SIZE or self._start > (len(self._buffer) >> 1):
            self._compact()
        return self._view[self._end :]

    def filled(self, size: int) -> None:
        """Say that `size` bytes were written into `space()`."""
        self._end += size

    @property
    def empty(self) -> bool:
        """Whether no byte is kept."""
        return self._start == self._end and not self._parts

    def next(self) -> Frame | None:
        """Return the next whole frame, or None when more bytes are needed.

        Raises:
            ProtocolError: the peer sent a length beyond the bound.
        """
        while self._end - self._start >= HEADER_SIZE:
            size, kind, flags, count, function, call, ack = HEADER.unpack_from(self._buffer, self._start)
            if size > CHUNK:
                raise ProtocolError(f"a frame of {size:,} bytes is over the bound of {CHUNK:,}")
            body = self._start + HEADER_SIZE
            if self._end - body < size:
                self._reserve(HEADER_SIZE + size)
                return None
            self._start = body + size
            if flags & MORE or self._parts:
                frame = self._collect(Frame(kind, flags, count, function, call, ack, self._view[body : body + size]))
                if frame is None:
                    continue
                return frame
            return Frame(kind, flags, count, function, call, ack, self._view[body : body + size])
        return None

    def _collect(self, frame: Frame) -> Frame | None:
        self._parts.append(bytes(frame.payload))
        self._parts_size += len(frame.payload)
        if self._parts_size > self._max_message:
            raise ProtocolError(f"a message is over the bound of {self._max_message:,} bytes")
        if frame.flags & MORE:
            return None
        payload = bytearray().join(self._parts)
        self._parts, self._parts_size = [], 0
        return frame._replace(payload=payload, flags=frame.flags & ~MORE)

    def _reserve(self, size: int) -> None:
        if len(self._buffer) - self._start >= size:
            return
        if len(self._buffer) < size:
            buffer = bytearray(max(size, CHUNK + HEADER_SIZE))
            left = self._end - self._start
            buffer[:left] = self._view[self._start : self._end]
            self._buffer, self._view = buffer, memoryview(buffer)
            self._start, self._end = 0, left
        else:
            self._compact()

    def _compact(self) -> None:
        left = self._end - self._start
        self._buffer[:left] = bytes(self._view[self._start : self._end])
        self._start, self._end = 0, left
