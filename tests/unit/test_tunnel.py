"""The pure half of a tunnel: whatever is sent arrives, in order, however the bytes are cut and the peers behave."""

from __future__ import annotations

import itertools
from collections import defaultdict
from unittest.mock import patch

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from remote_exec.model.errors import ProtocolError
from remote_exec.wire import tunnel
from remote_exec.wire.tunnel import (
    BEAT,
    DATA,
    END,
    GREETING,
    HEADER,
    MAX_CONNECTIONS,
    MAX_NOISE,
    MAX_REASON,
    OPEN,
    PIECE,
    RESET,
    WINDOW,
    Arrived,
    Ended,
    Opened,
    TunnelEnd,
    WasReset,
)

NEAR, FAR = True, False
NOISE = b"Last login: Monday\r\n\x1b[1mWelcome\x1b[0m to gpu1\r\n"


def frame(kind: int, number: int = 0, size: int = 0, body: bytes = b"") -> bytes:
    return HEADER.pack(kind, number, size) + body


def output(end: TunnelEnd) -> bytes:
    return b"".join(iter(lambda: b"".join(end.output()), b""))


def greeted(*, opens: bool) -> TunnelEnd:
    """An end whose peer has spoken, and for the one that opens, with connection 1 open."""
    end = TunnelEnd(opens=opens)
    if opens:
        end.open()
    end.receive(GREETING[not opens])
    output(end)
    return end


# --- two ends, and all that can happen between them ---


class TwoEnds(RuleBasedStateMachine):
    """Small windows and pieces, so that they are met often; every rule may meet a state where it does nothing."""

    CREDIT, PIECE = 200, 30

    def __init__(self) -> None:
        super().__init__()
        self.patches = [
            patch.object(tunnel, "CREDIT", self.CREDIT),
            patch.object(tunnel, "PIECE", self.PIECE),
        ]
        for one in self.patches:
            one.start()
        self.ends = {side: TunnelEnd(opens=side) for side in (NEAR, FAR)}
        self.wire: dict[bool, bytearray] = {NEAR: bytearray(), FAR: bytearray()}  # that it has sent
        self.known: dict[bool, set[int]] = {NEAR: set(), FAR: set()}
        self.sent: dict[tuple[bool, int], bytearray] = defaultdict(bytearray)
        self.came: dict[tuple[bool, int], bytearray] = defaultdict(bytearray)
        self.taken: dict[tuple[bool, int], int] = defaultdict(int)
        self.ending: set[tuple[bool, int]] = set()  # by whom
        self.ended: set[tuple[bool, int]] = set()  # seen by whom
        self.reset: dict[int, set[bool]] = defaultdict(set)  # by whom
        self.bytes = itertools.cycle(range(256))

    def teardown(self) -> None:
        try:
            self.everything_arrives_in_the_end()
        finally:
            for one in self.patches:
                one.stop()

    @initialize(noise=st.sampled_from([b"", NOISE, GREETING[NEAR] + b"echoed", GREETING[FAR][:-1]]))
    def print_first(self, noise: bytes) -> None:
        self.wire[FAR] += noise

    @rule()
    def open(self) -> None:
        self.known[NEAR].add(self.ends[NEAR].open())

    @rule(side=st.booleans(), pick=st.integers(0, 9), size=st.integers(1, 40))
    def send(self, side: bool, pick: int, size: int) -> None:
        if (number := self.pick(side, pick)) and (room := self.ends[side].sendable(number)):
            data = bytes(itertools.islice(self.bytes, min(size, room)))
            self.ends[side].send(number, data)
            self.sent[side, number] += data

    @rule(side=st.booleans(), pick=st.integers(0, 9))
    def end(self, side: bool, pick: int) -> None:
        if number := self.pick(side, pick):
            self.ends[side].end(number)
            self.ending.add((side, number))
            assert not self.ends[side].sendable(number)

    @precondition(lambda self: len(self.reset) < 3)
    @rule(side=st.booleans(), pick=st.integers(0, 9))
    def let_go(self, side: bool, pick: int) -> None:
        if number := self.pick(side, pick):
            self.ends[side].reset(number, "no reason")
            self.reset[number].add(side)
            assert not self.ends[side].sendable(number)

    @rule(side=st.booleans(), pick=st.integers(0, 9), size=st.integers(1, 300))
    def take(self, side: bool, pick: int, size: int) -> None:
        if number := self.pick(side, pick):
            size = min(size, len(self.came[side, number]) - self.taken[side, number])
            self.taken[side, number] += size
            if size:
                self.ends[side].taken(number, size)

    @rule(side=st.booleans())
    def beat(self, side: bool) -> None:
        self.ends[side].beat()

    @rule(side=st.booleans(), size=st.integers(1, 150))
    def move(self, side: bool, size: int) -> None:
        for piece in self.ends[side].output():
            self.wire[side] += piece
        data, self.wire[side] = self.wire[side][:size], self.wire[side][size:]
        peer = not side
        for event in self.ends[peer].receive(bytes(data)):
            note(f"{'near' if peer else 'far'} hears {event!r}")
            if isinstance(event, Opened):
                self.known[peer].add(event.connection)
            elif isinstance(event, Arrived):
                assert (peer, event.connection) not in self.ended
                self.came[peer, event.connection] += event.data
            elif isinstance(event, Ended):
                self.ended.add((peer, event.connection))
            else:
                assert event == WasReset(event.connection, "no reason")
                assert event.connection in self.reset

    def pick(self, side: bool, pick: int) -> int:
        return sorted(self.known[side])[pick % len(self.known[side])] if self.known[side] else 0

    @invariant()
    def what_came_is_what_was_sent(self) -> None:
        for (side, number), came in self.came.items():
            assert self.sent[not side, number].startswith(came)
            assert len(came) - self.taken[side, number] <= self.CREDIT
            assert len(self.sent[not side, number]) - self.taken[side, number] <= self.CREDIT

    def everything_arrives_in_the_end(self) -> None:
        for _ in range(2):  # what is taken may let more be sent, but none is
            for side in (NEAR, FAR):
                while self.ends[side].has_output or self.wire[side]:
                    self.move(side, 1 << 20)
                for number in self.known[side]:
                    self.take(side, sorted(self.known[side]).index(number), 1 << 20)
        self.what_came_is_what_was_sent()
        for number in self.known[NEAR] - self.reset.keys():
            for side in (NEAR, FAR):
                assert self.came[side, number] == self.sent[not side, number]
                assert ((side, number) in self.ended) == ((not side, number) in self.ending)
        for number, sides in self.reset.items():
            for side in sides if len(sides) == 1 else ():
                assert self.came[not side, number] == self.sent[side, number], "sent before it let go"
        alive = {
            number
            for number in self.known[NEAR] - self.reset.keys()
            if not {(NEAR, number), (FAR, number)} <= self.ending
        }
        for end in self.ends.values():
            assert end.greeted
            assert end._connections.keys() == alive, "what has ended is forgotten, and nothing else"


