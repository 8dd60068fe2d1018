"""Frames: whatever the pieces they come in, the same frames go out; a stranger's bytes end in `ProtocolError`."""

from __future__ import annotations

import socket
import struct
import tracemalloc
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_exec.model.errors import ProtocolError
from remote_exec.wire import frames
from remote_exec.wire.frames import CHUNK, COMPRESSED, HEADER, HEADER_SIZE, MORE, Frame, FrameReader
from remote_exec.wire.parts import MANY, READ_ONLY, table
from remote_exec.wire.stream import CallStream


class Sent(NamedTuple):
    """A frame as a test describes it."""

    kind: int
    parts: tuple[bytes, ...]
    flags: int
    buffers: int
    function: int
    call: int
    ack: int

    @property
    def packed(self) -> bytes:
        kind, parts, flags, buffers, function, call, ack = self
        return b"".join(
            frames.pack(kind, parts, flags=flags, buffers=buffers, function=function, call=call, ack=ack)
        )

    @property
    def frame(self) -> Frame:
        payload = b"".join(self.parts)
        return Frame(self.kind, self.flags, self.buffers, self.function, self.call, self.ack, payload)


U32 = st.integers(0, (1 << 32) - 1)
SENT = st.builds(
    Sent,
    kind=st.integers(0, 255),
    parts=st.lists(st.binary(max_size=300), max_size=4).map(tuple),
    flags=st.integers(0, 255).map(lambda flags: flags & ~(MORE | COMPRESSED)),
    buffers=st.integers(0, 65_535),
    function=U32,
    call=U32,
    ack=U32,
)


def read(pieces: Iterable[bytes], reader: FrameReader | None = None) -> list[Frame]:
    """Feed the pieces to a reader; return its frames, with their payloads copied."""
    reader = reader or FrameReader()
    found: list[Frame] = []
    for piece in pieces:
        while piece:
            space = reader.space()
            size = min(len(space), len(piece))
            assert size, "a reader always has space"
            space[:size] = piece[:size]
            reader.filled(size)
            piece = piece[size:]
            while (frame := reader.next()) is not None:
                found.append(frame._replace(payload=bytes(frame.payload)))
    return found


