"""The near end of a tunnel: connections to the socket that the far end's `agent.relay` leads to.

Each tunnel has one thread, which pumps between the stream and a socket pair for each connection: a round trip wakes it
once on the way out and once on the way back, as it would wake one thread for each direction.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import weakref
from collections import deque
from collections.abc import Callable

from ..model.errors import HostUnavailable
from ..wire.pump import SILENT_BEATS, Pump
from ..wire.tunnel import MAX_CONNECTIONS, TunnelEnd
from .pipes import NearPipe

CLOSE_SECONDS = 1.0  # for what connections have sent, and the stream has not taken
JOIN_SECONDS = 15.0
FULL = f"it has {MAX_CONNECTIONS} connections"

_log = logging.getLogger(__name__)


class Tunnel:
    """Connections over one stream, from any thread.

    Args:
        pipe: the stream; the tunnel owns it from now on.
        on_end: called once with the reason when the stream has ended, in the tunnel's thread and after all
            connections have; not after `close`.
        silent_beats: how many beats of the far end may be missed; see `wire.pump`.

    Example::

        tunnel = Tunnel(Command(process), on_end=lambda reason: ...)
        with tunnel.connect() as sock:
            sock.sendall(b"...")
        tunnel.close()
    """

    def __init__(
        self, pipe: NearPipe, *, on_end: Callable[[str], None], silent_beats: int = SILENT_BEATS
    ) -> None:
        self.refusal = ""  # why the far end last reset a connection
        self._pipe = pipe
        self._on_end = on_end
        self._lock = threading.Lock()
        self._ended = ""  # why
        self._closing = False
        self._asked: deque[socket.socket] = deque()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._pump = Pump(
            TunnelEnd(opens=True), pipe, on_refused=self._was_refused, silent_beats=silent_beats
        )
        self._pump.watch(self._wake_read, self._woken)
        if pipe.talking is not None:
            self._pump.watch(pipe.talking, self._listen)
        _tunnels.add(self)
        self._thread = threading.Thread(target=self._run, name="remote_exec-tunnel", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> str:
        """Why it has ended; empty while it lives."""
        return self._ended

    def connect(self) -> socket.socket:
        """Return a connection: a blocking unix stream socket. What is sent on it before the far end has it waits.

        One that the far end cannot have ends at once; `refusal` then says why.

        Raises:
            HostUnavailable: the tunnel has ended, or has as many connections as it can.
        """
        ours, theirs = socket.socketpair()
        try:
            self.carry(theirs)
        except BaseException:
            ours.close()
            raise
        return ours

    def carry(self, sock: socket.socket) -> None:
        """Have a connected stream socket lead to the far end; it is the tunnel's from now on.

        Raises:
            HostUnavailable: as for `connect`; the socket is closed.
        """
        with self._lock:
            why = self._ended
            if not why and self._pump.end.full:
                why = FULL
            if not why:
                self._asked.append(sock)
                self._wake()
                return
        sock.close()
        raise HostUnavailable(f"the tunnel takes no connection: {why}")

    def close(self) -> None:
        """Send what connections have been given, end them, and the stream; harmless when repeated.

        It waits for that, and for the command's end; not in the tunnel's own thread.
        """
        with self._lock:
            self._closing = True
            self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(JOIN_SECONDS)

    def abandon(self) -> None:
        """In a forked child: close its copies without a word. The connections are for their owners to close."""
        self._lock = threading.Lock()
        if self._wake_write < 0:
            return
        self._ended = self._ended or "this process was forked from the one that has it"
        self._pump.abandon()
        self._pipe.abandon()
        while self._asked:
            self._asked.popleft().close()
        self._close_wake()

    # --- the tunnel's thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        pump = self._pump
        try:
            why = self._pump_until_end()
        except Exception as error:  # whoever waits for a connection must hear of it
            _log.exception("a tunnel failed")
            why = f"it failed: {error}"
        with self._lock:
            self._ended = why
            while self._asked:
                self._asked.popleft().close()
        pump.end_connections()
        self._pipe.close()
        if not self._closing:
            words = self._pipe.last_words()
            self._ended = f"{why}: {words}" if words else why
            self._tell()
        pump.drain()
        with self._lock:
            self._close_wake()

    def _pump_until_end(self) -> str:
        pump = self._pump
        pump.turn(0.0)
        while not self._closing:
            if pump.why_ended is not None:
                return pump.why_ended
            pump.turn()
        pump.send_rest(CLOSE_SECONDS)
        return "it was closed"

    def _tell(self) -> None:
        try:
            self._on_end(self._ended)
        except Exception:
            _log.exception("what hears of a tunnel's end failed")

    def _woken(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        if self._closing:
            self._pump.hurry()
        while self._asked:
            sock = self._asked.popleft()
            if self._pump.end.full:
                self._was_refused(FULL)
                sock.close()
            else:
                self._pump.connect(sock)

    def _listen(self, _events: int) -> None:
        if not self._pipe.listen() and self._pipe.talking is not None:
            self._pump.unwatch(self._pipe.talking)

    def _was_refused(self, reason: str) -> None:
        self.refusal = reason
        _log.info("the far end of a tunnel reset a connection: %s", reason)

    def _wake(self) -> None:
        if self._wake_write >= 0:
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake_write, b"w")

    def _close_wake(self) -> None:
        if self._wake_write >= 0:
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._wake_write = -1


_tunnels: weakref.WeakSet[Tunnel] = weakref.WeakSet()


def _in_child() -> None:
    for tunnel in list(_tunnels):
        tunnel.abandon()


os.register_at_fork(after_in_child=_in_child)