TestTwoEnds = TwoEnds.TestCase
TestTwoEnds.settings = settings(max_examples=80, stateful_step_count=60)


# --- fairness ---


def test_a_small_message_waits_for_one_piece_of_each_busy_connection() -> None:
    end = TunnelEnd(opens=True)
    busy = [end.open() for _ in range(5)]
    small = end.open()
    output(end)
    passed: list[int] = []
    for turn in range(8):
        if turn == 2:
            end.send(small, b"small")
        for number in busy:
            if end.sendable(number):
                end.send(number, bytes(PIECE))
        passed += [len(piece) for piece in end.output() if len(piece) in (PIECE, 5)]
    at = passed.index(5)
    assert at <= 2 * 2 + len(busy), "two pieces in each turn before it, then one of each connection"
    assert set(passed[at + 1 :]) == {PIECE}, "and they go on"


def test_nobody_sends_beyond_the_credit() -> None:
    end = greeted(opens=True)
    sent = 0
    while room := end.sendable(1):
        end.send(1, bytes(room))
        with pytest.raises(ValueError, match="more bytes than can be sent"):
            end.send(1, b"x")
        sent += room
        output(end)
    assert sent == tunnel.CREDIT
    end.receive(frame(WINDOW, 1, 10))
    assert end.sendable(1) == 10


# --- peers that misbehave ---


