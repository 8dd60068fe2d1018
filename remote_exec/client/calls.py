"""A function as it was captured, and one call of it, from the caller's hands to its outcome."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import field
from typing import TYPE_CHECKING, Any

from ..future import SPENT, RemoteFuture
from ..model.job import Phase
from ..model.record import record
from ..serial.pickling import Pickled
from ..wire import frames

if TYPE_CHECKING:
    from ..model.cost import Cost
    from ..model.errors import HostUnavailable
    from .channel import Channel
    from .dispatching import Dispatching
    from .metrics import Metrics

_tokens = itertools.count(1)
_making = threading.Lock()  # of futures

SHORT_SECONDS = 0.001  # calls that take less are pipelined
PRINTED_BYTES = 1 << 20


@record(frozen=False)
class Captured:
    """A function, pickled with its world; the same token means the same bytes.

    Attributes:
        name: what its calls are called.
        pickled: the function.
        told: what the worker is told of it beside the bytes.
        log_levels: at which the caller's loggers stand that have a level of their own.
        seconds: how long its calls take, from sending to the answer, by an exponential mean; 0 is unknown.
        item_seconds: how long items of batches take, without the batch's own way.
        phases: what it took to get it here; told with the first call.
        instance_type: that its calls go to, as the configuration names it.
    """

    name: str
    pickled: Pickled
    told: dict[str, Any]
    log_levels: dict[str, int] = field(default_factory=lambda: dict[str, int]())
    seconds: float = 0.0
    item_seconds: float = 0.0
    phases: tuple[Phase, ...] = ()
    instance_type: str = ""
    token: int = field(default_factory=_tokens.__next__)

    def took(self, seconds: float) -> None:
        """Take note of how long a call took."""
        self.seconds = seconds if not self.seconds else 0.8 * self.seconds + 0.2 * seconds

    def items_took(self, seconds: float) -> None:
        """Take note of how long each item of a batch took."""
        self.item_seconds = seconds if not self.item_seconds else 0.5 * (self.item_seconds + seconds)


class Printed:
    """The last of what a call has printed, for `RemoteFuture.logs`."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._size = 0

    def add(self, data: bytes) -> None:
        """Take in what it printed now."""
        self._pieces.append(data)
        self._size += len(data)
        while self._size > PRINTED_BYTES and len(self._pieces) > 1:
            self._size -= len(self._pieces.popleft())

    def __str__(self) -> str:
        return b"".join(self._pieces).decode(errors="replace")


def working_folder() -> str:
    """Return where this process is; empty when that folder was removed under its feet."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


class Call:
    """One call. Belongs to its dispatcher."""

    # What most calls never change stands here, and not in each of them: making one is on the hot path.
    called = ""  # in place of its function's name
    number = 0
    size = 0
    items = 1
    deaths = 0  # of workers that it was sent to and that died before they began anything
    channel: Channel | None = None
    sent_at = 0.0
    shown = False  # whether the reporter has heard of it
    cancelling = False  # it was asked to be stopped
    arriving = False  # it has been answered, and what its value names is being fetched
    output: Printed | None = None
    # for batches and generators: called with what has come; for batches (first index, answers)
    on_values: Callable[[Any, Any], None] | None = None
    # where it goes instead of failing, when it was queued for a host that cannot be reached
    elsewhere: Callable[[Any, HostUnavailable], None] | None = None
    _future: RemoteFuture[Any] | None = None

    def __init__(
        self,
        captured: Captured,
        pickled: Pickled,
        future: RemoteFuture[Any] | None = None,
        kind: int = frames.CALL,
        *,
        dispatcher: Dispatching | None = None,
    ) -> None:
        self.captured = captured
        self.pickled = pickled
        self.kind = kind
        self.dispatcher = dispatcher
        self.folder = working_folder()  # the caller's at the call: it may be sent later
        self.started_at = time.monotonic()
        if future is not None:
            self._future = future

    @property
    def future(self) -> RemoteFuture[Any]:
        """Its future, made when somebody needs one: a plain call that is answered at once does without.

        Ask for it before the call is submitted: another thread may complete it, and let go of it.
        """
        if self._future is None:
            with _making:
                if self._future is None:
                    made: RemoteFuture[Any] = RemoteFuture()
                    made._call, made._dispatcher = self, self.dispatcher
                    self._future = made
        return self._future

    @property
    def ended(self) -> bool:
        """Whether its outcome has been taken in."""
        return self._future is not None and self._future.done()

    def begin(self) -> bool:
        """Mark it as running, under the dispatcher's lock; False when it was cancelled before."""
        future = self._future
        if future is None:
            return True
        if future._state == "PENDING":
            future._state = "RUNNING"
            return True
        return future._state == "RUNNING" or future.set_running_or_notify_cancel()

    @property
    def label(self) -> str:
        """What it is called, as others may be."""
        return self.called or self.captured.name

    @property
    def name(self) -> str:
        """The name by which it is known everywhere; empty before it has been sent."""
        return f"{self.label}-{self.channel.lease}-{self.number}" if self.channel is not None else ""

    def metrics(self) -> Metrics:
        """Return the metrics that it has logged so far."""
        from .metrics import metrics_of

        return metrics_of(self)

    def cost(self, *, done: bool) -> Cost | None:
        """Return what it has cost until now; None where its worker has no price, or nothing is kept of it."""
        if self.channel is None or self.channel.price is None:
            return None
        from .costs import cost_of_call

        return cost_of_call(self, done=done)

    def spend(self) -> RemoteFuture[Any]:
        """Return the future, to be completed, and let go of it: it refers to this call, and may hold gigabytes.

        One that is made for it is kept: the thread that called has yet to ask for it.
        """
        future = self._future
        if future is None:
            return self.future
        self._future = SPENT
        return future
