"""A port of this machine's own address that leads through a tunnel to one of a host's."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

from ..model.errors import ConfigurationError, HostUnavailable
from .tunnel import Tunnel


class ForwardedPort:
    """Listens until `close`. Use it where the backend has no way of its own.

    Args:
        port: of 127.0.0.1.
        open_tunnel: opens a tunnel whose far end connects to the host's port.

    Raises:
        ConfigurationError: the port cannot be had.
        HostUnavailable: the host is out of reach.
    """

    def __init__(self, port: int, open_tunnel: Callable[[], Tunnel]) -> None:
        self._open_tunnel = open_tunnel
        try:
            self._listener = socket.create_server(("127.0.0.1", port))
        except OSError as error:
            raise ConfigurationError(
                f"port {port} of this machine cannot be had: {error.strerror}"
            ) from error
        try:
            self._tunnel = open_tunnel()
        except BaseException:
            self._listener.close()
            raise
        self._thread = threading.Thread(target=self._accept, name="remote_exec-port", daemon=True)
        self._thread.start()

    def mend(self) -> None:
        """Open the tunnel anew if it has ended.

        Raises:
            HostUnavailable: the host is out of reach; connections end at once until it is not.
        """
        if self._tunnel.ended:
            self._tunnel = self._open_tunnel()

    def close(self) -> None:
        """Listen no more, and end the connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # who waits for a connection hears only of this
        self._listener.close()
        self._thread.join()
        self._tunnel.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener's end
            while True:
                sock, _ = self._listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with contextlib.suppress(HostUnavailable):
                    self._tunnel.carry(sock)
