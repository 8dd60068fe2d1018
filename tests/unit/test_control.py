"""Control streams over unix sockets: messages, their descriptors, and peers that do not read."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from remote_exec.model.errors import ProtocolError
from remote_exec.wire import control, protocol
from remote_exec.wire.control import MAX_FDS, ControlStream, Received
from remote_exec.wire.credentials import peer_uid

Pair = tuple[ControlStream, ControlStream]


@pytest.fixture
def pair() -> Iterator[Pair]:
    left, right = (ControlStream(sock) for sock in socket.socketpair())
    left.sock.setblocking(False)
    right.sock.setblocking(False)
    yield left, right
    left.close()
    right.close()


def receive_all(stream: ControlStream) -> list[Received]:
    found: list[Received] = []
    try:
        while (received := stream.receive()) is not None:
            found += received
    except BlockingIOError:
        pass
    return found


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def temporary(text: str) -> int:
    fd = os.memfd_create("told")
    os.pwrite(fd, text.encode(), 0)
    return fd


def read_and_close(fd: int) -> str:
    try:
        return os.pread(fd, 100, 0).decode()
    finally:
        os.close(fd)


def test_descriptors_come_in_the_order_of_their_messages(pair: Pair) -> None:
    left, right = pair
    before = open_fds()
    for worker in range(20):
        fds = [temporary(f"{worker}.{index}") for index in range(worker % 4)]
        left.send(protocol.Adopt(worker), fds=tuple(fds))
        for fd in fds:
            os.close(fd)
    told = [
        (one.message.worker, [read_and_close(fd) for fd in right.take_fds(one.message.worker % 4)])
        for one in receive_all(right)
    ]
    assert told == [(worker, [f"{worker}.{index}" for index in range(worker % 4)]) for worker in range(20)]
    assert open_fds() == before


def test_what_a_slow_peer_does_not_take_is_queued_with_its_descriptors(pair: Pair) -> None:
    left, right = pair
    before = open_fds()
    body = bytes(50_000)
    for worker in range(30):
        fd = temporary(str(worker))
        left.send(protocol.Fork(worker, {}), body, (fd,))
        os.close(fd)
    assert left.wants_write
    told: list[str] = []
    while len(told) < 30:
        for one in receive_all(right):
            (fd,) = right.take_fds(1)
            assert one.body == body
            assert one.message.worker == len(told)
            told.append(read_and_close(fd))
        left.flush()
    assert told == [str(worker) for worker in range(30)]
    assert not left.wants_write
    assert open_fds() == before


def test_received_descriptors_are_not_inherited(pair: Pair) -> None:
    left, right = pair
    left.send(protocol.Adopt(1), fds=(left.fileno(),))
    receive_all(right)
    (fd,) = right.take_fds(1)
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_a_peer_that_never_reads_is_cut_off(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    left, _ = pair
    monkeypatch.setattr(control, "MAX_QUEUED", 1 << 20)
    with pytest.raises(ConnectionError, match="does not read"):  # noqa: PT012 - which of them is not known
        for _ in range(100):
            left.send(protocol.StopWorker(), bytes(100_000))


def test_closing_gives_back_every_descriptor_in_whatever_state(pair: Pair) -> None:
    left, right = pair
    before = open_fds()
    for _ in range(20):
        left.send(protocol.Adopt(1), bytes(50_000), (0, 1))
    assert left.wants_write
    right.receive()
    assert right.fds
    for stream in (left, right, left, right):
        stream.close()
    assert open_fds() == before - 2
    with pytest.raises(ConnectionError):
        left.send(protocol.Adopt(1), fds=(0,))
    assert open_fds() == before - 2


def test_the_end_of_a_stream_comes_after_what_was_sent(pair: Pair) -> None:
    left, right = pair
    left.send(protocol.LeaseEnded("a"))
    left.close()
    assert right.receive() == [(protocol.LeaseEnded("a"), b"")]
    assert right.receive() is None
    with pytest.raises(OSError, match=r"."):  # noqa: PT012 - which of them is not known
        for _ in range(3):
            right.send(protocol.LeaseEnded("a"))


@pytest.mark.parametrize("count", [1, -1, 1000])
def test_a_message_without_its_descriptors_is_a_protocol_error(pair: Pair, count: int) -> None:
    left, right = pair
    left.send(protocol.Adopt(1))
    receive_all(right)
    with pytest.raises(ProtocolError, match="without its descriptors"):
        right.take_fds(count)


def test_descriptors_that_nobody_asked_for_are_a_protocol_error(pair: Pair) -> None:
    left, right = pair
    with pytest.raises(ProtocolError, match="descriptors"):  # noqa: PT012 - which of them is not known
        for _ in range(100):
            left.send(protocol.StopWorker(), fds=(0,) * MAX_FDS)
            right.receive()
    with pytest.raises(ProtocolError, match="more than one message can carry"):
        left.send(protocol.StopWorker(), fds=(0,) * (MAX_FDS + 1))


def test_more_descriptors_than_fit_are_noticed(pair: Pair) -> None:
    left, right = pair
    socket.send_fds(left.sock, [b"x"], [0] * (MAX_FDS + 5))
    with pytest.raises(ProtocolError, match="lost"):
        right.receive()


def test_garbage_is_a_protocol_error(pair: Pair) -> None:
    left, right = pair
    left.sock.send(b"\xff" * 100)
    with pytest.raises(ProtocolError, match="over the bound"):
        right.receive()


def test_the_kernel_vouches_for_the_peer(tmp_path: os.PathLike[str]) -> None:
    one, other = socket.socketpair()
    assert peer_uid(one) == os.getuid()
    one.close()
    other.close()
    if os.getuid() != 0:
        pytest.skip("only root can be somebody else")
    with socket.socket(socket.AF_UNIX) as listener:
        path = f"\0remote-exec-test-{os.getpid()}"
        listener.bind(path)
        listener.listen()
        connect = (
            f"import os, socket; os.setuid(12345); socket.socket(socket.AF_UNIX).connect({path!r}); input()"
        )
        with subprocess.Popen([sys.executable, "-c", connect], stdin=subprocess.PIPE) as process:
            listener.settimeout(20)
            accepted, _ = listener.accept()
            with accepted:
                assert peer_uid(accepted) == 12345
            process.communicate(b"\n")
