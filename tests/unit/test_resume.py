"""Streams that outlive their connections: nothing is lost, doubled or out of order, wherever a connection breaks."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import until

from remote_exec.model.errors import ProtocolError
from remote_exec.wire import frames
from remote_exec.wire.protocol import CancelCall, Position
from remote_exec.wire.resumable import ResumableStream
from remote_exec.wire.resumable_control import ResumableControl
from remote_exec.wire.resume import CALLS, OPENING_SIZE, UNKNOWN, Kept, Opening, pack_position

SECONDS = 30.0


@given(pieces=st.lists(st.binary(max_size=9)), steps=st.lists(st.integers(0, 60)))
def test_what_is_kept_is_what_the_peer_has_not_acknowledged(pieces: list[bytes], steps: list[int]) -> None:
    kept, whole, acknowledged = Kept(), b"".join(pieces), 0
    for piece in pieces:
        kept.add(piece)
    assert kept.sent == len(whole)
    for step in steps:
        if step > len(whole):
            with pytest.raises(ProtocolError, match="of a stream of"):
                kept.acknowledge(step)
            continue
        kept.acknowledge(step)
        acknowledged = max(acknowledged, step)
        assert b"".join(kept.pieces()) == whole[acknowledged:]
        assert kept.size == len(whole) - acknowledged
    if acknowledged:
        with pytest.raises(ProtocolError, match="lacks bytes"):
            kept.resume(acknowledged - 1)


@given(st.binary(min_size=OPENING_SIZE, max_size=OPENING_SIZE))
def test_bytes_that_are_no_opening_are_refused_as_such(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        assert Opening.unpack(data).pack()[:1] == b"\xff"
    opening = Opening(CALLS, "lease", 1 << 40, begins=True)
    assert Opening.unpack(opening.pack()) == opening


class Pair:
    """A stream's two ends, and what brings them a connection whenever they have none."""

    def __init__(self) -> None:
        self.near, self.far = ResumableStream(receive_seconds=0.05), ResumableStream()
        self.wire: socket.socket | None = None
        self.connections = 0

    def connect(self) -> None:
        here, there = socket.socketpair()
        self.wire = here
        self.connections += 1
        self.near.cut()
        received = self.near.received
        self.near.attach(here, None)
        self.far.attach(there, received, answer=True)

    def break_off(self) -> None:
        if self.wire is not None:
            with contextlib.suppress(OSError):
                self.wire.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for end in (self.near, self.far):
            end.give_up()
            end.close()


@settings(max_examples=4)
@given(seed=st.integers(0, 1 << 30))
def test_messages_of_all_sizes_arrive_once_and_in_order_over_a_connection_that_breaks(seed: int) -> None:
    chance, pair, done = random.Random(seed), Pair(), threading.Event()
    sizes = [chance.choice((0, 1, 200, 5_000, 300_000, 3_000_000)) for _ in range(60)]
    payloads = [bytes([index]) * size for index, size in enumerate(sizes)]
    expected: list[list[bytes]] = []
    for payload in payloads:
        half = len(payload) // 2
        expected += [[payload], [payload[:9], payload, payload[:half], payload[half:]]]
    got: dict[str, list[list[bytes]]] = {"near": [], "far": []}

    def send(end: ResumableStream) -> None:
        for number, payload in enumerate(payloads, start=1):
            half = len(payload) // 2
            end.send(end.frame(frames.CALL, [payload[:half], payload[half:]], call=number))
            buffers = [payload, bytearray(payload[:half]), payload[half:]]
            end.send(end.frame(frames.RESULT, [payload[:9]], buffers, call=number))

    def receive(end: ResumableStream, name: str) -> None:
        while len(got[name]) < 2 * len(payloads) and not done.is_set():
            with contextlib.suppress(BlockingIOError):
                frame = end.receive()
                assert frame is not None
                assert frame.call == len(got[name]) // 2 + 1
                got[name].append([bytes(part) for part in (end.parts(frame)[0], *end.parts(frame)[1])])

    def break_off() -> None:
        while not done.wait(chance.random() * 0.005) and pair.connections < 30:
            pair.break_off()

    def mend() -> None:
        while not done.wait(0.001):
            if pair.near.cut_at or pair.far.cut_at:
                pair.connect()

    threads = [
        threading.Thread(target=send, args=(pair.near,)),
        threading.Thread(target=send, args=(pair.far,)),
        threading.Thread(target=receive, args=(pair.near, "near")),
        threading.Thread(target=receive, args=(pair.far, "far")),
    ]
    others = [threading.Thread(target=break_off), threading.Thread(target=mend)]
    for thread in (*threads, *others):
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    done.set()
    pair.break_off()
    for thread in others:
        thread.join(SECONDS)
    try:
        assert got["near"] == expected
        assert got["far"] == expected
        assert pair.connections > 1
    finally:
        pair.close()


