"""What a backend gives: a host, reached by connections to the unix socket of its agent.

A host is a value: two that are equal are the same machine, user and state directory, so it is the key of whatever is
kept for it. Whatever it needs to be reached (processes, forwarded sockets) is its backend's module's.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..model.job import DeathCertificate

Greet = Callable[[socket.socket], bool]


class Host(Hashable, Protocol):
    """See the module's docstring."""

    @property
    def name(self) -> str:
        """What lists and messages call it."""
        ...

    @property
    def here(self) -> bool:
        """Whether it is this very machine: descriptors can be passed, and files are shared."""
        ...

    def reach(self, greet: Greet) -> socket.socket:
        """Return a greeted connection to the agent there, brought up if there is none.

        Args:
            greet: says hello over a connected socket; False when that agent ended or gives way, so that another is
                to be sought.

        Raises:
            HostUnavailable: there is none to be had; the message tells what was tried and the hint what to do.
        """
        ...

    def how_lost(self, since: float) -> DeathCertificate | None:
        """Return how it was last lost with all that ran there, if its backend has seen that.

        Args:
            since: what was before is of no interest; as `time.monotonic` tells it.
        """
        ...

    def connect(self) -> socket.socket:
        """Return one more connection to the same agent, blocking, nothing said on it yet.

        What is sent on it before the far end has taken it waits; one that cannot be had ends at once.

        Raises:
            HostUnavailable: the way there is broken.
        """
        ...
