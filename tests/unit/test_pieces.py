"""What goes home in pieces is there what it was here, and not a piece goes after an interrupt."""

from __future__ import annotations

import itertools
from pickle import PickleBuffer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_exec.serial import pickling
from remote_exec.session.pieces import LEAST_BYTES, UNDER_WAY, Arriving, Coming, Piece, send_ahead
from remote_exec.session.updates import Update

SIZES = st.integers(0, 5 * LEAST_BYTES) | st.sampled_from([LEAST_BYTES, 2 * LEAST_BYTES])
PARTS = st.lists(st.tuples(SIZES, st.booleans()), max_size=4)


def update_of(stream: bytes, buffers: list[PickleBuffer]) -> Update:
    return Update(3, stream, buffers, ("name",), b"", b"", (), (), (), frozenset(), 0, b"", b"", b"")


def made_of(parts: list[tuple[int, bool]]) -> list[PickleBuffer]:
    filled = [bytes([65 + place]) * size for place, (size, _) in enumerate(parts)]
    return [
        PickleBuffer(data if fixed else bytearray(data))
        for data, (_, fixed) in zip(filled, parts, strict=True)
    ]


@given(SIZES, PARTS)
def test_it_arrives_as_it_was(size: int, parts: list[tuple[int, bool]]) -> None:
    sent = update_of(b"s" * size, made_of(parts))
    heard: list[Any] = []
    answers = itertools.count()

    def answered() -> None:
        assert len(heard) - 1 - next(answers) == UNDER_WAY, "no more are under way, and no fewer"

    rest = send_ahead(sent, lambda told: heard.append(travelled(told)), answered, lambda: None)
    assert not rest.stream
    assert not rest.buffers
    coming, *pieces = heard
    assert isinstance(coming, Coming)
    arriving = Arriving(coming)
    assert sum(arriving.take(piece) for piece in pieces) == sum(coming.sizes)
    got = arriving.completed(rest)
    assert (got.turn, got.names, got.stream) == (sent.turn, sent.names, sent.stream)
    for buffer, before in zip(got.buffers, sent.buffers, strict=True):
        assert memoryview(buffer) == before.raw()
        assert memoryview(buffer).readonly == before.raw().readonly


def travelled(told: object) -> Any:
    return pickling.load(pickling.join(*pickling.dump(told)))


def test_after_an_interrupt_nothing_goes() -> None:
    heard: list[object] = []

    def between() -> None:
        if len(heard) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        send_ahead(update_of(bytes(9 * LEAST_BYTES), []), heard.append, lambda: None, between)
    assert [type(told) for told in heard] == [Coming, Piece]
