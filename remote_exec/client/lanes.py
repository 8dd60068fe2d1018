"""What is sent where: the queue of one pool's calls and the channels to its workers.

All of it is under the dispatcher's lock; nothing here waits for an answer. A call goes to an idle worker, else
behind others if they and it are short, else into the queue; a worker that answers is sent as many queued calls as
it has room for, in one piece. Another worker is asked for when calls wait that are worth one.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..model.errors import HostUnavailable
from .calls import SHORT_SECONDS, Call
from .channel import Channel

if TYPE_CHECKING:
    from .session import Session

DEPTH = 64  # short calls in flight on one channel
WINDOW_BYTES = 96 << 10  # of small calls in flight on one channel: less than what a socket holds
ROW = 16  # calls that are sent in one piece when they come in a row, behind others
ROW_SECONDS = 0.0002  # between one and the next
STUCK_SECONDS = 0.1  # a call that was thought to be short keeps others waiting for so long, and no longer
PREFETCHED_SECONDS = 0.02  # calls up to this long may wait behind one other on their worker


class Lanes:
    """See the module's docstring.

    Args:
        session: gives a connected session, again when the last one was lost.
        request: what to ask a lease with, but for the lease's own id.
        max_workers: how many channels at the most.
        opening: makes the call that each worker runs before all others.
        single: only one channel is ever opened.
        on_recall: called when the agent wants a worker back.
    """

    def __init__(
        self,
        session: Callable[[], Session],
        request: dict[str, Any],
        *,
        max_workers: int,
        opening: Callable[[], Call] | None,
        single: bool,
        on_recall: Callable[[], None],
    ) -> None:
        self.queue: deque[Call] = deque()
        self.unsent = False  # whether frames wait in outboxes
        self._held_back = False  # whether calls wait that a Ctrl-C has kept from being sent
        self.channels: list[Channel] = []
        self.gone: Channel | None = None  # the last that was of no use when a call came
        self.max_workers = max_workers
        self._session = session
        self._request = request
        self._opening = opening
        self._single = single
        self._opened = 0
        # A worker that holds state of ours is not given back before its time.
        self._on_recall = on_recall if opening is None and not single else None

    def take(self, call: Call) -> Channel | None:
        """Send a call if there is a worker with room, and return its channel; else queue it.

        Raises:
            HostUnavailable: no agent could be reached; the call is not queued.
        """
        if not self.queue:
            for idle in self.channels:  # most often there is one, and it knows the function
                if not idle.in_flight and idle.usable and call.begin() and idle.send_again(call):
                    return idle
        if not self.queue and (channel := self._with_room(call)) is not None:
            self.send(channel, call)
            return channel
        self.queue.append(call)
        if len(self.channels) >= self.max_workers and len(self.queue) % DEPTH != 1:
            return None  # no worker can be added; whether one is lost is looked at now and then
        try:
            self.grow()
        except HostUnavailable:
            with contextlib.suppress(ValueError):
                self.queue.remove(call)
            raise
        return call.channel

    def send(self, channel: Channel, call: Call) -> None:
        """Send a call now; or in a moment, with others, when it would wait there anyway and they come in a row."""
        if not call.begin():
            return
        now = time.monotonic()
        waits = bool(channel.in_flight) and now - channel.sent_at < ROW_SECONDS and len(channel.outbox) < ROW
        call.sent_at = channel.sent_at = now
        try:
            channel.post(call)
            if waits:
                self.unsent = True
            else:
                channel.flush()
        except KeyboardInterrupt:
            self.unsent = self._held_back = True
            raise

    def flush(self) -> None:
        """Send what waits for others to go with it, and what a Ctrl-C has kept back."""
        self.unsent = False
        for channel in self.channels:
            if channel.is_free:
                channel.flush()
            else:
                self.unsent = True
        if self._held_back and not self.unsent:
            self._held_back = False
            self.take_back([])

    def refill(self, channel: Channel) -> None:
        """Send queued calls in one piece, as many as this channel has room for."""
        now = time.monotonic()
        queue, call = self.queue, None
        goes_on = channel.usable and not channel.closed and _goes_on(channel)
        try:
            while queue and goes_on and self._fits(channel, queue[0]):
                call = queue.popleft()
                if not call.begin():
                    continue
                call.sent_at = channel.sent_at = now
                channel.post(call)
            channel.flush()
        except KeyboardInterrupt:
            self.unsent = self._held_back = True
            if call is not None and call.channel is None:  # it was not meant: any thread sends any call
                queue.appendleft(call)
            raise
        if self.queue:
            with contextlib.suppress(HostUnavailable):
                self.grow()

    def acknowledge(self) -> None:
        """Tell workers which outcomes have come."""
        for channel in self.channels:
            channel.flush_acknowledgement()

    def unstick(self, *, elsewhere: bool = False) -> None:
        """Ask back what waits behind a call or an item that was thought to be short, and is not: others may run it.

        Args:
            elsewhere: there are workers for it on another host.
        """
        if self._single or (self.max_workers == 1 and not elsewhere):
            return
        idle = elsewhere or len(self.busy()) < self.max_workers
        for channel in self.channels:
            if not (channel.granted and channel.usable) or channel.withdrawing or not channel.in_flight:
                continue
            if len(channel.in_flight) < 2 and not (idle and next(iter(channel.in_flight.values())).items > 1):
                continue
            if time.monotonic() - channel.running_since > STUCK_SECONDS:
                with contextlib.suppress(HostUnavailable):
                    channel.withdraw()

    def take_last(self, limit: int) -> list[Call]:
        """Take calls that wait for another host; where fewer wait, ask back what is stuck, for the next time."""
        calls = [self.queue.pop() for _ in range(min(limit, len(self.queue)))]
        if len(calls) < limit:
            self.unstick(elsewhere=True)
        return calls

    def take_back(self, calls: list[Call]) -> None:
        """Queue calls that were withdrawn, before all others, and send them where there is room."""
        self.queue.extendleft(reversed(calls))
        for channel in self.channels:
            if self.queue and not channel.in_flight:
                self.refill(channel)
        with contextlib.suppress(HostUnavailable):
            self.grow()

    def grow(self) -> None:
        """Ask for another worker if calls wait that are worth one.

        Raises:
            HostUnavailable: no agent could be reached.
        """
        for channel in [one for one in self.channels if not (one.in_flight or one.usable or one.recalled)]:
            self.channels.remove(channel)
            channel.release()
            self.gone = channel
        waiting = len(self.queue)
        # What waits is not waited for by a worker that comes for a call of its own.
        coming = sum(1 for channel in self.channels if channel.granted is None and not channel.in_flight)
        if not waiting or coming >= waiting or len(self.channels) >= self.max_workers:
            return
        if self._single and self._opened:
            return
        seconds = _seconds(self.queue[0])
        if self.channels and 0.0 < seconds < SHORT_SECONDS and waiting < DEPTH:
            return
        channel = Channel(
            self._session(),
            reconnect=self._session,
            on_recall=self._on_recall,
            outlives_agent=self._single,
        )
        self.channels.append(channel)
        try:
            channel.open(self._request)
        except HostUnavailable:
            self.channels.remove(channel)
            channel.abandon()
            raise
        self._opened += 1
        if self._opening is not None:
            self._begin(channel, self._opening())
        self.refill(channel)

    def _begin(self, channel: Channel, opening: Call) -> None:
        try:
            self.send(channel, opening)
        except BaseException:  # a Ctrl-C: without it the worker is of no use
            self.channels.remove(channel)
            self.gone = channel
            channel.release()
            raise

    def busy(self) -> list[Channel]:
        """The channels with something in flight."""
        return [channel for channel in self.channels if channel.in_flight]

    def in_flight(self) -> list[Call]:
        """All calls that have been sent and not answered."""
        return [call for channel in self.channels for call in channel.in_flight.values()]

    def priced(self, since: float) -> list[Channel]:
        """The channels whose worker has a price, and is at work on a call that was made at that time or later.

        Any thread may ask.
        """
        found: list[Channel] = []
        for channel in list(self.channels):
            if channel.price is not None and channel.granted is not None:
                calls = list(channel.in_flight.values())
                if calls and calls[0].started_at >= since:
                    found.append(channel)
        return found

    def oldest(self) -> Call | None:
        """The call that has waited for longest."""
        return next(iter(self.in_flight()), self.queue[0] if self.queue else None)

    def session_of(self, channel: Channel) -> Session:
        """The session by which a channel's agent is reached: an agent that died has a successor."""
        return channel.session if not channel.session.lost else self._session()

    def why(self, call: Call) -> str:
        """Say in words what a call waits for."""
        if call in self.queue:
            position = self.queue.index(call) + 1
            waits = [c.waits.why for c in self.channels if c.granted is None and c.waits is not None]
            return f"position {position} in this process's queue" + (f"; {waits[0]}" if waits else "")
        channel = call.channel
        if channel is None:
            return "it is being sent"
        if channel.granted is None:
            return channel.waits.why if channel.waits is not None else "it waits for a worker"
        first = next(iter(channel.in_flight), call.number)
        return (
            "it runs" if first == call.number else f"{call.number - first} calls run before it on its worker"
        )

    def phase(self, call: Call) -> str:
        """Name what a call is at: queue, environment, start, run."""
        channel = call.channel
        if channel is None:
            return "queue"
        if channel.granted is None:
            return channel.waits.phase if channel.waits is not None else "queue"
        return "run" if next(iter(channel.in_flight), call.number) == call.number else "queue"

    def clear(self) -> list[Call]:
        """Give all workers back; return the calls that waited or ran."""
        calls = [*self.queue, *self.in_flight()]
        self.queue.clear()
        for channel in self.channels:
            channel.in_flight.clear()
            channel.release()
        self.channels.clear()
        return calls

    def take_idle(self, idle_seconds: float) -> list[Channel]:
        """Remove and return channels that have had nothing in flight for a while, and those that are recalled."""
        now = time.monotonic()
        gone = [
            channel
            for channel in self.channels
            if not channel.in_flight
            and (channel.recalled or (not self.queue and now - channel.last_result > idle_seconds))
        ]
        self.channels = [channel for channel in self.channels if channel not in gone]
        return gone

    def _with_room(self, call: Call) -> Channel | None:
        best: Channel | None = None
        for channel in self.channels:
            if not channel.usable:
                continue
            if not channel.in_flight:
                return channel
            if (
                channel.granted
                and _goes_on(channel)
                and self._fits(channel, call)
                and (best is None or _load(channel) < _load(best))
            ):
                best = channel
        if best is not None and len(self.channels) < self.max_workers and _load(best) >= DEPTH // 2:
            return None
        return best

    def _fits(self, channel: Channel, call: Call) -> bool:
        """Whether a call may be sent behind others that go on: if it is short and small, and so are they.

        What is sent while the worker runs something must fit into the socket: while we wait for it to read, it may
        wait for us to do so.
        """
        load = len(channel.in_flight)
        if not load:
            return True
        if channel.bytes_in_flight + channel.cost(call) > WINDOW_BYTES:
            return False
        seconds = _seconds(call)
        depth = DEPTH if seconds < SHORT_SECONDS else 2 if seconds < PREFETCHED_SECONDS else 1
        return seconds > 0.0 and load < depth


def _goes_on(channel: Channel) -> bool:
    """Whether what runs there, if anything does, is not known to be long."""
    if not channel.in_flight:
        return True
    return not channel.withdrawing and time.monotonic() - channel.running_since <= PREFETCHED_SECONDS


def _load(channel: Channel) -> int:
    return len(channel.in_flight)


def _seconds(call: Call) -> float:
    """How long a call will probably take; 0 is unknown."""
    captured = call.captured
    return (captured.item_seconds or captured.seconds) * call.items if call.items > 1 else captured.seconds