def split(data: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    """Cut the data into pieces of these sizes, and a last one."""
    position = 0
    for size in sizes:
        yield data[position : position + size]
        position += size
    yield data[position:]


@given(st.lists(SENT, max_size=12), st.lists(st.integers(1, 400), max_size=60))
def test_any_frames_in_any_pieces_are_the_same_frames(sent: list[Sent], sizes: list[int]) -> None:
    data = b"".join(one.packed for one in sent)
    reader = FrameReader()
    assert read(split(data, sizes), reader) == [one.frame for one in sent]
    assert reader.empty


@given(st.lists(SENT, max_size=4))
def test_one_byte_at_a_time_gives_the_same_frames(sent: list[Sent]) -> None:
    data = b"".join(one.packed for one in sent)
    assert read(data[i : i + 1] for i in range(len(data))) == [one.frame for one in sent]


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 5])
@pytest.mark.parametrize("piece", [777_777, 1 << 16, 5 * CHUNK])
def test_long_messages_travel_in_chunks(size: int, piece: int) -> None:
    payload = bytes(range(256)) * (size // 256) + b"e" * (size % 256)
    # The parts neither begin nor end where chunks do, and some are empty.
    sent = Sent(frames.CALL, (payload[:100], b"", payload[100:], b""), frames.FAILED, 0, 1, 2, 3)
    small = Sent(frames.ACK, (), 0, 0, 0, 0, 4)
    data = small.packed + sent.packed + small.packed
    pieces = (data[i : i + piece] for i in range(0, len(data), piece))
    assert read(pieces) == [small.frame, sent.frame, small.frame]


class Long(NamedTuple):
    """A message of several parts as a test describes it: how it is cut into chunks, and which are compressed."""

    stream: bytes
    buffers: list[bytes | bytearray]
    cuts: list[int]
    compressed: list[bool]

    @property
    def packed(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def chunks(self) -> list[bytes]:
        payload = table([self.stream], self.buffers) + b"".join([self.stream, *self.buffers])
        ends = sorted({cut % len(payload) for cut in self.cuts} - {0})
        chunks = [payload[begin:end] for begin, end in zip([0, *ends], [*ends, len(payload)], strict=True)]
        count, found = min(len(self.buffers), MANY), list[bytes]()
        for number, chunk in enumerate(chunks, start=1):
            flags = MORE if number < len(chunks) else 0
            if self.compressed[number % len(self.compressed)]:
                flags, chunk = flags | COMPRESSED, zlib.compress(chunk)
            found.append(HEADER.pack(len(chunk), frames.CALL, flags, count, 0, 7, 0) + chunk)
        return found


LONG = st.builds(
    Long,
    stream=st.binary(max_size=50),
    buffers=st.lists(
        st.binary(max_size=300) | st.binary(max_size=300).map(bytearray) | st.just(b"long" * 1000), max_size=5
    ).filter(bool),
    cuts=st.lists(st.integers(0, 5000), max_size=9),
    compressed=st.lists(st.booleans(), min_size=1, max_size=9),
)


@given(st.lists(LONG, min_size=1, max_size=3), st.lists(st.integers(1, 400), max_size=60), st.booleans())
def test_parts_are_the_same_in_any_chunks_and_any_pieces(
    sent: list[Long], sizes: list[int], bytewise: bool
) -> None:
    small = Sent(frames.ACK, (b"x",), 0, 0, 0, 0, 4)
    data = b"".join(small.packed + one.packed for one in sent) + small.packed
    pieces = (data[i : i + 1] for i in range(len(data))) if bytewise else split(data, sizes)
    reader = FrameReader()
    got = read(pieces, reader)
    assert reader.empty
    assert got[::2] == [small.frame] * (len(sent) + 1)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = CallStream(ours)
        for one, frame in zip(sent, got[1::2], strict=True):
            data, buffers = stream.parts(frame)
            assert (bytes(data), frame.call) == (one.stream, 7)
            assert buffers == one.buffers
            for buffer, original in zip(buffers, one.buffers, strict=True):
                assert type(buffer) is bytes if type(original) is bytes else not memoryview(buffer).readonly


@given(LONG.filter(lambda one: len(one.chunks) > 1), st.data(), st.lists(st.integers(1, 400), max_size=60))
def test_of_a_message_that_is_cut_nothing_is_heard(cut: Long, data: st.DataObject, sizes: list[int]) -> None:
    gone = data.draw(st.integers(1, len(cut.chunks) - 1))
    small, word = Sent(frames.ACK, (b"x",), 0, 0, 0, 0, 4), HEADER.pack(0, frames.CUT, 0, 0, 0, 0, 0)
    sent = b"".join([small.packed, *cut.chunks[:gone], word, *cut.chunks, small.packed])
    reader = FrameReader()
    first, whole, last = read(split(sent, sizes), reader)
    assert reader.empty
    assert (first, last) == (small.frame, small.frame)
    assert whole.parts == cut.buffers


@pytest.mark.parametrize("size", [CHUNK, 3 * CHUNK + 5])
def test_a_long_buffer_is_received_into_memory_of_its_own_once(size: int) -> None:
    """What has come takes memory once, and a bit; what is writable is, and all of it outlives the reader."""
    reader = FrameReader()
    parts = [
        table([b"pickle"], [bytes(size), bytearray(size)]),
        b"pickle",
        bytes(size),
        bytearray(b"w") * size,
    ]
    data = Sent(frames.CALL, tuple(map(bytes, parts)), 0, 2, 0, 1, 0).packed
    tracemalloc.start()
    try:
        (frame,) = read((data[i : i + 50_001] for i in range(0, len(data), 50_001)), reader)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2.3 * size + 3 * CHUNK
    del reader
    assert frame.payload == b"pickle"
    assert frame.parts is not None
    fixed, writable = frame.parts
    assert type(fixed) is bytes
    memoryview(writable)[0] = 0
    assert (fixed, bytes(writable)) == (bytes(size), b"\0" + b"w" * (size - 1))


@pytest.mark.parametrize("announced", [(3, 1 << 62), (1 << 62, 3), ((1 << 63) - 1, (1 << 63) - 1)])
def test_what_is_announced_takes_no_memory_and_must_come(announced: tuple[int, int]) -> None:
    told = struct.pack("<2Q", *announced)
    tracemalloc.start()
    try:
        reader = FrameReader()
        assert read([chunk(told + b"x" * 100)], reader) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * CHUNK
    with pytest.raises(ProtocolError, match="do not add up"):
        read([chunk(b"x", last=True)], reader)


@pytest.mark.parametrize(
    "pieces",
    [
        [struct.pack("<2Q", 1, 2), b"abcd"],
        [struct.pack("<2Q", 1, 2), b"ab"],
        [struct.pack("<2Q", 0, 0), b"a"],
        [struct.pack("<2Q", READ_ONLY, 1), b"a"],
        [b"x" * 8, b"x" * 7],
    ],
)
def test_lengths_that_do_not_add_up_in_chunks(pieces: list[bytes]) -> None:
    with pytest.raises(ProtocolError, match="do not add up"):
        read([chunk(pieces[0]), chunk(pieces[1], last=True)])


def test_a_count_of_more_buffers_than_can_come_takes_no_memory() -> None:
    data = HEADER.pack(8, frames.CALL, MORE, MANY, 0, 1, 0) + struct.pack("<Q", (1 << 64) - 1)
    last = HEADER.pack(8, frames.CALL, 0, MANY, 0, 1, 0) + bytes(8)
    reader = FrameReader()
    assert read([data], reader) == []
    with pytest.raises(ProtocolError, match="do not add up"):
        read([last], reader)


def test_a_message_put_together_from_chunks_outlives_the_readers_next_call() -> None:
    reader = FrameReader()
    (first,) = read([Sent(frames.RESULT, (b"a" * (CHUNK + 1),), 0, 0, 0, 1, 0).packed], reader)
    kept = first.payload
    read([Sent(frames.RESULT, (b"b" * (CHUNK + 1),), 0, 0, 0, 2, 0).packed], reader)
    assert bytes(kept) == b"a" * (CHUNK + 1)


@given(st.lists(st.binary(max_size=200) | SENT.map(lambda sent: sent.packed), max_size=10))
def test_garbage_ends_in_a_protocol_error_or_in_frames(pieces: list[bytes]) -> None:
    try:
        read(pieces)
    except ProtocolError:
        pass


def chunk(payload: bytes, *, last: bool = False) -> bytes:
    """Return a chunk of a message with one buffer."""
    return HEADER.pack(len(payload), frames.CALL, 0 if last else MORE, 1, 0, 1, 0) + payload


def header(size: int, *, kind: int = frames.CALL, flags: int = 0, call: int = 1) -> bytes:
    return HEADER.pack(size, kind, flags, 0, 0, call, 0)


def test_a_frame_over_the_bound_is_refused_from_its_header() -> None:
    with pytest.raises(ProtocolError, match="over the bound"):
        read([header(CHUNK + 1)])
    with pytest.raises(ProtocolError, match="over the bound"):
        read([header((1 << 32) - 1)])


def test_a_message_over_the_bound_is_refused_at_the_chunk_that_passes_it() -> None:
    reader = FrameReader(max_message=250)
    part = header(100, flags=MORE) + b"x" * 100
    assert read([part, part], reader) == []
    with pytest.raises(ProtocolError, match="over the bound of 250 bytes"):
        read([part], reader)


def test_chunks_of_two_messages_may_not_be_mixed() -> None:
    first = header(1, flags=MORE) + b"x"
    for other in (header(1, call=2) + b"y", header(1, kind=frames.RESULT) + b"y", header(0, flags=1)):
        with pytest.raises(ProtocolError, match="mixed up"):
            read([first, other])


def test_empty_chunks_are_refused_since_any_number_of_them_would_pass_any_bound() -> None:
    with pytest.raises(ProtocolError, match="empty"):
        read([header(0, flags=MORE)])


def test_a_reader_keeps_no_more_than_a_chunk_however_much_passes_through() -> None:
    reader = FrameReader()
    data = b"".join(Sent(frames.OUTPUT, (b"o" * 70_000,), 0, 0, 0, 1, 0).packed for _ in range(10))
    read([data], reader)
    tracemalloc.start()
    try:
        for _ in range(20):
            for start in range(0, len(data), 50_001):
                read([data[start : start + 50_001]], reader)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * (CHUNK + HEADER_SIZE)
    assert reader.empty


def test_a_payload_stays_valid_until_the_next_call() -> None:
    reader = FrameReader()
    data = (
        Sent(frames.CALL, (b"one",), 0, 0, 0, 1, 0).packed
        + Sent(frames.CALL, (b"two",), 0, 0, 0, 2, 0).packed
    )
    reader.space()[: len(data)] = data
    reader.filled(len(data))
    first = reader.next()
    assert first is not None
    assert isinstance(first.payload, memoryview), "it is not copied"
    second = reader.next()
    assert second is not None
    assert (bytes(first.payload), bytes(second.payload)) == (b"one", b"two")
