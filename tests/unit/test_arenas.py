"""Arenas: shared memory is reused, and never under a living array."""

from __future__ import annotations

import gc
import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from remote_exec.model.errors import ProtocolError
from remote_exec.wire import arenas, frames
from remote_exec.wire.arenas import (
    LENT_LIMIT,
    THRESHOLD,
    ReceivingArenas,
    SendingArenas,
    pack_ids,
    unpack_ids,
)
from remote_exec.wire.stream import CallStream

np = pytest.importorskip("numpy")
pytestmark = pytest.mark.skipif(not arenas.SUPPORTED, reason="no memfd here")
BIG = THRESHOLD + 1000

Pair = tuple[SendingArenas, ReceivingArenas, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    sending, receiving = SendingArenas(ours), ReceivingArenas(theirs)
    with ours, theirs:
        yield sending, receiving, ours
    sending.close()
    receiving.close()


def test_parts_are_writable_aligned_and_as_sent(pair: Pair) -> None:
    sending, receiving, _ = pair
    parts = [b"a" * 70, b"", b"b" * 1000]
    payload = sending.pack(parts)
    assert payload is not None
    views = receiving.unpack(payload)
    assert [bytes(view) for view in views] == parts
    assert all(np.frombuffer(view, np.uint8).ctypes.data % 64 == 0 for view in views)
    views[0][0] = 1


def test_an_arena_is_released_when_its_last_view_has_died_and_not_before(pair: Pair) -> None:
    sending, receiving, _ = pair
    payload = sending.pack([b"a" * 8, b"b" * 8])
    assert payload is not None
    first, second = (np.frombuffer(view, np.uint8) for view in receiving.unpack(payload))
    part = second[2:4]
    del first, second
    assert receiving.take_released() == [], "a view of a view still lives"
    del part
    assert receiving.take_released() == [1]
    assert receiving.take_released() == []


def test_a_released_arena_is_written_again(pair: Pair) -> None:
    sending, receiving, _ = pair
    for index in range(5):
        payload = sending.pack([bytes([index]) * BIG])
        assert payload is not None
        (view,) = receiving.unpack(payload)
        assert bytes(view[:1]) == bytes([index])
        del view
        assert receiving.take_released() == [1]
        sending.released([1])


def test_what_is_released_must_have_been_lent(pair: Pair) -> None:
    sending, _, _ = pair
    with pytest.raises(ProtocolError, match="not lent"):
        sending.released([1])
    assert sending.pack([b"x"]) is not None
    sending.released([1])
    with pytest.raises(ProtocolError, match="not lent"):
        sending.released([1])


def test_a_huge_arena_is_not_pinned_by_a_small_array(pair: Pair) -> None:
    sending, receiving, _ = pair
    payload = sending.pack([bytes(40 << 20)])
    assert payload is not None
    receiving.unpack(payload)
    sending.released(receiving.take_released())
    payload = sending.pack([bytes(BIG)])
    assert payload is not None
    kept = receiving.unpack(payload)
    assert len(kept[0].obj) <= 1 << 20
    assert struct.unpack_from("<I", payload)[0] == 2


def test_idle_arenas_are_bounded_and_given_up(pair: Pair) -> None:
    _, receiving, fd_socket = pair
    sending = SendingArenas(fd_socket, idle_limit=2 << 20)
    held = [receiving.unpack(sending.pack([bytes(BIG)]) or b"") for _ in range(4)]
    held.clear()
    sending.released(receiving.take_released())
    given_up = sending.take_dropped()
    assert len(given_up) == 2
    assert sending.take_dropped() == []
    assert set(receiving._mapped) == {1, 2, 3, 4}
    receiving.drop([*given_up, 77])
    assert set(receiving._mapped) == {1, 2, 3, 4} - set(given_up)


def test_an_array_outlives_its_arenas_end(pair: Pair) -> None:
    sending, receiving, _ = pair
    payload = sending.pack([b"z" * BIG])
    assert payload is not None
    (view,) = receiving.unpack(payload)
    receiving.drop([1])
    sending.close()
    del sending
    assert bytes(view) == b"z" * BIG


def test_no_more_arenas_are_lent_than_the_bound(pair: Pair) -> None:
    sending, receiving, _ = pair
    payloads = [sending.pack([b"x"]) for _ in range(LENT_LIMIT)]
    assert None not in payloads, "and none of them made the sender wait for its reader"
    assert sending.pack([b"x"]) is None
    held = [receiving.unpack(payload or b"") for payload in payloads]
    del held[3]
    sending.released(receiving.take_released())
    assert sending.pack([b"x"]) is not None


def test_messages_may_be_taken_apart_in_another_order_than_sent(pair: Pair) -> None:
    sending, receiving, _ = pair
    payloads = [sending.pack([bytes([index])]) or b"" for index in range(3)]
    assert [bytes(receiving.unpack(payloads[index])[0]) for index in (2, 0, 1)] == [b"\2", b"\0", b"\1"]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\1\0\0\0",
        struct.pack("<IIQ", 1, 0, 1 << 20),
        struct.pack("<IIQ", 1, 1, 1 << 20),
        struct.pack("<IIQQ", 1, 1, 1 << 20, (1 << 20) + 1),
        struct.pack("<IIQQQ", 1, 2, 1 << 20, 1 << 63, 1 << 63),
        struct.pack("<IIQQ", 1, 1, 1 << 30, 5),
        struct.pack("<IIQQ", 2, 1, 1 << 20, 5),
    ],
    ids=["nothing", "cut", "no parts", "no sizes", "too long", "far too long", "other capacity", "not sent"],
)
def test_a_payload_that_names_no_arena_or_reaches_beyond_it_is_refused(pair: Pair, payload: bytes) -> None:
    sending, receiving, _ = pair
    assert sending.pack([b"12345"]) is not None
    with pytest.raises(ProtocolError):
        receiving.unpack(payload)


