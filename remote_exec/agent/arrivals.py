"""Connections to the agent, until it is clear which stream each of them carries.

Clients of this machine begin with `Hello`. What comes from elsewhere begins with an `Opening`: a control stream, that
begins or goes on, or the call stream of a lease, which is handed to its worker as it is. Owned by the loop's thread.
"""

from __future__ import annotations

import logging
import socket
from collections import deque
from typing import TYPE_CHECKING

from ..model.errors import ProtocolError
from ..wire import protocol
from ..wire.resume import CALLS, MAGIC, OPENING_SIZE, UNKNOWN, Opening, pack_position
from .reactor import Timer

if TYPE_CHECKING:
    from .leases import LeaseEntry
    from .service import Agent

_log = logging.getLogger(__name__)

FIRST_WORDS_SECONDS = 30.0
LEASE_SECONDS = 10.0  # how long a call stream waits for its lease, which is asked for on another connection
ENDED_KEPT = 4096


class Arrivals:
    """Of one agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._early: dict[str, tuple[socket.socket, Opening, Timer]] = {}
        self._ended: deque[str] = deque(maxlen=ENDED_KEPT)  # leases that are over

    def take(self, sock: socket.socket) -> None:
        """Find out what a connection of this user's is for."""
        reactor = self._agent.reactor
        sock.setblocking(False)
        have = b""

        def drop() -> None:
            reactor.unwatch(sock.fileno())
            sock.close()

        def look() -> None:
            nonlocal have
            try:
                here = not have and sock.recv(1, socket.MSG_PEEK) not in (b"", MAGIC[:1])
                data = b"" if here else sock.recv(OPENING_SIZE - len(have))
            except BlockingIOError:
                return
            except OSError:
                here, data = False, b""
            have += data
            if data and len(have) < OPENING_SIZE:
                return
            timer.cancel()
            reactor.unwatch(sock.fileno())
            if here:
                self._agent.clients.add(sock)
            elif data:
                self._open(sock, have)
            else:
                sock.close()

        timer = reactor.after(FIRST_WORDS_SECONDS, drop)
        reactor.watch(sock.fileno(), look)

    def _open(self, sock: socket.socket, words: bytes) -> None:
        try:
            opening = Opening.unpack(words)
            if opening.kind != CALLS:
                self._agent.clients.add_far(sock, opening)
                return
        except ProtocolError as error:
            _log.warning("a connection was refused: %s", error.message)
            sock.close()
            return
        entry = self._agent.leases.get(opening.id)
        if entry is not None:
            self._give(entry, sock, opening)
        elif opening.id in self._ended or (self._agent.recovered and not opening.begins):
            refuse(sock)
        else:
            self._forget_early(opening.id)
            timer = self._agent.reactor.after(LEASE_SECONDS, lambda: self._forget_early(opening.id))
            self._early[opening.id] = (sock, opening, timer)

    def _forget_early(self, lease: str) -> None:
        if lease in self._early:
            sock, _, timer = self._early.pop(lease)
            timer.cancel()
            refuse(sock)

    def has_ended(self, lease: str) -> bool:
        """Whether a lease is over, as this agent has seen; False where it knows of no such lease."""
        return lease in self._ended

    def lease_begins(self, entry: LeaseEntry) -> None:
        """A lease is asked for, or was found with a worker: its call stream may be here."""
        if entry.id in self._early:
            sock, opening, timer = self._early.pop(entry.id)
            timer.cancel()
            self._give(entry, sock, opening)

    def lease_ends(self, entry: LeaseEntry) -> None:
        """A lease is over."""
        self._ended.append(entry.id)
        if entry.arrived is not None:
            refuse(entry.arrived[0])
            entry.arrived = None

    def _give(self, entry: LeaseEntry, sock: socket.socket, opening: Opening) -> None:
        if entry.arrived is not None:
            entry.arrived[0].close()
        entry.arrived = (sock, opening)
        if entry.worker:
            self.hand_over(entry)

    def hand_over(self, entry: LeaseEntry) -> None:
        """Give the connection that has come to the lease's worker."""
        if entry.arrived is not None:
            sock, opening = entry.arrived
            entry.arrived = None
            told = protocol.StreamArrived(entry.id, opening.received, not opening.begins)
            sock.setblocking(True)
            self._agent.processes.tell_worker(entry.pool, entry.worker, told, (sock.fileno(),))
            sock.close()


def refuse(sock: socket.socket) -> None:
    """Answer that there is no such stream, and hang up."""
    try:
        sock.send(pack_position(UNKNOWN))
    except OSError:
        pass  # it has gone by itself
    finally:
        sock.close()
