"""`check_transport` passes what is a transport, and finds out what is not."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from remote_exec import testing
from remote_exec.testing import check_transport, serve_echo

Serve = Callable[[socket.socket, int], None]


def unix(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(str(path))
    return sock


def test_unix_sockets_are_a_transport(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # socket paths are short
    with serve_echo("echo"):
        check_transport(lambda: unix(Path("echo")))
    assert not Path("echo").exists()


@contextlib.contextmanager
def served(serve: Serve) -> Iterator[Callable[[], socket.socket]]:
    """Give connections whose far ends are served by threads; `serve` is told how many there were before."""
    threads: list[threading.Thread] = []

    def body(sock: socket.socket, number: int) -> None:
        with sock, contextlib.suppress(OSError):
            serve(sock, number)

    def connect() -> socket.socket:
        ours, theirs = socket.socketpair()
        threads.append(threading.Thread(target=body, args=(theirs, len(threads))))
        threads[-1].start()
        return ours

    yield connect
    for thread in threads:
        thread.join()


def echo(sock: socket.socket, number: int = 0) -> None:
    while data := sock.recv(1 << 16):
        sock.sendall(data)


def swaps_bytes(sock: socket.socket, _number: int) -> None:
    while data := sock.recv(1 << 16):
        sock.sendall(data[::-1] if len(data) > 100 else data)


def forgets_the_rest(sock: socket.socket, _number: int) -> None:
    got = 0
    while data := sock.recv(1 << 16):
        got += len(data)
        if got > 1 << 20:
            return
        sock.sendall(data)


def takes_everything(sock: socket.socket, _number: int) -> None:
    taken: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def take() -> None:
        with contextlib.suppress(OSError):
            while data := sock.recv(1 << 20):
                taken.put(data)
        taken.put(b"")

    taking = threading.Thread(target=take)
    taking.start()
    try:
        while data := taken.get():
            sock.sendall(data)
        sock.shutdown(socket.SHUT_RDWR)
    finally:
        taking.join()


def has_few_connections(sock: socket.socket, number: int) -> None:
    if number < 50:
        echo(sock)


def rounds_up(sock: socket.socket, _number: int) -> None:
    echo(sock)
    sock.sendall(b"\n")


@pytest.mark.parametrize(
    ("serve", "told"),
    [
        (swaps_bytes, "what is sent comes back: other bytes came"),
        (forgets_the_rest, "half closed the rest still arrives: (it broke|the end came after)"),
        (rounds_up, "half closed the rest still arrives: something came where the end was due"),
        (takes_everything, r"a slow reader .*: 6\d,\d+,\d+ bytes were taken that nobody reads"),
        (has_few_connections, "many connections at once: "),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_no_transport_is_found_out(serve: Serve, told: str) -> None:
    with served(serve) as connect, pytest.raises(AssertionError, match=told):
        check_transport(connect)


def test_one_that_hangs_is_found_out() -> None:
    def swallow(sock: socket.socket, _number: int) -> None:
        while sock.recv(1 << 16):
            pass

    with (
        served(swallow) as connect,
        pytest.raises(AssertionError, match=r"it hangs; nothing moved for 0\.1 s"),
    ):
        check_transport(connect, deadline_seconds=0.1)


def test_one_whose_end_is_not_told_is_found_out() -> None:
    with (
        served(echo) as connect,
        pytest.raises(AssertionError, match="a cut ends every connection: it hangs"),
    ):
        testing._ask(
            lambda way: testing._cut_ends_all(way, lambda: None),
            testing._Way(connect, 0.1),
            "a cut ends every connection",
        )
