"""Who is connected and who holds which worker, as the agent's shell keeps it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import field
from typing import Any

from ..model.record import record
from ..wire import protocol
from ..wire.resume import Opening
from .link import Link
from .reactor import Timer


@record(frozen=False)
class Client:
    """One connected client process."""

    id: int
    link: Link
    version: str = ""
    pid: int = 0
    greeted: bool = False
    uploads: dict[str, Any] = field(default_factory=dict[str, Any])
    bundles: set[str] = field(default_factory=set[str])  # that it has offered, and may ask workers for
    trees: set[str] = field(default_factory=set[str])  # that its calls name
    # blobs that it was asked for, and that need not be synced
    relaxed: set[str] = field(default_factory=set[str])

    @property
    def looks(self) -> bool:
        """Whether it only looks at what there is: no agent stays for it, and none is kept from giving way."""
        return self.version == protocol.LOOKER


@record(frozen=False)
class LeaseEntry:
    """A lease that has been asked for, and who has it."""

    id: str
    client: Client | None  # None: the agent itself, for a job
    fds: list[int]  # the far ends of its call stream
    request: protocol.RequestLease
    on_event: Callable[[object], None] | None = None
    open: Callable[[], list[int]] | None = None  # makes `fds` when there is a worker: what waits holds none
    pool: str = ""
    worker: int = 0
    pid: int = 0
    stopping: dict[int, Timer] = field(default_factory=dict[int, Timer])
    killed_for: str = ""
    arrived: tuple[socket.socket, Opening] | None = None  # a connection that carries its call stream
    rest: tuple[str, str] = ("", "")  # what its worker printed last