@pytest.mark.parametrize(
    ("opens", "told", "data"),
    [
        (NEAR, "opened by whom", frame(OPEN, 2)),
        (FAR, "opened by whom", frame(OPEN, 2)),
        (FAR, "opened by whom", frame(OPEN, 1) + frame(OPEN, 1)),
        (FAR, "never opened", frame(DATA, 1, 1, b"x")),
        (NEAR, "never opened", frame(END, 7)),
        (NEAR, "never opened", frame(RESET, 0)),
        (NEAR, "must have 1 to", frame(DATA, 1, 0)),
        (NEAR, "must have 1 to", frame(DATA, 1, PIECE + 1)),
        (NEAR, "than there was credit for", frame(DATA, 1, PIECE, bytes(PIECE)) * (tunnel.CREDIT // PIECE + 1)),
        (NEAR, "credit for what was not sent", frame(WINDOW, 1, 1)),
        (NEAR, "credit for what was not sent", frame(WINDOW, 1, 0)),
        (NEAR, "ended twice", frame(END, 1) * 2),
        (NEAR, "ended twice, or with a body", frame(END, 1, 1)),
        (NEAR, "after a connection's end", frame(END, 1) + frame(DATA, 1, 1, b"x")),
        (NEAR, "over the bound", frame(RESET, 1, MAX_REASON + 1)),
        (NEAR, "belongs to no connection", frame(BEAT, 1)),
        (NEAR, "unknown kind 9", frame(9, 1)),
    ],
)  # fmt: skip
def test_a_peer_that_breaks_the_protocol_is_found_out(opens: bool, told: str, data: bytes) -> None:
    with pytest.raises(ProtocolError, match=told):
        greeted(opens=opens).receive(data)


@given(opens=st.booleans(), pieces=st.lists(st.binary(max_size=40), max_size=8))
def test_any_bytes_are_taken_in_or_refused_as_the_protocol_has_it(opens: bool, pieces: list[bytes]) -> None:
    end = greeted(opens=opens)
    try:
        for piece in pieces:
            end.receive(piece)
    except ProtocolError:
        pass
    assert len(end._connections) <= MAX_CONNECTIONS


def test_connections_beyond_the_bound_are_refused_and_what_comes_for_them_is_dropped() -> None:
    far = greeted(opens=False)
    numbers = range(1, MAX_CONNECTIONS + 3)
    data = b"".join(
        frame(OPEN, number) + frame(DATA, number, 1, b"x") + frame(END, number) for number in numbers
    )
    opened = [event.connection for event in far.receive(data) if isinstance(event, Opened)]
    assert opened == list(numbers)[:MAX_CONNECTIONS]
    told = output(far)
    assert told.count(b"connections are open") == 2
    for number in opened:
        far.taken(number, 1)
        far.end(number)
    output(far)
    assert far.receive(frame(OPEN, MAX_CONNECTIONS + 3)) == [Opened(MAX_CONNECTIONS + 3)], (
        "there is room again"
    )


def test_a_connection_counts_until_what_came_over_it_is_taken() -> None:
    far = greeted(opens=False)
    over = frame(DATA, 1, 1, b"x") + frame(END, 1)
    far.receive(
        frame(OPEN, 1) + over + b"".join(frame(OPEN, number) for number in range(2, MAX_CONNECTIONS + 1))
    )
    far.end(1)
    output(far)
    far.receive(frame(OPEN, MAX_CONNECTIONS + 1))
    assert b"connections are open" in output(far)
    far.taken(1, 1)
    assert far.receive(frame(OPEN, MAX_CONNECTIONS + 2)) == [Opened(MAX_CONNECTIONS + 2)]


def test_a_peer_that_opens_without_end_and_never_reads_is_cut_off() -> None:
    far = greeted(opens=False)
    opens = b"".join(frame(OPEN, number) for number in range(1, 10 * MAX_CONNECTIONS))
    with pytest.raises(ProtocolError, match="does not read"):
        far.receive(opens)


def test_what_was_under_way_to_a_connection_that_was_let_go_of_is_dropped() -> None:
    near = greeted(opens=True)
    head = frame(DATA, 1, 10, b"12345")
    assert [type(event) for event in near.receive(head)] == [Arrived]
    near.reset(1, "not wanted")
    assert near.receive(b"67890" + frame(WINDOW, 1, 5) + frame(END, 1) + frame(RESET, 1)) == []
    assert output(near) == frame(RESET, 1, 10, b"not wanted")


# --- the greeting ---


@pytest.mark.parametrize("cuts", [1, 3, 1 << 20])
def test_what_is_printed_before_the_greeting_is_skipped(cuts: int) -> None:
    near, far = TunnelEnd(opens=True), TunnelEnd(opens=False)
    near.send(near.open(), b"at once")
    events = far.receive(b"".join(near.output()))
    assert [type(event) for event in events] == [Opened, Arrived], "the near end waits for no greeting"
    far.send(1, b"answer")
    stream = NOISE + output(far)
    came = b""
    for at in range(0, len(stream), cuts):
        came += b"".join(
            bytes(event.data) for event in near.receive(stream[at : at + cuts]) if isinstance(event, Arrived)
        )
    assert came == b"answer"


def test_the_far_end_says_nothing_before_the_near_end_has() -> None:
    far = TunnelEnd(opens=False)
    far.beat()
    assert far.output() == []
    far.receive(GREETING[NEAR])
    assert output(far) == GREETING[FAR]


def test_a_greeting_that_never_comes_is_told_with_what_came_instead() -> None:
    near = TunnelEnd(opens=True)
    near.receive(NOISE + b"sh: 1: python3: not found\n")
    assert "sh: 1: python3: not found" in near.why_ended()
    assert "\x1b" not in near.why_ended(), "a terminal would obey it"
    assert "it printed nothing" in TunnelEnd(opens=True).why_ended()
    near.receive(bytes(MAX_NOISE - 100))
    with pytest.raises(ProtocolError, match=r"does not say hello.*\n.*spam"):
        near.receive(b"spam " * 100)


def test_an_echoing_or_translating_terminal_is_no_peer() -> None:
    near = TunnelEnd(opens=True)
    near.receive(b"".join(near.output()) + GREETING[FAR].replace(b"\n", b"\r\n"))
    assert not near.greeted


def test_an_end_within_a_frame_is_told() -> None:
    near = greeted(opens=True)
    assert near.why_ended() == tunnel.ENDED
    near.receive(frame(END, 1)[:5])
    assert "middle of a frame" in near.why_ended()
