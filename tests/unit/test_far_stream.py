"""What of a stream has never left this machine: calls of which that is known may be sent to another host."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any, cast

from remote_exec.backends.host import Greet
from remote_exec.client.calls import Call
from remote_exec.client.far_stream import FarStream
from remote_exec.model.errors import HostUnavailable
from remote_exec.wire.resume import OPENING_SIZE

LONG = 8 << 20  # more than a socket takes in


class Host:
    """Gives one connection, and is out of reach from then on."""

    name, here = "host", False

    def __init__(self) -> None:
        self.far: socket.socket | None = None

    def connect(self) -> socket.socket:
        if self.far is not None:
            raise HostUnavailable("it is out of reach")
        near, self.far = socket.socketpair()
        return near

    def reach(self, greet: Greet) -> socket.socket:
        raise NotImplementedError

    def how_lost(self, since: float) -> None:
        return None


def never_went(link: FarStream, number: int) -> bool:
    call = Call.__new__(Call)
    call.number = number
    return link.never_went(call)


def test_a_call_has_gone_from_the_moment_that_its_last_byte_may_have() -> None:
    host = Host()
    link = FarStream(cast("Any", host), "lease", receive_seconds=1.0)
    link.begin(60.0)
    stream = link.stream
    assert host.far is not None
    link.send_now(b"first", 2)
    assert [never_went(link, number) for number in (1, 2)] == [False, True]
    assert host.far.recv(100)[OPENING_SIZE:] == b"first"
    host.far.close()
    with contextlib.suppress(BlockingIOError):
        stream.fill(socket.MSG_DONTWAIT)  # finds that, and that nobody is there
    link.send_now(b"second", 3)
    link.send_now(b"third and fourth, in a row", 5)
    link.send_now(b"what the fifth needs", 6)
    link.send_now(bytes(LONG), 6)
    assert [never_went(link, number) for number in (1, 2, 3, 4, 5)] == [False, True, True, True, True]

    near, far = socket.socketpair()

    def take_some() -> None:
        taken = 0
        while taken < LONG // 2:
            taken += len(far.recv(LONG))
        far.close()

    thread = threading.Thread(target=take_some)
    thread.start()
    stream.attach(near, len(b"first"))
    thread.join()
    assert [never_went(link, number) for number in (1, 2, 3, 4, 5)] == [False, False, False, False, True]
    stream.give_up()
    stream.close()
