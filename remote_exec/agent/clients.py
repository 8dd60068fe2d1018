"""The agent's clients: who is let in, what each says, and what ends when one leaves."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from typing import TYPE_CHECKING, Any

from ..wire import protocol
from ..wire.credentials import peer_uid
from ..wire.resume import Opening, pack_position
from . import pool_events as events
from . import uploads
from .arrivals import refuse
from .greeting import greet
from .leases import Client
from .link import Link

if TYPE_CHECKING:
    from .far_link import FarLink
    from .service import Agent

_log = logging.getLogger(__name__)

LINGER_SECONDS = (
    90.0  # how long a client on another machine may be out of reach; longer than it tries to come back
)


class Clients:
    """Owned by the reactor's thread."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.connected: dict[int, Client] = {}
        self._far: dict[str, FarLink] = {}  # by the name that each gave itself
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
        self._agent.arrivals.take(sock)

    def add_far(self, sock: socket.socket, opening: Opening) -> None:
        """Begin to serve a client on another machine, or go on, over another connection."""
        from .far_link import FarLink

        known = self._far.get(opening.id)
        if opening.begins and known is None:
            number, self._next = self._next, self._next + 1
            client: Client
            link = FarLink(
                self._agent.reactor,
                sock,
                linger_seconds=LINGER_SECONDS,
                on_message=lambda message, body: self._heard(client, message, body),
                on_end=lambda reason: self._far_left(opening.id, client),
                on_away=lambda: self._tell_workers(client, idle=True),
            )
            client = self.connected[number] = Client(number, link)
            self._far[opening.id] = link
            self._agent.settle()
        elif known is None or opening.begins:
            refuse(sock)
        else:
            with contextlib.suppress(OSError):  # its end is found by who reads
                sock.send(pack_position(known.received))
            known.resume(sock, opening.received)

    def say_goodbye(self) -> None:
        """Tell those on other machines that this agent ends: they are not to look for it."""
        for link in self._far.values():
            link.send(protocol.Goodbye())

    def _far_left(self, name: str, client: Client) -> None:
        del self._far[name]
        self._tell_workers(client, idle=False)
        self._left(client)

    def _tell_workers(self, client: Client, *, idle: bool) -> None:
        """Have workers give a client on another machine up; with `idle`, those that do nothing and keep no state."""
        for entry in self._agent.leases.values():
            if entry.client is client and entry.worker and not (idle and entry.request.pool.private):
                lost = protocol.StreamLost(entry.id, idle)
                self._agent.processes.tell_worker(entry.pool, entry.worker, lost)

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
        for upload in filter(None, client.uploads.values()):
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
            case protocol.Goodbye():
                client.link.end("its client said goodbye")
            case _:
                client.link.end(f"a client sent a {type(message).__name__}")
