"""The agent's clients: who is let in, what each says, and what ends when one leaves."""

from __future__ import annotations

import logging
import os
import socket
import time
from typing import TYPE_CHECKING, Any

from ..wire import protocol
from ..wire.credentials import peer_uid
from . import pool_events as events
from . import uploads
from .greeting import greet
from .leases import Client
from .link import Link

if TYPE_CHECKING:
    from .service import Agent

_log = logging.getLogger(__name__)


class Clients:
    """Owned by the reactor's thread."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.connected: dict[int, Client] = {}
        self._next = 1

    def accept(self, listener: socket.socket) -> None:
        """Take a connection, if it is this user's."""
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        if peer_uid(sock) != os.getuid():
            _log.warning("a connection of another user was refused")
            sock.close()
            return
        self.add(sock)

    def add(self, sock: socket.socket) -> None:
        """Begin to serve a client over a connected socket."""
        number, self._next = self._next, self._next + 1
        client: Client
        link = Link(
            self._agent.reactor,
            sock,
            on_message=lambda message, body: self._heard(client, message, body),
            on_end=lambda reason: self._left(client),
        )
        client = self.connected[number] = Client(number, link)
        self._agent.settle()

    def _left(self, client: Client) -> None:
        self.connected.pop(client.id, None)
        for upload in client.uploads.values():
            upload.abort()
        for entry in list(self._agent.leases.values()):
            if entry.client is client and not entry.worker:
                self._agent.forget_lease(entry)
        self._agent.happen(events.ClientLeft(time.monotonic(), client.id))

    def _heard(self, client: Client, message: Any, body: bytes) -> None:
        agent = self._agent
        match message:
            case protocol.Hello():
                greet(agent, client, message)
            case _ if not client.greeted:
                client.link.end("a client spoke before it greeted")
            case protocol.RequestLease():
                agent.request_lease(message, client.link.take_fds(message.streams), client=client)
            case protocol.CancelCall():
                agent.cancel(message.lease, message.call)
            case protocol.WithdrawCalls():
                agent.withdraw(message)
            case protocol.Request():
                from .requests import answer

                answer(agent, client, message, body)
            case protocol.OfferBundle():
                uploads.offer_bundle(agent, client, message)
            case protocol.PutBlob():
                uploads.put_blob(agent, client, message, body)
            case _:
                client.link.end(f"a client sent a {type(message).__name__}")
