"""Conformance checks for byte streams: whoever adds a way to reach a host runs them on it.

They ask what trio's ``check_two_way_stream`` asks (close twice, close while another reads, half-open, clogged),
of a stream that carries frames: one byte at a time, cut in the middle of a frame, both ways at once.

Example::

    def make_pair() -> tuple[
        socket.socket, socket.socket
    ]: ...  # two connected, blocking stream sockets, or what looks like them


    def test_my_transport() -> None:
        check_transport(make_pair)
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from remote_exec.model.errors import ProtocolError
from remote_exec.wire import frames
from remote_exec.wire.frames import CHUNK
from remote_exec.wire.stream import CallStream

MakePair = Callable[[], tuple[socket.socket, socket.socket]]
DEADLINE_SECONDS = 20


def check_transport(make_pair: MakePair) -> None:
    """Ask a transport all the rude questions; each gets a pair of ends of its own.

    Args:
        make_pair: returns two connected, blocking ends; closing them is left to the checks.

    Raises:
        AssertionError: it does not behave as call streams need it.
    """
    for check in CHECKS:
        ends = make_pair()
        for end in ends:  # still blocking ones: the kernel keeps the time
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                end.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", DEADLINE_SECONDS, 0))
        left, right = (CallStream(end) for end in ends)
        try:
            check(left, right)
            check_closed_ends(left, right)
        except BlockingIOError:
            raise AssertionError(f"{check.__name__}: the transport hangs") from None
        except AssertionError as error:
            raise AssertionError(f"{check.__name__}: {error}") from error
        finally:
            left.close()
            right.close()


def small(call: int, *, kind: int = frames.CALL) -> bytes:
    """A small frame."""
    return b"".join(frames.pack(kind, [b"p" * call], function=1, call=call))


@contextlib.contextmanager
def beside(work: Callable[[], object]) -> Iterator[list[object]]:
    """Run `work` in a thread for as long as the block; what it returned or raised is then in the list."""
    came: list[object] = []

    def body() -> None:
        try:
            came.append(work())
        except Exception as error:
            came.append(error)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    yield came
    thread.join(DEADLINE_SECONDS)
    assert came, "a thread still waits"


def frames_arrive_whole_and_in_order(left: CallStream, right: CallStream) -> None:
    """Small ones, in both directions."""
    for one, other in ((left, right), (right, left)):
        for call in range(1, 20):
            one.send_now(small(call))
        for call in range(1, 20):
            frame = other.receive()
            assert frame is not None
            assert (frame.call, bytes(frame.payload)) == (call, b"p" * call)


def one_byte_at_a_time(left: CallStream, right: CallStream) -> None:
    """A frame may come in as many pieces as it has bytes."""
    data = small(7) + small(8)
    got: list[int] = []
    for index in range(len(data)):
        left.send_now(data[index : index + 1])
        assert right.fill() == 1
        while (frame := right.next()) is not None:
            got.append(frame.call)
    assert got == [7, 8]


def big_messages_both_ways_at_once(left: CallStream, right: CallStream) -> None:
    """More than any buffer on the way holds: who sends must wait for who reads, and nothing may be mixed up."""
    size = 3 * CHUNK + 12_345
    message = frames.pack(frames.CALL, [b"a" * size], call=1)

    def send_and_receive(stream: CallStream) -> tuple[int, int]:
        with beside(lambda: stream.send(message)) as sent:
            frame = stream.receive()
        assert sent == [None]
        assert frame is not None
        return frame.call, len(frame.payload)

    with beside(lambda: send_and_receive(right)) as other:
        assert send_and_receive(left) == (1, size)
    assert other == [(1, size)]


def many_senders(left: CallStream, right: CallStream) -> None:
    """Frames of several threads are never mixed, long ones included."""
    threads, each = 4, 5

    def send(number: int) -> None:
        for _ in range(each):
            left.send(frames.pack(frames.RESULT, [bytes([number]) * (CHUNK + number)], call=number))
            left.send_now(small(number + 1, kind=frames.OUTPUT))

    with contextlib.ExitStack() as stack:
        for number in range(threads):
            stack.enter_context(beside(lambda number=number: send(number)))  # type: ignore[misc]
        got: list[int] = []
        for _ in range(2 * threads * each):
            frame = right.receive()
            assert frame is not None
            if frame.kind == frames.RESULT:
                assert bytes(frame.payload) == bytes([frame.call]) * (CHUNK + frame.call)
            got.append(frame.kind)
    assert got.count(frames.RESULT) == threads * each


def a_clogged_stream_does_not_block_try_send(left: CallStream, right: CallStream) -> None:
    """`try_send` says no where `send` would wait; what it said yes to arrives."""
    data = frames.pack(frames.OUTPUT, [b"o" * 4000])
    taken = 0
    # Where the socket has little room left, `try_send` waits for the rest to be taken: that is not asked here.
    while select.select([], [left.sock], [], 0)[1]:
        assert left.try_send(data)
        taken += 1
        assert taken < 1 << 14, "a stream that nobody reads takes everything"
    assert not left.try_send(data)
    for _ in range(taken):
        frame = right.receive()
        assert frame is not None
        assert len(frame.payload) == 4000


def end_of_stream(left: CallStream, right: CallStream) -> None:
    """What was sent before the end arrives before the end."""
    left.send_now(small(1) + small(2))
    left.close()
    assert [frame.call for frame in iter(right.receive, None)] == [1, 2]
    assert right.reader.empty
    assert right.receive() is None, "the end stays the end"


def cut_in_the_middle_of_a_frame(left: CallStream, right: CallStream) -> None:
    """A message that is cut is not given out, whole chunks of it included."""
    whole = b"".join(frames.pack(frames.CALL, [b"x" * (CHUNK + 10)], call=2))

    def send() -> None:
        left.send_now(small(1) + whole[:-1])
        left.close()

    with beside(send) as sent:
        frame = right.receive()
        assert frame is not None
        assert frame.call == 1
        assert right.receive() is None
        assert not right.reader.empty
    assert sent == [None]


def half_open(left: CallStream, right: CallStream) -> None:
    """One direction may end while the other goes on."""
    left.send_now(small(1))
    left.sock.shutdown(socket.SHUT_WR)
    frame = right.receive()
    assert frame is not None
    assert right.receive() is None
    right.send_now(small(2))
    frame = left.receive()
    assert frame is not None
    assert frame.call == 2


def closing_twice(left: CallStream, right: CallStream) -> None:
    """It is harmless, on either end, in any order."""
    for stream in (left, left, right, left, right):
        stream.close()
        assert stream.closed


def closing_while_another_reads(left: CallStream, right: CallStream) -> None:
    """A reader whose stream is shut down under it comes back."""
    with beside(left.receive) as came:
        left.sock.shutdown(socket.SHUT_RDWR)
    assert came[0] is None or isinstance(came[0], OSError)
    left.close()
    assert right.receive() is None


def sending_to_who_is_gone(left: CallStream, right: CallStream) -> None:
    """It is an `OSError` sooner or later, and never a signal or a wait."""
    right.close()
    with pytest.raises(OSError, match=r"."):  # noqa: PT012 - which of them is not known
        for _ in range(1000):
            left.send_now(small(9))


def garbage(left: CallStream, right: CallStream) -> None:
    """A stranger is found out at once."""
    left.send_now(b"\xff" * 64)
    with pytest.raises(ProtocolError):
        right.receive()


CHECKS = (
    frames_arrive_whole_and_in_order,
    one_byte_at_a_time,
    big_messages_both_ways_at_once,
    many_senders,
    a_clogged_stream_does_not_block_try_send,
    end_of_stream,
    cut_in_the_middle_of_a_frame,
    half_open,
    closing_twice,
    closing_while_another_reads,
    sending_to_who_is_gone,
    garbage,
)


def check_closed_ends(*streams: CallStream) -> None:
    """After `close`, everything but closing is an `OSError` (or a `ValueError` for what needs a descriptor)."""
    for stream in streams:
        stream.close()
        for use in (
            lambda stream=stream: stream.send_now(b"x"),  # type: ignore[misc]
            lambda stream=stream: stream.send([b"x"]),  # type: ignore[misc]
            lambda stream=stream: stream.try_send([b"x"]),  # type: ignore[misc]
            lambda stream=stream: stream.fill(),  # type: ignore[misc]
        ):
            with pytest.raises(OSError, match=r"."):
                use()
