"""The frames of a call stream: a 20-byte header and a payload. No I/O, no clock.

Both ends use the same header; `kind` says what the payload is. A frame longer than `CHUNK` is sent as several,
all but the last bearing `MORE`; `FrameReader` puts them together again and refuses what passes its bound.

>>> reader = FrameReader()
>>> data = b"".join(pack(CALL, [b"pickled"], function=1, call=7))
>>> reader.space()[: len(data)] = data
>>> reader.filled(len(data))
>>> frame = reader.next()
>>> frame.kind == CALL, frame.call, bytes(frame.payload)
(True, 7, b'pickled')
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Union, cast

from ..model.errors import ProtocolError
from .parts import Assembly

Buffer = Union[bytes, bytearray, memoryview]  # noqa: UP007 - evaluated when imported, on 3.10 too

HEADER = struct.Struct("<IBBHIII")  # payload length, kind, flags, buffer count, function id, call number, ack
HEADER_SIZE = HEADER.size
_unpack = HEADER.unpack_from

FUNCTIONS_KEPT = 256  # of a lease, by its worker: one that was defined so many ago is gone

# from the client
DEFINE = 1  # payload: a pickled function; `function` is the id that calls name it by
CALL = 2  # payload: pickled (args, kwargs)
BATCH = 3  # payload: pickled list of argument tuples, run in order, answered by BATCH_RESULT frames
CONTEXT = 4  # payload: JSON; holds for the calls that follow (working directory, ...)
ACK = 5  # nothing but the header's ack
CREDIT = 6  # `function` more values may be yielded by the generator call
CLOSE_GENERATOR = 7  # the consumer wants no more of the generator call's values
BYE = 8  # the client ends the lease in good order: everything it waited for has been acknowledged
GENERATE = 9  # as CALL; what a generator makes is wanted at once, as YIELD frames
ANSWER = 10  # payload: a pickled value, for the generator call that has asked for it and waits

# from the worker
RESULT = 20  # payload: pickled value, or a failure (flag FAILED)
# payload: pickled (values, {place: failure JSON}); `function`: the first one's index; `ack`: the microseconds they took
BATCH_RESULT = 21
YIELD = 22  # payload: one pickled value of a generator call
OUTPUT = 23  # payload: bytes written to stdout (flag 0) or stderr (flag STDERR)
EVENT = 24  # payload: JSON: progress, log records, phases
# of the calls up to number `function`, the worker begins none after number `call`, and of that one no item from
# number `ack` on, if that is not 0: send them elsewhere
WITHDRAWN = 25

# either way
RELEASE = 40  # payload: packed arena ids that the receiver holds no view of any longer
DROP = 41  # payload: packed arena ids that the sender has given up
POSITION = 42  # payload: how many bytes of the stream the sender has received, see `resume`
CUT = 43  # nothing but the header: of the message whose chunks have come so far, no other comes; it is void

# flags
FAILED = 1
MORE = 2
ARENA = 4  # the payload tells where in a shared arena the message lies
STDERR = 8
CANCELLED = 16
LAST = 32  # a BATCH_RESULT that ends its batch: items that are missing were not begun; a RESULT that ends a generator
TREES = 64  # the values name folders that are to be fetched
COMPRESSED = 128  # of one frame's payload, by zlib; its own length is at most CHUNK: see `compression`
GENERATOR_WINDOW = 64  # values of a generator that may be under way before its consumer asks for more
CHUNK = 1 << 20  # bytes of payload in one frame
MAX_MESSAGE = 1 << 40  # bytes of payload in one message; memory is taken as they come, not as announced


class Frame(NamedTuple):
    """One whole frame; `payload` is valid until the reader's next call, unless it was put together from chunks.

    The fields are the arguments of `pack`, and `parts`: what came in chunks has its buffers there, each in memory of
    its own, and of its payload the pickle is left; None: they are in the payload, if there are any.
    """

    kind: int
    flags: int
    buffers: int
    function: int
    call: int
    ack: int
    payload: Buffer
    parts: list[Buffer] | None = None


_IN_PARTS = MORE | COMPRESSED

# As Frame(*fields), without the call of its Python-level __new__: it is a third of what a frame costs.
_new = cast("Callable[[type[Frame], tuple[Any, ...]], Frame]", tuple.__new__)  # pyright: ignore[reportUnknownMemberType]


def pack(
    kind: int,
    payload: Sequence[Buffer] = (),
    *,
    flags: int = 0,
    buffers: int = 0,
    function: int = 0,
    call: int = 0,
    ack: int = 0,
) -> list[Buffer]:
    """Return the buffers that make up one frame, cut into chunks where it is long.

    Args:
        kind: one of the constants above.
        payload: its parts, in order; none of them is copied.
        flags: FAILED, ARENA, ... or-ed together.
        buffers: how many out-of-band buffers follow the pickle stream, at most 65,535.
        function: function id, or as the kind says.
        call: call number, from 1 upwards on each stream.
        ack: the highest call number whose outcome this side has taken in.
    """
    total = sum(len(part) for part in payload)
    if total <= CHUNK:
        return [HEADER.pack(total, kind, flags, buffers, function, call, ack), *payload]
    frames: list[Buffer] = []
    chunk: list[Buffer] = []
    left, room = total, min(total, CHUNK)
    for part in payload:
        view = memoryview(part)
        while len(view):
            piece, view = view[:room], view[room:]
            chunk.append(piece)
            room -= len(piece)
            if not room:
                size = min(left, CHUNK)
                left -= size
                more = MORE if left else 0
                frames.append(HEADER.pack(size, kind, flags | more, buffers, function, call, ack))
                frames += chunk
                chunk, room = [], min(left, CHUNK)
    return frames


class FrameReader:
    """Bytes in, frames out. It keeps what is not whole yet: at most one chunk, and one message's parts.

    The socket writes straight into `space()`; `filled(n)` says how much it wrote; `next()` gives a frame or None.
    After a `ProtocolError` the stream is of no use any longer.

    Args:
        max_message: how many bytes of payload the chunks of one message may add up to.
    """

    def __init__(self, *, max_message: int = MAX_MESSAGE) -> None:
        self._buffer = bytearray(1 << 16)
        self._view = memoryview(self._buffer)
        self._start: int = 0
        self._end: int = 0
        self._max_message = max_message
        self._message: Assembly | None = None  # that comes in chunks: what there is of one goes there at once
        self._head: Frame | None = None  # its first chunk's, without a payload
        self._left: int = 0  # bytes of the present chunk that are to come
        self._more = False  # whether there is another behind it

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
        """Whether no byte is kept: the stream may end here."""
        return self._start == self._end and self._message is None

    def next(self) -> Frame | None:
        """Return the next whole frame, or None when more bytes are needed.

        Raises:
            ProtocolError: the peer passed a bound, or mixed up the chunks of two messages, or a message's lengths.
        """
        while True:
            message = self._message
            if message is not None:
                frame = self._put_together(message)
                if frame is not None or self._message is message:
                    return frame
            body = self._start + HEADER_SIZE
            if body > self._end:
                return None
            size, kind, flags, buffers, function, call, ack = _unpack(self._buffer, self._start)
            if not flags & MORE:
                break
            head = _new(Frame, (kind, flags & ~_IN_PARTS, buffers, function, call, ack, b"", None))
            self._head, self._message = head, Assembly(0 if flags & ARENA else buffers)
            self._reserve(CHUNK)  # so that much is read at a time
        end = body + size
        if end > self._end:
            self._reserve(size)
            return None
        self._start = end
        payload: Buffer = self._view[body:end]
        if flags & COMPRESSED:
            flags, payload = flags & ~COMPRESSED, expanded(payload)
        return _new(Frame, (kind, flags, buffers, function, call, ack, payload, None))

    def _put_together(self, message: Assembly) -> Frame | None:
        """Take in what has come of a message's chunks; return it when it is whole."""
        while (data := self._of_chunk()) is not None:
            if self._more and not self._left and not data:
                raise ProtocolError("a chunk is empty")  # any number of them would pass any bound
            if message.size + len(data) > self._max_message:
                raise ProtocolError(f"a message is over the bound of {self._max_message:,} bytes")
            message.add(data)
            if not self._left and not self._more:
                assert self._head is not None  # noqa: S101 - the first chunk has set it
                payload, parts = message.finish()
                head, self._head, self._message = self._head, None, None
                return head._replace(payload=payload, parts=parts)
        return None

    def _of_chunk(self) -> memoryview | None:
        """Return what has come of a chunk, or of the next, that was not returned.

        None when more bytes are needed, or the message is cut; then there is none any longer.
        """
        if not self._left:
            body = self._start + HEADER_SIZE
            if body > self._end:
                return None
            size, kind, flags, buffers, function, call, ack = _unpack(self._buffer, self._start)
            if kind == CUT and not size:
                self._start, self._head, self._message = body, None, None
                return None
            if (kind, flags & ~_IN_PARTS, buffers, function, call, ack, b"", None) != self._head:
                raise ProtocolError("the chunks of two messages are mixed up")
            end = body + size
            if size > CHUNK or (flags & COMPRESSED and end > self._end):
                self._reserve(size)
                return None
            self._more = bool(flags & MORE)
            if flags & COMPRESSED:
                self._start = end
                return memoryview(expanded(self._view[body:end]))
            self._start, self._left = body, size
        begin = self._start
        size = min(self._left, self._end - begin)
        if self._left and not size:
            return None
        self._start, self._left = begin + size, self._left - size
        return self._view[begin : self._start]

    def _reserve(self, size: int) -> None:
        """Make room for a frame with a payload of `size` bytes, from where it starts."""
        # No frame over the bound can be whole: the buffer never grows to hold one.
        if size > CHUNK:
            raise ProtocolError(f"a frame of {size:,} bytes is over the bound of {CHUNK:,}")
        size += HEADER_SIZE
        if len(self._buffer) - self._start >= size:
            return
        if len(self._buffer) < size:
            buffer = bytearray(CHUNK + HEADER_SIZE)
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


def expanded(payload: Buffer) -> bytes:
    """Return what a compressed chunk holds; no more memory is taken than a chunk may have.

    Raises:
        ProtocolError: it holds more, or was not compressed by `compression`.
    """
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(payload, CHUNK + 1)
    except zlib.error as error:
        raise ProtocolError(f"a compressed chunk cannot be read: {error}") from None
    if not unpacker.eof or unpacker.unused_data or len(data) > CHUNK:
        raise ProtocolError(f"a compressed chunk is cut off, or holds more than {CHUNK:,} bytes")
    return data