def test_a_broken_connection_looks_like_silence_and_the_next_one_wakes_who_waits() -> None:
    pair = Pair()
    pair.connect()
    with pytest.raises(BlockingIOError):
        pair.near.fill()
    pair.break_off()
    heard: list[frames.Frame | None] = []
    waiting = threading.Thread(target=lambda: heard.append(pair.far.receive()))
    waiting.start()
    until(lambda: pair.far.cut_at > 0.0)
    with pytest.raises(BlockingIOError):
        pair.near.fill(socket.MSG_DONTWAIT)
    assert not select.select([pair.near], [], [], 0)[0], "nothing is to be read where there is no connection"
    pair.near.send(frames.pack(frames.CALL, [b"kept"], call=1))
    assert not pair.near.try_send(frames.pack(frames.ACK)), "what may be left out is not kept for later"
    pair.connect()
    with contextlib.suppress(BlockingIOError):
        pair.near.fill()  # the far end's position: then it is sent
    waiting.join(SECONDS)
    assert heard[0] is not None
    assert bytes(heard[0].payload) == b"kept"
    pair.close()


def test_an_end_that_is_given_up_ends_for_who_waits_and_who_sends() -> None:
    stream = ResumableStream()
    ended: list[object] = []
    waiting = threading.Thread(target=lambda: ended.append(stream.receive()))
    waiting.start()
    stream.give_up()
    waiting.join(SECONDS)
    assert ended == [None]
    with pytest.raises(ConnectionError):
        stream.send_now(b"x")
    stream.close()
    stream.close()


def test_a_far_end_that_knows_of_no_such_stream_ends_it() -> None:
    stream, (ours, theirs) = ResumableStream(), socket.socketpair()
    stream.attach(ours, None)
    theirs.sendall(pack_position(UNKNOWN))
    assert stream.receive() is None
    assert stream.forgotten
    theirs.close()
    stream.close()


def test_what_the_peer_has_is_not_kept() -> None:
    pair = Pair()
    pair.connect()
    with contextlib.suppress(BlockingIOError):
        pair.near.fill()  # the far end's position
    message = frames.pack(frames.CALL, [bytes(1 << 20)], call=1)
    for _ in range(4):
        sending = threading.Thread(target=lambda: pair.near.send(list(message)))
        sending.start()
        assert pair.far.receive() is not None
        sending.join(SECONDS)
        with contextlib.suppress(BlockingIOError):
            while pair.near.next() is None:
                pair.near.fill()
    assert pair.near._kept.size < 1 << 20
    pair.close()


def test_control_messages_survive_cuts_and_descriptors_are_refused() -> None:
    ours, theirs = socket.socketpair()
    near, far = ResumableControl(ours), ResumableControl(theirs)
    near.send(CancelCall("a", 1))
    theirs.close()  # before it was read
    assert near.receive() is None
    for number in range(2, 5):
        near.send(CancelCall("a", number), b"body")
    again, there = socket.socketpair()
    far.resume(there, near.received)
    near.resume(again, far.received)
    got = []
    while len(got) < 4:
        got += far.receive() or []
    assert [one.message.call for one in got] == [1, 2, 3, 4]
    assert got[3].body == b"body"
    far.tell_position(ask=True)
    assert near.receive() == [], "positions are the stream's own"
    far.receive()
    assert near._kept.size < len(b"body") + 200
    with pytest.raises(ProtocolError, match="another machine"):
        near.send(Position(0), fds=(0,))
    near.close()
    far.close()
