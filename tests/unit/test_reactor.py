"""The agent's loop over real descriptors; timers are short, and nobody waits for the clock."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from remote_exec.agent.link import Link
from remote_exec.agent.reactor import TIMERS_KEPT, Reactor
from remote_exec.wire import protocol


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    made = Reactor()
    made.after(30, lambda: pytest.fail("the loop was not stopped"))
    yield made
    made.close()


def test_callbacks_come_in_order_soon_then_timers(reactor: Reactor) -> None:
    told: list[str] = []
    reactor.after(0.002, lambda: told.append("second"))
    reactor.after(0.001, lambda: told.append("first"))
    reactor.after(0.003, reactor.stop)
    reactor.after(0.0015, lambda: told.append("never")).cancel()
    reactor.soon(lambda: told.append("soon"))
    reactor.run()
    assert told == ["soon", "first", "second"]


def test_work_in_a_thread_comes_back_to_the_loops_thread(reactor: Reactor) -> None:
    told: list[Any] = []

    def done(result: Any, error: BaseException | None) -> None:
        told.append((result, type(error), threading.current_thread()))
        if len(told) == 2:
            reactor.stop()

    reactor.in_thread(lambda: 1 + 1, done)
    reactor.in_thread(lambda: 1 / 0, done)
    reactor.run()
    here = threading.current_thread()
    assert sorted(told, key=str) == sorted([(2, type(None), here), (None, ZeroDivisionError, here)], key=str)


def test_a_callback_that_fails_is_logged_and_the_others_go_on(
    reactor: Reactor, caplog: pytest.LogCaptureFixture
) -> None:
    reactor.soon(lambda: 1 / 0)
    reactor.soon(reactor.stop)
    with caplog.at_level(logging.ERROR):
        reactor.run()
    assert "ZeroDivisionError" in caplog.text


def test_what_a_turn_unwatches_is_not_called_in_that_turn(reactor: Reactor) -> None:
    """A descriptor that was closed may by then be somebody else's."""
    told: list[int] = []
    pairs = [socket.socketpair() for _ in range(2)]
    for index, (ours, theirs) in enumerate(pairs):
        theirs.send(b"x")

        def ready(index: int = index) -> None:
            told.append(index)
            for other, _ in pairs:
                reactor.unwatch(other.fileno())
            reactor.soon(reactor.stop)

        reactor.watch(ours.fileno(), ready)
    reactor.run()
    assert len(told) == 1
    for pair in pairs:
        for sock in pair:
            sock.close()


def test_cancelled_timers_do_not_pile_up(reactor: Reactor) -> None:
    for _ in range(20 * TIMERS_KEPT):
        reactor.after(3600, lambda: None).cancel()
    assert len(reactor._timers) <= 2 * TIMERS_KEPT


# --- links ------------------------------------------------------------------------------------------------------


class Peer:
    """A link, what it heard, and the other end of its socket."""

    def __init__(self, reactor: Reactor) -> None:
        ours, self.sock = socket.socketpair()
        self.heard: list[Any] = []
        self.ends: list[str] = []
        self.reactor = reactor
        self.link = Link(reactor, ours, on_message=self.hear, on_end=self.end)

    def hear(self, message: Any, body: bytes) -> None:
        self.heard.append((message, body))
        if isinstance(message, protocol.Adopt):
            for fd in self.link.take_fds(1):
                os.close(fd)

    def end(self, reason: str) -> None:
        self.ends.append(reason)
        self.reactor.stop()


@pytest.fixture
def peer(reactor: Reactor) -> Iterator[Peer]:
    made = Peer(reactor)
    yield made
    made.link.close()
    made.sock.close()


def test_a_link_hears_messages_and_then_the_end_once(reactor: Reactor, peer: Peer) -> None:
    from remote_exec.wire.control import ControlStream

    other = ControlStream(peer.sock)
    other.send(protocol.LeaseEnded("a"), b"body")
    other.send(protocol.Adopt(1), fds=(0,))
    other.close()
    reactor.run()
    assert peer.heard == [(protocol.LeaseEnded("a"), b"body"), (protocol.Adopt(1), b"")]
    assert peer.ends == ["end of stream"]
    peer.link.end("again")
    peer.link.send(protocol.LeaseEnded("b"))
    assert peer.ends == ["end of stream"]


def test_sending_to_a_dead_peer_ends_the_link_with_the_reason(reactor: Reactor, peer: Peer) -> None:
    reactor.unwatch(peer.link._stream.fileno())  # so that only sending can tell
    peer.sock.close()
    peer.link.send(protocol.LeaseEnded("a"))
    assert peer.ends == [], "never from within `send`"
    reactor.run()
    assert len(peer.ends) == 1
    assert "Broken pipe" in peer.ends[0] or "reset" in peer.ends[0]


@pytest.mark.parametrize("data", [b"\xff" * 64, b"\2\0\0\0\0\0\0\0{}"])
def test_a_peer_that_breaks_the_protocol_is_cut_off(reactor: Reactor, peer: Peer, data: bytes) -> None:
    peer.sock.send(data)
    reactor.run()
    assert len(peer.ends) == 1
    assert peer.link.closed
    assert peer.sock.recv(1) == b""


def test_a_peer_that_promises_descriptors_and_sends_none_is_cut_off(reactor: Reactor, peer: Peer) -> None:
    from remote_exec.wire.messages import encode

    peer.sock.send(encode(protocol.Adopt(1)) + encode(protocol.LeaseEnded("a")))
    reactor.run()
    assert peer.ends == ["a message came without its descriptors"]
    assert [type(message) for message, _ in peer.heard] == [protocol.Adopt], "what follows is not heard"


def test_what_a_slow_peer_does_not_take_goes_out_when_it_reads(reactor: Reactor, peer: Peer) -> None:
    from remote_exec.wire.control import ControlStream

    for _ in range(20):
        peer.link.send(protocol.StopWorker(), bytes(100_000))
    assert peer.link.backlog
    other, got = ControlStream(peer.sock), 0

    def read() -> None:
        nonlocal got
        got += len(other.receive() or ())
        if got == 20:
            reactor.stop()

    reactor.watch(peer.sock.fileno(), read)
    reactor.run()
    assert not peer.link.backlog
    reactor.unwatch(peer.sock.fileno())
