"""A function as it was captured, and one call of it, from the caller's hands to its outcome."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import field
from typing import TYPE_CHECKING, Any

from ..model.record import record
from ..serial.pickling import Pickled
from ..wire import frames

if TYPE_CHECKING:
    from ..future import RemoteFuture
    from .channel import Channel
    from .dispatcher import Dispatcher

_tokens = itertools.count(1)

SHORT_SECONDS = 0.001  # calls that take less are pipelined


@record(frozen=False)
class Captured:
    """A function, pickled with its world; the same token means the same bytes.

    Attributes:
        name: what its calls are called.
        pickled: the function.
        told: what the worker is told of it beside the bytes.
        log_level: at which the caller's root logger stands.
        seconds: how long its calls take, from sending to the answer, by an exponential mean; 0 is unknown.
        keeps_arguments: whether calls must be able to be sent again.
    """

    name: str
    pickled: Pickled
    told: dict[str, Any]
    log_level: int = 30
    seconds: float = 0.0
    keeps_arguments: bool = True
    token: int = field(default_factory=_tokens.__next__)

    def took(self, seconds: float) -> None:
        """Take note of how long a call took."""
        self.seconds = seconds if not self.seconds else 0.8 * self.seconds + 0.2 * seconds


class Call:
    """One call. Belongs to its dispatcher."""

    __slots__ = (
        "_future",
        "captured",
        "channel",
        "deaths",
        "dispatcher",
        "items",
        "kind",
        "number",
        "on_values",
        "output",
        "pickled",
        "sent_at",
        "size",
        "started_at",
    )

    def __init__(
        self,
        captured: Captured,
        pickled: Pickled,
        future: RemoteFuture[Any] | None = None,
        kind: int = frames.CALL,
        *,
        dispatcher: Dispatcher | None = None,
    ) -> None:
        self.captured = captured
        self.pickled = pickled
        self.kind = kind
        self.dispatcher = dispatcher
        self._future: RemoteFuture[Any] | None = future
        self.number = 0
        self.size = 0
        self.deaths = 0  # of workers that it was sent to and that died before they began anything
        self.channel: Channel | None = None
        self.sent_at = 0.0
        self.started_at = time.monotonic()
        self.items = 1
        self.output: list[tuple[int, bytes]] | None = None
        # for batches and generators: called with what has come; for batches (first index, answers)
        self.on_values: Callable[[Any, Any], None] | None = None

    @property
    def future(self) -> RemoteFuture[Any]:
        """Its future, made when somebody needs one: a plain call that is answered at once does without."""
        if self._future is None:
            from ..future import RemoteFuture

            self._future = RemoteFuture()
            self._future._call, self._future._dispatcher = self, self.dispatcher
        return self._future

    @property
    def bare(self) -> bool:
        """Whether nobody has needed a future yet."""
        return self._future is None

    def begin(self) -> bool:
        """Mark it as running; False when it was cancelled before."""
        future = self._future
        return future is None or future._state != "PENDING" or future.set_running_or_notify_cancel()

    @property
    def name(self) -> str:
        """The name by which it is known everywhere; empty before it has been sent."""
        return f"{self.captured.name}-{self.channel.lease}-{self.number}" if self.channel is not None else ""

    def spend(self) -> RemoteFuture[Any]:
        """Return the future, to be completed, and let go of it: it refers to this call, and may hold gigabytes."""
        from ..future import SPENT

        future = self.future
        self._future = SPENT
        return future

    def drop_arguments(self) -> None:
        """Let go of the arguments' memory: they have been sent and will not be sent again."""
        self.pickled = Pickled([], [])
