"""The control stream to an agent on another machine: how it begins, and goes on over another connection."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import cast

from ..backends.host import Host
from ..backends.patience import left, seconds_or, within
from ..model.errors import ConfigurationError, HostUnavailable, ProtocolError
from ..options import Options
from ..wire.control import ControlStream
from ..wire.resumable_control import ResumableControl
from ..wire.resume import ANSWER_SIZE, CONTROL, UNKNOWN, Opening, unpack_position

ANSWER_SECONDS = 15.0
NAP_SECONDS = 0.5
USUAL_SECONDS = 60.0


class FarControl(ResumableControl):
    """A control stream that has a name, by which the agent knows it again."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.name = os.urandom(12).hex()


def begin_far(sock: socket.socket) -> FarControl:
    """Return a new control stream over a connection.

    Raises:
        OSError: it is broken.
    """
    stream = FarControl(sock)
    sock.sendall(Opening(CONTROL, stream.name, begins=True).pack())
    return stream


def mend(host: Host, stream: ControlStream, unwanted: Callable[[], bool]) -> bool:
    """Have a control stream go on over another connection, as soon as the host can be reached.

    Args:
        host: where its agent is.
        stream: that `begin_far` made, and whose connection has ended.
        unwanted: asked now and then whether to give up.

    Returns:
        False when that was not to be done within `connection_timeout`, or the agent has given the stream up.
    """
    far = cast("FarControl", stream)
    goes_on: list[bool] = []

    def greet(sock: socket.socket) -> bool:
        sock.settimeout(left(ANSWER_SECONDS))
        try:
            sock.sendall(Opening(CONTROL, far.name, far.received).pack())
            position = _answer(sock)
            if position != UNKNOWN:
                sock.settimeout(None)
                far.resume(sock, position)
        except OSError:
            return False
        goes_on.append(position != UNKNOWN)
        return True

    deadline = time.monotonic() + patience()
    while not unwanted():
        try:
            with within(deadline - time.monotonic()):
                sock = host.reach(greet)
        except ProtocolError:
            return False
        except (HostUnavailable, OSError):
            if time.monotonic() > deadline:
                return False
            time.sleep(NAP_SECONDS)
            continue
        if not goes_on[-1]:
            sock.close()
        return goes_on[-1]
    return False


def patience() -> float:
    """Return for how many seconds a host may be out of reach, as the call's options or the configuration have it."""
    from ..config import load_config

    try:
        usual = float(load_config().resolve(Options()).connection_timeout)
    except ConfigurationError:
        usual = USUAL_SECONDS  # whoever calls a function is told; asking an agent something needs no configuration
    return seconds_or(usual)


def _answer(sock: socket.socket) -> int:
    data = b""
    while len(data) < ANSWER_SIZE:
        piece = sock.recv(ANSWER_SIZE - len(data))
        if not piece:
            raise ConnectionError("the agent hung up")
        data += piece
    return unpack_position(data)
