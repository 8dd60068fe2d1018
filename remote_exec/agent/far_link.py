"""The link to a client on another machine: it outlives its connection for a while."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, cast

from ..model.errors import ProtocolError
from ..wire.resumable_control import ResumableControl
from .link import Link
from .reactor import Reactor, Timer

ASK_SECONDS = 20.0  # how often a client that says nothing is asked whether it is there
SILENCE_SECONDS = (
    60.0  # after which its connection counts as broken: a machine asleep breaks it without a word
)
AWAY_SECONDS = 2.0  # after which a client whose connection has broken is said to be away


class FarLink(Link):
    """See the module's docstring.

    Args:
        reactor: as for `Link`.
        sock: its first connection.
        linger_seconds: how long it waits for another when one has broken.
        on_message: as for `Link`.
        on_end: as for `Link`.
        on_away: called when its connection has been broken for a while.
    """

    def __init__(
        self,
        reactor: Reactor,
        sock: socket.socket,
        *,
        linger_seconds: float,
        on_message: Callable[[Any, bytes], None],
        on_end: Callable[[str], None],
        on_away: Callable[[], None],
    ) -> None:
        super().__init__(reactor, sock, on_message=on_message, on_end=on_end, stream=ResumableControl)
        self.linger_seconds = linger_seconds
        self._on_away = on_away
        self._far = cast("ResumableControl", self._stream)
        self._given_up: Timer | None = None
        self._heard, self._silent = 0, 0.0
        self._asking = reactor.after(ASK_SECONDS, self._ask)

    @property
    def received(self) -> int:
        """How much of the client's stream has come."""
        return self._far.received

    def resume(self, sock: socket.socket, position: int) -> None:
        """Go on over another connection, to a client that has so much of this stream.

        Raises:
            ProtocolError: it has what was never sent, or lacks what is gone; the link has ended.
        """
        if self._given_up is not None:
            self._given_up.cancel()
            self._given_up = None
        else:
            self._reactor.unwatch(self._far.fileno())
        try:
            self._far.resume(sock, position)
        except ProtocolError:
            sock.close()
            self._reactor.soon(lambda: self.end("its client has lost its place"))
            raise
        self._silent = 0.0
        self._reactor.watch(sock.fileno(), self._ready, write=self._far.wants_write)

    def _cut(self) -> None:
        if self._given_up is None:
            self._reactor.unwatch(self._far.fileno())
            self._given_up = self._reactor.after(
                self.linger_seconds, lambda: self.end("its client did not come back")
            )
            self._reactor.after(AWAY_SECONDS, self._tell_away)

    def _tell_away(self) -> None:
        if self._far.cut and not self.closed:
            self._on_away()

    def _ask(self) -> None:
        if self.closed:
            return
        self._asking = self._reactor.after(ASK_SECONDS, self._ask)
        if self._far.cut:
            return
        self._silent = 0.0 if self._far.heard != self._heard else self._silent + ASK_SECONDS
        self._heard = self._far.heard
        if self._silent > SILENCE_SECONDS:
            self._far.let_go()  # the loop finds the end
        elif self._silent:
            self._far.tell_position(ask=True)

    def close(self) -> None:
        """Close the link without telling of it."""
        self._asking.cancel()
        if self._given_up is not None:
            self._given_up.cancel()
            self._given_up = None
            self._far.close()
        else:
            super().close()
