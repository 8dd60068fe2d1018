"""Chunks are compressed where the link is slow and they shrink; whatever is sent arrives as it was."""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remote_exec.model.errors import ProtocolError
from remote_exec.wire import compression, frames
from remote_exec.wire.compression import Compression
from remote_exec.wire.frames import CHUNK, COMPRESSED, HEADER, Buffer, Frame, FrameReader

SLOW = 10e6
FAST = 1e12
MEGABYTE = 1 << 20


class Wire:
    """A link of a given rate. Time passes while pieces are sent, as told while they are fetched, and with work."""

    def __init__(self) -> None:
        self.now = 0.0
        self.bytes_per_second = SLOW
        self.preparing = 0.0  # seconds a piece
        self.sent: list[bytes] = []
        self.compression = Compression(lambda: self.now + time.process_time())

    def send(self, message: list[Buffer]) -> int:
        """Send a message; return how many bytes went."""
        before = sum(map(len, self.sent))
        for piece in self.compression.applied(self._prepared(message)):
            self.sent.append(bytes(piece))
            self.now += len(piece) / self.bytes_per_second
        return sum(map(len, self.sent)) - before

    def _prepared(self, message: list[Buffer]) -> Iterator[Buffer]:
        for piece in message:
            self.now += self.preparing
            yield piece

    def received(self) -> list[Frame]:
        reader, found = FrameReader(), list[Frame]()
        data = memoryview(b"".join(self.sent))
        while len(data):
            space = reader.space()
            size = min(len(space), len(data))
            space[:size], data = data[:size], data[size:]
            reader.filled(size)
            while (frame := reader.next()) is not None:
                found.append(frame._replace(payload=bytes(frame.payload)))
        assert reader.empty
        return found


def shrinking(size: int) -> bytes:
    return b"".join(number.to_bytes(4, "little") for number in range(size // 4))


PART = st.builds(
    lambda size, seed, shrinks: shrinking(size) if shrinks else random.Random(seed).randbytes(size),
    st.sampled_from([0, 1, 20, 1 << 15, 1 << 16, MEGABYTE - 1, MEGABYTE, MEGABYTE + 1, 5 << 19]),
    st.integers(0, 9),
    st.booleans(),
)


@settings(max_examples=10)
@given(
    messages=st.lists(
        st.tuples(st.lists(PART, max_size=3), st.sampled_from([SLOW, FAST])), min_size=1, max_size=6
    )
)
def test_whatever_is_sent_arrives_as_it_was(messages: list[tuple[list[bytes], float]]) -> None:
    wire = Wire()
    wire.send(frames.pack(frames.CALL, [bytes(4 * MEGABYTE)]))  # the link is known to be slow
    for number, (parts, rate) in enumerate(messages, start=1):
        wire.bytes_per_second = rate
        wire.send(frames.pack(frames.RESULT, parts, flags=frames.FAILED, function=number, call=number))
    _, *got = wire.received()
    assert [(frame.call, frame.function, frame.flags) for frame in got] == [
        (number, number, frames.FAILED) for number in range(1, len(messages) + 1)
    ]
    assert [frame.payload for frame in got] == [b"".join(parts) for parts, _ in messages]


def test_only_slow_links_have_what_shrinks_compressed() -> None:
    wire = Wire()
    wire.bytes_per_second = FAST
    data, noise = shrinking(8 * MEGABYTE), random.Random(1).randbytes(8 * MEGABYTE)

    def share(payload: bytes) -> float:
        return wire.send(frames.pack(frames.CALL, [payload])) / len(payload)

    assert share(data) > 1.0, "nobody is held up"
    wire.bytes_per_second = SLOW
    share(data)  # by then that is known
    assert share(data) < 0.5
    assert share(noise) > 1.0, "what does not shrink goes as it is"
    assert share(data[: frames.CHUNK // 32]) > 1.0, "what is small is not worth it"
    wire.bytes_per_second, wire.preparing = FAST, 0.2
    for _ in range(10):
        share(data)
    assert share(data) > 1.0, "a link that has become fast is found out"


def test_what_does_not_shrink_is_not_tried_chunk_by_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    wire, tried = Wire(), list[bool]()
    shrinks = compression._shrinks
    monkeypatch.setattr(compression, "_shrinks", lambda part: tried.append(shrinks(part)) or tried[-1])
    wire.send(frames.pack(frames.CALL, [bytes(4 * MEGABYTE)]))  # the link is known to be slow
    data, noise = shrinking(24 * MEGABYTE), random.Random(1).randbytes(12 * MEGABYTE)
    tried.clear()
    sent = wire.send(frames.pack(frames.CALL, [noise, data]))
    assert tried.count(False) <= 5
    assert sent < 0.8 * (len(noise) + len(data)), "what comes behind it is found to shrink before long"
    assert wire.send(frames.pack(frames.CALL, [noise])) > len(noise)
    assert wire.send(frames.pack(frames.CALL, [data])) < 0.5 * len(data), "another message is tried at once"


def test_a_compressed_chunk_holds_no_more_than_a_chunk() -> None:
    def read(payload: bytes) -> Frame | None:
        reader = FrameReader()
        data = HEADER.pack(len(payload), frames.CALL, COMPRESSED, 0, 0, 1, 0) + payload
        reader.space()[: len(data)] = data
        reader.filled(len(data))
        return reader.next()

    whole = read(zlib.compress(bytes(CHUNK)))
    assert whole is not None
    assert bytes(whole.payload) == bytes(CHUNK)
    for bomb in (zlib.compress(bytes(CHUNK + 1)), zlib.compress(bytes(50 * CHUNK))):
        with pytest.raises(ProtocolError, match="holds more than"):
            read(bomb)
    for broken in (b"", b"no zlib", zlib.compress(b"cut")[:-1], zlib.compress(b"more") + b"x"):
        with pytest.raises(ProtocolError, match="compressed chunk"):
            read(broken)
