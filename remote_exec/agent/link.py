"""A control stream tied to the reactor: messages in by callback, messages out queued, the end told once."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from typing import Any

from ..model.errors import ProtocolError
from ..wire.control import ControlStream
from .reactor import Reactor

_log = logging.getLogger(__name__)


class Link:
    """One peer of the agent.

    Args:
        reactor: whose thread it belongs to, and in which it calls back.
        sock: a connected unix stream socket; the link owns it from now on.
        on_message: called with each message and its body.
        on_end: called once with the reason, unless `close` was called before.
        stream: of what kind.
    """

    def __init__(
        self,
        reactor: Reactor,
        sock: socket.socket,
        *,
        on_message: Callable[[Any, bytes], None],
        on_end: Callable[[str], None],
        stream: type[ControlStream] = ControlStream,
    ) -> None:
        sock.setblocking(False)
        self._reactor = reactor
        self._stream = stream(sock)
        self._on_message = on_message
        self._on_end = on_end
        reactor.watch(sock.fileno(), self._ready)

    @property
    def closed(self) -> bool:
        """Whether the link has ended."""
        return self._stream.closed

    @property
    def backlog(self) -> bool:
        """Whether the peer has not taken everything yet."""
        return self._stream.wants_write

    def send(self, message: object, body: bytes | memoryview = b"", fds: tuple[int, ...] = ()) -> None:
        """Send a message; the caller keeps its descriptors. A dead peer is told of by `on_end`, not here."""
        if self.closed:
            return
        try:
            self._stream.send(message, body, fds)
        except (OSError, ProtocolError) as error:
            reason = str(error)
            _log.info("a message could not be sent: %s", reason)
            self._reactor.soon(lambda: self.end(reason))
            return
        if self._stream.wants_write:
            self._reactor.watch(self._stream.fileno(), self._ready, write=True)

    def take_fds(self, count: int) -> list[int]:
        """Return the descriptors that came with a message; the caller owns them.

        Raises:
            ProtocolError: the message said that more would come than did.
        """
        return self._stream.take_fds(count)

    def end(self, reason: str) -> None:
        """Close the link and tell of it once."""
        if not self.closed:
            self.close()
            self._on_end(reason)

    def _cut(self) -> None:
        """The connection has ended."""
        self.end("end of stream")

    def close(self) -> None:
        """Close the link without telling of it."""
        if not self.closed:
            self._reactor.unwatch(self._stream.fileno())
            self._stream.close()

    def _ready(self) -> None:
        if self._stream.wants_write:
            try:
                self._stream.flush()
            except OSError as error:
                self.end(str(error))
                return
            if not self._stream.wants_write:
                self._reactor.watch(self._stream.fileno(), self._ready)
        self._read()

    def hear_out(self) -> None:
        """Take in all that a peer has sent that is known to have ended."""
        while not self.closed and self._read():
            pass

    def _read(self) -> bool:
        """Read once; False when there was nothing to read."""
        try:
            received = self._stream.receive()
        except BlockingIOError:
            return False
        except OSError as error:
            self.end(str(error))
            return False
        except ProtocolError as error:
            _log.warning("a peer broke the protocol: %s", error.message)
            self.end(error.message)
            return False
        if received is None:
            self._cut()
            return False
        for one in received:
            if self.closed:
                break
            try:
                self._on_message(one.message, one.body)
            except ProtocolError as error:
                _log.warning("a peer broke the protocol: %s", error.message)
                self.end(error.message)
            except Exception:  # what came with it is taken in all the same
                _log.exception("a %s could not be taken in", type(one.message).__name__)
        return True


def close_fds(fds: list[int]) -> None:
    """Close descriptors that were received and are not needed here."""
    for fd in fds:
        os.close(fd)