def make_sealed(size: int) -> int:
    fd = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    arenas._seal(fd)
    return fd


@pytest.mark.parametrize("kind", ["unsealed", "file", "pipe", "empty", "none", "short"])
def test_what_is_not_a_sealed_memfd_is_refused(pair: Pair, kind: str, tmp_path: Any) -> None:
    """An arena that could shrink would kill its reader with SIGBUS."""
    _, receiving, fd_socket = pair
    fds: list[int] = []
    if kind == "unsealed":
        fds = [os.memfd_create("x", os.MFD_ALLOW_SEALING)]
        os.ftruncate(fds[0], 1 << 20)
    elif kind == "file":
        fds = [os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)]
    elif kind == "pipe":
        fds = list(os.pipe())
    elif kind == "empty":
        fds = [make_sealed(0)]
    number = b"\1\0" if kind == "short" else struct.pack("<I", 1)
    if kind == "none":
        fd_socket.send(number)
    else:
        fds = fds or [make_sealed(1 << 20)]
        socket.send_fds(fd_socket, [number], fds[:1])
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ProtocolError):
        receiving.unpack(struct.pack("<IIQQ", 1, 1, 1 << 20, 5))
    assert len(os.listdir("/proc/self/fd")) == before, "what was received is closed"
    for fd in fds:
        os.close(fd)


def test_lists_of_ids_round_trip() -> None:
    assert unpack_ids(pack_ids([1, 2, (1 << 32) - 1])) == (1, 2, (1 << 32) - 1)
    with pytest.raises(ProtocolError, match="cut"):
        unpack_ids(b"\1\0\0")


def test_where_no_arena_can_be_had_messages_go_over_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    sockets, fds = socket.socketpair(), socket.socketpair()
    left, right = (CallStream(sock, fd) for sock, fd in zip(sockets, fds, strict=True))

    def none_left(*_: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", none_left)
    sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    message = left.frame(frames.CALL, [b"p"], [bytes(1000)] * 400)
    monkeypatch.undo()
    from transport_checks import beside

    with beside(lambda: left.send(message)):
        frame = right.receive()
    assert frame is not None
    assert not frame.flags & frames.ARENA
    assert right.parts(frame)[1] == [bytes(1000)] * 400
    left.close()
    right.close()


class LivingArrays(RuleBasedStateMachine):
    """Two ends send arrays to and fro, keep some and drop others: whatever is kept is never overwritten."""

    def __init__(self) -> None:
        super().__init__()
        sockets, fds = socket.socketpair(), socket.socketpair()
        self.ends = [CallStream(sock, fd) for sock, fd in zip(sockets, fds, strict=True)]
        for end in self.ends:
            assert end._sending is not None
            end._sending._idle_limit = 3 << 20  # so that DROP is seen too
        self.kept: list[tuple[int, Any]] = []
        self.sent = 0

    @rule(
        sender=st.integers(0, 1),
        sizes=st.lists(st.integers(0, 2000) | st.integers(BIG, BIG * 6), min_size=1, max_size=3),
        keep=st.booleans(),
    )
    def send(self, sender: int, sizes: list[int], keep: bool) -> None:
        end, other = self.ends[sender], self.ends[1 - sender]
        number = self.sent = self.sent % 250 + 1
        if sum(sizes) < BIG:
            sizes = [*sizes, BIG]
        arrays = [np.full(size, number, np.uint8) for size in sizes]
        end.send(end.frame(frames.CALL, [b"p"], [array.data for array in arrays], call=number))
        frame = other.receive()
        assert frame is not None
        assert frame.flags & frames.ARENA
        data, buffers = other.parts(frame)
        assert bytes(data) == b"p"
        found = [np.frombuffer(buffer, np.uint8) for buffer in buffers]
        assert [len(array) for array in found] == sizes
        if keep:
            self.kept += [(number, array) for array in found]

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        del self.kept[data.draw(st.integers(0, len(self.kept) - 1))]

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def write_to_ones_own(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.kept) - 1))
        self.kept[index][1][:] = 251
        self.kept[index] = (251, self.kept[index][1])

    @rule(sender=st.integers(0, 1))
    def small_frame(self, sender: int) -> None:
        self.ends[sender].send_now(b"".join(frames.pack(frames.ACK)))
        assert self.ends[1 - sender].receive() is not None

    def teardown(self) -> None:
        for number, array in self.kept:
            assert (array == number).all()
        for end in self.ends:
            end.close()
        for number, array in self.kept:
            assert (array == number).all(), "arrays outlive their stream"

    @invariant()
    def contents_are_intact(self) -> None:
        for number, array in self.kept:
            assert (array == number).all()


LivingArrays.TestCase.settings = settings(max_examples=25, stateful_step_count=30)
TestLivingArrays = LivingArrays.TestCase


def test_collected_cycles_release_too(pair: Pair) -> None:
    sending, receiving, _ = pair
    payload = sending.pack([b"x"])
    assert payload is not None
    cycle: list[Any] = list(receiving.unpack(payload))
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert receiving.take_released() == [1]
