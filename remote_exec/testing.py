"""For those who write a backend: the rude questions that every way to reach a host must answer.

Example::

    from remote_exec.testing import check_transport, serve_echo


    def test_my_way_to_a_host(tmp_path: Path) -> None:
        with serve_echo(tmp_path / "echo"):
            check_transport(lambda: my_backend.connect_to(tmp_path / "echo"))
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from .wire.frames import CALL, FrameReader, pack

DEADLINE_SECONDS = 60.0
STALL_SECONDS = 0.5  # a sender that waits for so long is made to wait
MOST_HELD = 64 << 20  # bytes on the way to a reader that does not read
AT_ONCE = 100
SOME = 100_003  # bytes: more than one piece of anything, and no round number
MUCH = 24 << 20
READ = 1 << 18


def check_transport(
    connect: Callable[[], socket.socket],
    *,
    cut: Callable[[], object] | None = None,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> None:
    """Ask a way to reach a host all that calls will ask of it; each question has connections of its own.

    Args:
        connect: returns a new blocking stream socket that leads to an echo service, such as `serve_echo`: one that
            sends back what it reads, and ends a connection when the other end sends no more. All are closed here.
        cut: breaks the way there as a dead link would, say by killing the process that carries it. Asked last.
        deadline_seconds: how long a connection may be silent where an answer is due.

    Raises:
        AssertionError: it does not behave as calls need it; the text says what was asked and what came.
    """
    for question in QUESTIONS:
        _ask(question, _Way(connect, deadline_seconds))
    if cut is not None:
        _ask(
            lambda way: _cut_ends_all(way, cut),
            _Way(connect, deadline_seconds),
            "a cut ends every connection",
        )


class _Way:
    """What a question asks of; closes what it opened."""

    def __init__(self, connect: Callable[[], socket.socket], deadline_seconds: float) -> None:
        self._connect = connect
        self._opened: list[socket.socket] = []
        self.deadline_seconds = deadline_seconds

    def connect(self) -> socket.socket:
        sock = self._connect()
        self._opened.append(sock)
        for option in (
            socket.SO_RCVTIMEO,
            socket.SO_SNDTIMEO,
        ):  # still a blocking one: the kernel keeps the time
            set_timeout(sock, option, self.deadline_seconds)
        return sock

    def close(self) -> None:
        for sock in self._opened:
            sock.close()


def _ask(question: Callable[[_Way], None], way: _Way, asked: str = "") -> None:
    asked = asked or question.__name__.replace("_", " ")
    try:
        question(way)
    except AssertionError as error:
        raise AssertionError(f"{asked}: {error}") from error
    except BlockingIOError:
        raise AssertionError(
            f"{asked}: it hangs; nothing moved for {way.deadline_seconds:g} seconds"
        ) from None
    except OSError as error:
        raise AssertionError(f"{asked}: it broke: {error!r}") from error
    finally:
        way.close()


# --- the questions --------------------------------------------------------------------------------------------


def what_is_sent_comes_back(way: _Way) -> None:
    sock = way.connect()
    for size in (1, 100, 1 << 16, SOME):
        data = some_bytes(size)
        sock.sendall(data)
        expect(sock, data)


def one_byte_at_a_time(way: _Way) -> None:
    sock = way.connect()
    sock.sendall(b"")
    data = some_bytes(1000)

    def send() -> None:  # each byte may take up as much room on its way as a page would
        for at in range(len(data)):
            sock.sendall(data[at : at + 1])

    with beside(send):
        for at in range(len(data)):
            expect(sock, data[at : at + 1], most=1)


def half_closed_the_rest_still_arrives(way: _Way) -> None:
    sock = way.connect()
    data = some_bytes(MUCH // 4)

    def send() -> None:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)

    with beside(send):
        expect(sock, data)
    expect_end(sock)
    expect_end(sock)  # it stays the end


def an_end_is_told_to_who_waits(way: _Way) -> None:
    sock = way.connect()
    sock.sendall(b"x")
    expect(sock, b"x")
    with beside(lambda: expect_end(sock)):
        sock.shutdown(socket.SHUT_WR)


def cut_in_the_middle_of_a_frame(way: _Way) -> None:
    whole = b"".join(pack(CALL, [some_bytes(SOME)], call=1))
    sock = way.connect()
    sock.sendall(whole + whole[:-1])
    sock.shutdown(socket.SHUT_WR)
    reader, calls = FrameReader(), 0
    while size := sock.recv_into(reader.space()):
        reader.filled(size)
        while reader.next() is not None:
            calls += 1
    require(calls == 1, f"{calls} whole frames came of one and a part")
    require(not reader.empty, "the part of a frame that was sent did not come")


def closed_in_the_middle_of_an_answer(way: _Way) -> None:
    neighbour = way.connect()
    for _ in range(3):
        sock = way.connect()
        with beside(lambda sock=sock: sock.sendall(some_bytes(SOME))):  # type: ignore[misc]
            expect(sock, some_bytes(SOME)[:1000], most=1000)
        sock.close()  # the rest of the answer is on its way, or in the socket
    for other in (neighbour, way.connect()):
        other.sendall(b"still here")
        expect(other, b"still here")


def closed_twice(way: _Way) -> None:
    neighbour = way.connect()
    sock = way.connect()
    sock.sendall(b"x")
    sock.close()
    sock.close()
    for use in (lambda: sock.send(b"x"), lambda: sock.recv(1)):
        try:
            use()
        except OSError:
            continue
        raise AssertionError("a closed connection can be used")
    neighbour.sendall(b"y")
    expect(neighbour, b"y")


def closed_while_another_thread_reads(way: _Way) -> None:
    sock = way.connect()
    sock.sendall(b"x")
    expect(sock, b"x")

    def read() -> None:
        with contextlib.suppress(ConnectionError):
            require(not sock.recv(1), "something came that nobody sent")

    with beside(read):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def a_slow_reader_holds_up_its_sender_and_nobody_else(way: _Way) -> None:
    sock = way.connect()
    set_timeout(sock, socket.SO_SNDTIMEO, STALL_SECONDS)
    block = some_bytes(1 << 20)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += sock.send(memoryview(block)[sent % len(block) :])
            require(sent < MOST_HELD, f"{sent:,} bytes were taken that nobody reads")
    neighbour = way.connect()
    neighbour.sendall(b"past it")
    expect(neighbour, b"past it")
    set_timeout(sock, socket.SO_SNDTIMEO, way.deadline_seconds)

    def finish() -> None:
        sock.sendall(b"the last")
        sock.shutdown(socket.SHUT_WR)

    with beside(finish):
        for at in range(0, sent, len(block)):
            expect(sock, block[: min(len(block), sent - at)])
        expect(sock, b"the last")
    expect_end(sock)


def many_connections_at_once(way: _Way) -> None:
    socks = [way.connect() for _ in range(AT_ONCE)]
    for number, sock in enumerate(socks):
        sock.sendall(some_bytes(3000 + number, seed=number))
    for number, sock in reversed(list(enumerate(socks))):
        expect(sock, some_bytes(3000 + number, seed=number))
    for sock in socks:
        sock.shutdown(socket.SHUT_WR)
    for sock in socks:
        expect_end(sock)


def much_both_ways_at_once(way: _Way) -> None:
    sock = way.connect()
    data = some_bytes(MUCH)
    with beside(lambda: sock.sendall(data)):
        expect(sock, data)


def small_messages_get_past_big_ones(way: _Way) -> None:
    data = some_bytes(MUCH // 2)
    small = way.connect()
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            big = way.connect()
            stack.enter_context(beside(lambda big=big: big.sendall(data)))  # type: ignore[misc]
            stack.enter_context(beside(lambda big=big: expect(big, data)))  # type: ignore[misc]
        for number in range(20):
            small.sendall(b"%04d" % number)
            expect(small, b"%04d" % number)


def _cut_ends_all(way: _Way, cut: Callable[[], object]) -> None:
    socks = [way.connect() for _ in range(3)]
    for sock in socks:
        sock.sendall(b"x")
        expect(sock, b"x")

    def read(sock: socket.socket) -> None:
        with contextlib.suppress(ConnectionError):
            require(not sock.recv(1), "something came that nobody sent")

    with contextlib.ExitStack() as stack:
        for sock in socks:
            stack.enter_context(beside(lambda sock=sock: read(sock)))  # type: ignore[misc]
        cut()
    for sock in socks:
        try:
            for _ in range(1000):
                sock.send(some_bytes(1 << 16))
        except BlockingIOError:
            raise
        except OSError:
            continue
        raise AssertionError("what is sent after the cut seems to go somewhere")


QUESTIONS: tuple[Callable[[_Way], None], ...] = (
    what_is_sent_comes_back,
    one_byte_at_a_time,
    half_closed_the_rest_still_arrives,
    an_end_is_told_to_who_waits,
    cut_in_the_middle_of_a_frame,
    closed_in_the_middle_of_an_answer,
    closed_twice,
    closed_while_another_thread_reads,
    a_slow_reader_holds_up_its_sender_and_nobody_else,
    many_connections_at_once,
    much_both_ways_at_once,
    small_messages_get_past_big_ones,
)


# --- what they are asked with ---------------------------------------------------------------------------------


def require(true: bool, otherwise: str) -> None:
    if not true:
        raise AssertionError(otherwise)


def some_bytes(size: int, *, seed: int = 7) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311 - to be told apart, not to be secret


def expect(sock: socket.socket, data: bytes, *, most: int = READ) -> None:
    got, view = 0, memoryview(data)
    while got < len(data):
        piece = sock.recv(min(most, len(data) - got))
        require(bool(piece), f"the end came after {got:,} of {len(data):,} bytes")
        require(
            memoryview(piece) == view[got : got + len(piece)],
            f"other bytes came than were sent, after {got:,}",
        )
        got += len(piece)


def expect_end(sock: socket.socket) -> None:
    require(not sock.recv(1), "something came where the end was due")


def set_timeout(sock: socket.socket, option: int, seconds: float) -> None:
    whole, part = divmod(int(seconds * 1_000_000), 1_000_000)
    sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", whole, part))


@contextlib.contextmanager
def beside(work: Callable[[], Any]) -> Generator[None, None, None]:
    """Run `work` in a thread for as long as the block; raise what it raised."""
    failures: list[BaseException] = []

    def body() -> None:
        try:
            work()
        except BaseException as error:  # raised below
            failures.append(error)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if failures:
        raise failures[0]


# --- an echo service ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def serve_echo(path: str | Path) -> Generator[None, None, None]:
    """Serve echoes at a unix socket of this machine for as long as the block.

    Args:
        path: where the socket is made, and removed afterwards.

    Example::

        with serve_echo("/tmp/echo"):
            check_transport(lambda: my_backend.connect_to("/tmp/echo"))
    """
    socks: list[socket.socket] = []
    threads: list[threading.Thread] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(2 * AT_ONCE)

        def accept() -> None:
            while True:
                sock, _ = listener.accept()
                if ending.is_set():
                    sock.close()
                    return
                socks.append(sock)
                threads.append(threading.Thread(target=_echo, args=(sock,), daemon=True))
                threads[-1].start()

        ending = threading.Event()
        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield
        finally:
            ending.set()
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as last:
                last.connect(str(path))
            accepting.join()
            for sock in socks:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()
            os.unlink(path)


def _echo(sock: socket.socket) -> None:
    with sock, contextlib.suppress(OSError):
        while data := sock.recv(READ):
            sock.sendall(data)
