"""Links: late, slow, cut, frozen and stranded, for real connections of ssh and bare ones."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from .fixtures import NewLink
from .link import Link
from .sshd import SshClient, SshServer

pytestmark = pytest.mark.usefixtures("ssh_server")  # from the first test on: it stays after the last

BULK = 8 << 20


@pytest.fixture
def link() -> Iterator[Link]:
    """A link to a server that says what it hears."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_echo_to_all, args=(listener,))
        thread.start()
        with Link(*listener.getsockname()) as link:
            yield link
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _echo_to_all(listener: socket.socket) -> None:
    threads: list[threading.Thread] = []
    with contextlib.suppress(OSError):
        while True:
            threads.append(threading.Thread(target=_echo, args=(listener.accept()[0],)))
            threads[-1].start()
    for thread in threads:
        thread.join()


def _echo(sock: socket.socket) -> None:
    with contextlib.suppress(OSError), sock:
        while data := sock.recv(1 << 18):
            sock.sendall(data)


def _connected(link: Link) -> socket.socket:
    sock = socket.create_connection((link.address, link.port), 10)
    try:
        sock.sendall(b"hello")
        assert sock.recv(5) == b"hello"
    except BaseException:
        sock.close()
        raise
    return sock


def _hears_nothing(sock: socket.socket) -> None:
    """Hold that nothing comes for a moment, no end either."""
    sock.settimeout(0.1)
    with pytest.raises(TimeoutError):
        sock.recv(1)
    sock.settimeout(10)


def _sent_and_back(sock: socket.socket) -> float:
    """Return how long some megabytes take, both ways at once; they arrive as they were."""
    sent = bytes(range(256)) * (BULK >> 8)
    start = time.monotonic()
    sender = threading.Thread(target=sock.sendall, args=(sent,))
    sender.start()
    got = bytearray()
    while len(got) < BULK:
        got += sock.recv(1 << 18)
    sender.join()
    assert got == sent
    return time.monotonic() - start


def test_bytes_are_late_by_the_delay_each_way(link: Link) -> None:
    with _connected(link) as sock:
        link.delay(0.02)
        start = time.monotonic()
        sock.sendall(b"a")
        assert sock.recv(1) == b"a"
        assert 0.04 <= time.monotonic() - start < 5


def test_a_rate_holds_and_a_delay_does_not_limit_throughput(link: Link) -> None:
    with _connected(link) as sock:
        link.rate(8 * BULK * 2)  # half a second for all of it
        assert 0.4 < _sent_and_back(sock) < 10
        link.rate(0)
        link.delay(0.05)
        _sent_and_back(sock)


def test_a_frozen_link_holds_all_and_loses_nothing(link: Link) -> None:
    with _connected(link) as sock:
        link.freeze()
        sock.sendall(b"later")
        _hears_nothing(sock)
        link.resume()
        assert sock.recv(5) == b"later"


def test_a_cut_resets_what_is_there_and_lets_others_in(link: Link) -> None:
    with _connected(link) as sock:
        link.cut()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    _connected(link).close()


def test_a_stranded_connection_never_passes_anything_again(link: Link) -> None:
    with _connected(link) as sock:
        link.strand()
        sock.sendall(b"lost")
        _hears_nothing(sock)
        _connected(link).close()


def test_a_link_that_refuses_lets_nobody_in_until_it_resumes(link: Link) -> None:
    with _connected(link) as sock:
        link.refuse()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    with pytest.raises(ConnectionError):
        _connected(link)
    link.resume()
    _connected(link).close()


def test_the_end_of_a_stream_passes(link: Link) -> None:
    with _connected(link) as sock:
        sock.sendall(b"last words")
        sock.shutdown(socket.SHUT_WR)
        got = b""
        while data := sock.recv(100):
            got += data
        assert got == b"last words"


def test_ssh_goes_over_a_link(ssh: SshClient, gpu1: SshServer, new_link: NewLink) -> None:
    link = new_link("far", gpu1, delay_seconds=0.001)
    assert ssh.run("far", "pwd").stdout == f"{gpu1.home}\n"
    link.refuse()
    assert ssh.run("far", "true").returncode == 255
