"""Call streams over real sockets: frames, big messages, and peers that behave badly."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transport_checks import check_transport

from remote_exec.model.errors import ProtocolError
from remote_exec.wire import arenas, frames
from remote_exec.wire.arenas import THRESHOLD
from remote_exec.wire.frames import CHUNK, HEADER
from remote_exec.wire.parts import MANY
from remote_exec.wire.stream import CallStream

Pair = tuple[CallStream, CallStream]


def make_pair(*, fd_sockets: bool) -> Pair:
    sockets, fds = socket.socketpair(), socket.socketpair()
    if not fd_sockets:
        for sock in fds:
            sock.close()
    left, right = (
        CallStream(sock, fd if fd_sockets else None) for sock, fd in zip(sockets, fds, strict=True)
    )
    for sock in sockets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 << 20)
    return left, right


@pytest.fixture(params=["arenas", "inline"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    if request.param == "arenas" and not arenas.SUPPORTED:
        pytest.skip("no memfd here")
    streams = make_pair(fd_sockets=request.param == "arenas")
    yield streams
    for stream in streams:
        stream.close()


# --- transports -----------------------------------------------------------------------------------------------


def tcp_loopback() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    return client, accepted


def test_unix_sockets_are_a_transport() -> None:
    check_transport(socket.socketpair)


def test_tcp_is_a_transport() -> None:
    check_transport(tcp_loopback)


def test_the_checks_notice_a_transport_that_loses_bytes() -> None:
    class Lossy(socket.socket):
        def sendall(self, data: object, flags: int = 0) -> None:  # type: ignore[override]
            super().sendall(bytes(data)[:-1] if len(bytes(data)) > 30 else data, flags)  # type: ignore[arg-type, call-overload]

    def lossy_pair() -> tuple[socket.socket, socket.socket]:
        one, other = socket.socketpair()
        return Lossy(fileno=one.detach()), other

    with pytest.raises((AssertionError, ProtocolError)):
        check_transport(lossy_pair)


# --- messages -------------------------------------------------------------------------------------------------


def exchange(
    pair: Pair, stream: list[bytes], buffers: list[bytes] | list[bytes | bytearray]
) -> tuple[bytes, list[bytes]]:
    from transport_checks import beside

    left, right = pair
    with beside(
        lambda: left.send(left.frame(frames.CALL, stream, buffers, function=1, call=2, ack=3))
    ) as sent:
        frame = right.receive()
    assert sent == [None]
    assert frame is not None
    assert (frame.kind, frame.function, frame.call, frame.ack) == (frames.CALL, 1, 2, 3)
    data, found = right.parts(frame)
    for one, buffer in zip(buffers, found, strict=True):
        assert not memoryview(buffer).readonly or type(one) is type(buffer) is bytes
    return bytes(data), [bytes(buffer) for buffer in found]


@given(
    st.booleans(),
    st.lists(st.binary(max_size=100), max_size=3),
    st.lists(st.integers(0, 3000) | st.integers(THRESHOLD - 100, THRESHOLD + 100), max_size=5),
)
@settings(max_examples=60)
def test_messages_come_apart_as_they_were_put_together(
    with_arenas: bool, stream: list[bytes], sizes: list[int]
) -> None:
    pair = make_pair(fd_sockets=with_arenas and arenas.SUPPORTED)
    buffers: list[bytes | bytearray] = [
        (bytes, bytearray)[index % 2]([index + 1]) * size for index, size in enumerate(sizes)
    ]
    try:
        assert exchange(pair, stream, buffers) == (b"".join(stream), buffers)
    finally:
        for end in pair:
            end.close()


@pytest.mark.parametrize("size", [THRESHOLD - 1, THRESHOLD, 3 * CHUNK + 7, (64 << 20) + 1])
def test_big_messages(pair: Pair, size: int) -> None:
    buffer = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert exchange(pair, [b"pickle"], [buffer, b"", b"y"]) == (b"pickle", [buffer, b"", b"y"])
    writable = bytearray(buffer)
    assert exchange(pair, [b"pickle"], [writable, buffer]) == (b"pickle", [writable, buffer])


@pytest.mark.parametrize("count", [MANY - 1, MANY, MANY + 1, 150_000])
def test_more_buffers_than_a_header_can_count(pair: Pair, count: int) -> None:
    buffers = [b"%d" % (index % 10) for index in range(count)]
    assert exchange(pair, [b"pickle"], buffers) == (b"pickle", buffers)
    buffers = [buffer * 8 for buffer in buffers]  # past the threshold: over an arena, where there are any
    assert exchange(pair, [b"pickle"], buffers) == (b"pickle", buffers)


def test_buffers_outlive_the_frame_that_brought_them(pair: Pair) -> None:
    left, right = pair
    left.send(left.frame(frames.CALL, [b"a"], [b"1" * 100]))
    frame = right.receive()
    assert frame is not None
    _, (kept,) = right.parts(frame)
    left.send(left.frame(frames.CALL, [b"b"], [b"2" * 100]))
    frame = right.receive()
    assert frame is not None
    right.parts(frame)
    assert bytes(kept) == b"1" * 100


@given(st.binary(max_size=80), st.integers(0, 65_535), st.integers(0, 255), st.integers(0, 255))
@settings(max_examples=200)
def test_a_strangers_message_is_a_protocol_error_or_bytes(
    payload: bytes, buffers: int, kind: int, flags: int
) -> None:
    left, right = make_pair(fd_sockets=arenas.SUPPORTED)
    try:
        left.send_now(HEADER.pack(len(payload), kind, flags & ~frames.MORE, buffers, 0, 1, 0) + payload)
        left.sock.shutdown(socket.SHUT_WR)
        frame = right.receive()
        if frame is not None:
            right.parts(frame)
    except ProtocolError:
        pass
    finally:
        left.close()
        right.close()


def cut(count: int, *sizes: int) -> bytes:
    return HEADER.pack(8 * len(sizes), frames.CALL, 0, count, 0, 1, 0) + struct.pack(
        f"<{len(sizes)}Q", *sizes
    )


@pytest.mark.parametrize(
    "data", [cut(1), cut(1, 0), cut(1, 0, 1), cut(1, 1 << 63, 1 << 63), cut(MANY), cut(MANY, 1 << 62)]
)
def test_lengths_that_do_not_add_up(pair: Pair, data: bytes) -> None:
    left, right = pair
    left.send_now(data)
    frame = right.receive()
    assert frame is not None
    with pytest.raises(ProtocolError, match="do not add up"):
        right.parts(frame)


@pytest.mark.parametrize("kind", [frames.RELEASE, frames.DROP])
def test_arena_notices_where_there_are_no_arenas_are_refused(kind: int) -> None:
    left, right = make_pair(fd_sockets=False)
    left.send(frames.pack(kind, [b"\1\0\0\0"]))
    with pytest.raises(ProtocolError, match="unknown kind"):
        right.receive()
    left.send(frames.pack(frames.CALL, [b"x"], flags=frames.ARENA))
    frame = right.receive()
    assert frame is not None
    with pytest.raises(ProtocolError, match="no arenas"):
        right.parts(frame)
    left.close()
    right.close()


def test_try_send_leaves_a_sender_alone(pair: Pair) -> None:
    left, _ = pair
    with left.send_lock:
        assert not left.try_send(frames.pack(frames.OUTPUT, [b"x"]))
    assert left.try_send(frames.pack(frames.OUTPUT, [b"x"]))
