"""The calls of one pool: who takes them, and who reads their answers.

**The thread that waits is the thread that reads.** Whoever waits for a future becomes the leader if there is none:
it reads all channels, completes whatever comes, and leaves when its own future is done, passing the lead on. So a
call and its answer cross no other thread. When something is in flight and nobody has read for a few milliseconds,
the background thread leads, until somebody waits: logs must flow and unread sockets fill up.

Two locks. `_lock` guards queue and channels (`lanes`), and is held for moments. The leader holds the `lead` for
as long as it leads. Outcomes (`answers`) are delivered with neither held.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from ..model.errors import HostUnavailable, WorkerDied
from ..serial import pickling
from ..wire import frames
from ..wire.frames import ARENA, RESULT
from .answers import Answers, account, cancelled
from .calls import Call
from .channel import Channel
from .lanes import Lanes
from .lead import Lead

if TYPE_CHECKING:
    from ..future import RemoteFuture
    from .reporter import Reporter
    from .session import Session

LEADERLESS_SECONDS = 0.003
IDLE_SECONDS = 10.0  # how long a lease is kept with nothing in flight
TICK_SECONDS = 0.1
DEATHS_BEFORE_BEGUN = 3  # workers that may die before they begin a call, until it is given up

EVERY = 1 << 62  # the number of a call, or an item, beyond all others

_UNANSWERED = object()


class Dispatcher:
    """See the module's docstring.

    Args:
        session: gives a connected session, again when the last one was lost.
        request: what to ask a lease with, but for the lease's own id.
        max_workers: how many channels at the most.
        reporter: hears of phases, output and events.
        idle_seconds: how long a lease is kept with nothing in flight.
        opening: makes the call that each worker runs before all others; when one fails, everything does.
        single: there is one worker, whose state is the point; when it has gone, no other takes its place.
    """

    def __init__(
        self,
        session: Callable[[], Session],
        request: dict[str, Any],
        *,
        max_workers: int,
        reporter: Reporter,
        idle_seconds: float = IDLE_SECONDS,
        opening: Callable[[], Call] | None = None,
        single: bool = False,
    ) -> None:
        self._lanes = Lanes(
            session, request, max_workers=max_workers, opening=opening, single=single, on_recall=self.recall
        )
        self._reporter = reporter
        self._idle_seconds = idle_seconds
        self._single = single
        self._broken: Exception | None = None
        self._lock = threading.Lock()
        self._lead = Lead()
        self._answers = Answers(self._lock, reporter)
        self._settling = 0  # calls whose worker is gone, until it is known what becomes of them
        self._busy = threading.Event()
        self._read_at = 0.0
        self._closed = False
        self._closing = False
        self._thread: threading.Thread | None = None

    # --- calls ------------------------------------------------------------------------------------------------

    def submit(self, call: Call) -> None:
        """Take a call: send it if there is a worker with room, else queue it.

        Raises:
            BrokenExecutor: what every worker runs first has failed.
            WorkerDied: the one worker is gone.
            HostUnavailable: no agent could be reached.
        """
        with self._lock:
            self._check()
            self._lanes.take(call)
        if self._thread is None:
            self._start_thread()
        if not self._busy.is_set():
            self._busy.set()

    def run(self, call: Call) -> Any:
        """Take a call and wait for its value: what ``f(x)`` does. Ctrl-C cancels the call.

        Raises:
            BaseException: what the call raised.
        """
        with self._lock:
            self._check()
            self._lanes.take(call)
        if self._thread is None:
            self._start_thread()
        future = None if call.bare else call.future
        try:
            if future is None and call.channel is not None and self._lead.take():
                try:
                    value, future = self._exchange(call.channel, call)
                finally:
                    self._lead.leave()
                    self._answers.run()
                    self._lead.pass_on()
                if future is None:
                    return value
            future = future or call.future
            self.wait(future, None)
        except KeyboardInterrupt:
            future = future or call.future
            if self.cancel(call):
                with contextlib.suppress(CancelledError):
                    self.wait(future, time.monotonic() + IDLE_SECONDS)
            raise
        return future.result()

    def _exchange(self, channel: Channel, call: Call) -> tuple[Any, RemoteFuture[Any] | None]:
        """Lead on one channel until a bare call is answered, in the shortest way: without a future.

        Returns:
            The value and None; or anything and the future, where it takes the long way.

        Raises:
            DeserializationError: the value cannot be rebuilt here.
        """
        stream = channel.stream
        while True:
            self._read_at = time.monotonic()
            try:
                size = stream.fill()
            except (OSError, ValueError):  # nothing for a while, or the end: the long way tells which
                return None, call.future
            if not size:
                return None, call.future
            value: Any = _UNANSWERED
            future: RemoteFuture[Any] | None = None
            with self._lock:
                while (frame := stream.next()) is not None:
                    if frame.kind == RESULT and frame.call == call.number and call.bare:
                        if not frame.flags & ~ARENA:
                            del channel.in_flight[frame.call]
                            account(channel, call)
                            value = pickling.load(*stream.parts(frame))
                            continue
                        future = call.future
                    self._answers.take(channel, frame)
                self._after(channel)
            if value is not _UNANSWERED:
                if call.output is not None:
                    self._answers.add(self._reporter.ended, call)
                return value, None
            if future is not None or not call.bare:
                return None, future or call.future
            self._answers.run()

    def _after(self, channel: Channel) -> None:
        """Send what waits to a worker that has answered, or give it back if it is wanted. Under `_lock`."""
        if channel.recalled and not channel.in_flight:
            self._give_back(self._lanes.take_idle(self._idle_seconds))
        elif self._lanes.queue:
            self._lanes.refill(channel)

    def _give_back(self, channels: list[Channel]) -> None:
        for channel in channels:
            channel.release()
        if channels and self._lanes.queue:
            self._grow()

    def _grow(self) -> None:
        """Ask for another worker if calls wait that are worth one; fail them when there is no agent. Under `_lock`."""
        try:
            self._lanes.grow()
        except HostUnavailable as error:
            if not self._lanes.channels:
                while self._lanes.queue:
                    self._answers.add(self._lanes.queue.popleft().spend().set_exception, error)

    def recall(self) -> None:
        """Give back what is idle and recalled: others wait for workers. Called in the session's thread."""
        with self._lock:
            self._give_back(self._lanes.take_idle(self._idle_seconds))
        self._answers.run()

    def _check(self) -> None:
        if self._broken is not None:
            raise self._broken

    def fail(self, error: Exception) -> None:
        """Fail everything that waits or runs, and all that comes."""
        with self._lock:
            self._broken = error
            calls = [*self._lanes.queue, *self._lanes.in_flight()]
            self._lanes.queue.clear()
            for channel in self._lanes.channels:
                channel.in_flight.clear()
                channel.release()
            self._lanes.channels.clear()
        for call in calls:
            if not call.future.done():
                call.spend().set_exception(error)

    def cancel_queued(self) -> None:
        """Cancel the calls that have not been sent."""
        with self._lock:
            calls = list(self._lanes.queue)
            self._lanes.queue.clear()
        for call in calls:
            cancelled(call.spend())

    def cancel(self, call: Call) -> bool:
        """Withdraw a queued call, or have a running one stopped; False when it has ended."""
        with self._lock:
            if call in self._lanes.queue:
                self._lanes.queue.remove(call)
                channel = None
            elif call.channel is not None and call.number in call.channel.in_flight:
                channel = call.channel
            else:
                return False
        if channel is None:
            cancelled(call.spend())
        else:
            self._lanes.session_of(channel).cancel_call(channel.lease, call.number)
            self._busy.set()
        return True

    def why(self, call: Call) -> str:
        """Say in words what a call waits for."""
        with self._lock:
            return self._lanes.why(call)

    def credit(self, call: Call, count: int) -> None:
        """Let a generator call yield more values."""
        with self._lock:
            channel = call.channel
            if channel is not None and call.number in channel.in_flight:
                with contextlib.suppress(OSError):
                    channel.stream.send(frames.pack(frames.CREDIT, function=count, call=call.number))

    @property
    def max_workers(self) -> int:
        """How many workers may run its calls at once."""
        return self._lanes.max_workers

    @property
    def closed(self) -> bool:
        """Whether it has given its workers back for good."""
        return self._closed

    @property
    def pending(self) -> int:
        """How many calls have not ended."""
        with self._lock:
            return self._pending()

    def _pending(self) -> int:
        sent = len(self._lanes.queue) + len(self._lanes.in_flight())
        return sent + self._settling + self._answers.undelivered

    # --- waiting ----------------------------------------------------------------------------------------------

    def wait(
        self, future: RemoteFuture[Any], deadline: float | None, *, until: Callable[[], bool] | None = None
    ) -> None:
        """Return when the future is done, or `until()` is true, or the time has come."""
        done = until or future.done
        while not done():
            if deadline is not None and time.monotonic() >= deadline:
                return
            if self._lead.take():
                try:
                    self._read_until(done, deadline)
                finally:
                    self._lead.leave()
                    self._answers.run()
                    self._lead.pass_on()
            else:
                self._lead.wait(future, deadline)

    # --- reading ----------------------------------------------------------------------------------------------

    def _read_until(self, done: Callable[[], bool], deadline: float | None) -> None:
        """Lead: read until `done()`. First in the kernel on the one busy channel, then by poll on all of them."""
        while not done():
            self._read_at = time.monotonic()
            busy = self._lanes.busy()
            if len(busy) == 1 and (deadline is None or deadline - self._read_at > 0.1):
                channel = busy[0]
                try:
                    self._read(channel, 0)
                    continue
                except BlockingIOError:
                    pass  # nothing for a while: look around
            if not self._poll(deadline, done):
                return

    def _poll(self, deadline: float | None, done: Callable[[], bool]) -> bool:
        """Wait on all busy channels; False when it is time to leave."""
        while not done():
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                return False
            poller = select.poll()
            channels = {
                channel.stream.fileno(): channel for channel in self._lanes.channels if not channel.closed
            }
            channels.pop(-1, None)  # closed by another thread in this moment
            for fd in channels:
                poller.register(fd, select.POLLIN)
            poller.register(self._lead, select.POLLIN)
            limit = TICK_SECONDS if deadline is None else min(TICK_SECONDS, deadline - now)
            for fd, _ in poller.poll(max(1, int(limit * 1000))):
                if fd == self._lead.fileno():
                    self._lead.heard()
                    return not self._lead.in_background
                with contextlib.suppress(BlockingIOError):
                    self._read(channels[fd], socket.MSG_DONTWAIT)
            self._reporter.tick(self._lanes.oldest())
        return True

    def _read(self, channel: Channel, flags: int) -> None:
        """Read once from a channel and take in what came.

        Raises:
            BlockingIOError: nothing came.
        """
        try:
            size = channel.stream.fill(flags)
        except BlockingIOError:
            raise
        except (OSError, ValueError):
            size = 0
        if not size:
            self._ended(channel)
            return
        with self._lock:
            while (frame := channel.stream.next()) is not None:
                self._answers.take(channel, frame)
            self._after(channel)
        self._answers.run()

    def _ended(self, channel: Channel) -> None:
        """A channel's stream has ended: the call that ran fails, those behind it are sent elsewhere."""
        with self._lock:
            if channel in self._lanes.channels:
                self._lanes.channels.remove(channel)
            channel.closed = True
            calls = list(channel.in_flight.values())
            channel.in_flight.clear()
            self._settling += len(calls)
        try:
            if calls:
                self._settle(channel, calls, channel.why_ended(calls[0]))
        finally:
            with self._lock:
                self._settling -= len(calls)
        channel.abandon()
        if self._single:
            self.fail(
                channel.why_ended(calls[0])
                if calls
                else WorkerDied("its worker has ended; its state is gone")
            )
            return
        with self._lock:
            self._grow()
        self._answers.run()

    def _settle(self, channel: Channel, calls: list[Call], error: Exception) -> None:
        lost = channel.lost
        begun = lost.begun if lost is not None else 0 if channel.never_granted else EVERY
        again: list[Call] = []
        for call in calls:
            if not begun:
                call.deaths += 1  # no worker has lived to begin anything: not for ever
            if call.number > begun and call.pickled.stream and call.deaths < DEATHS_BEFORE_BEGUN:
                call.channel, call.number = None, 0
                again.append(call)
            elif lost is not None and lost.certificate.cause.value == "cancelled":
                cancelled(call.spend())
            elif call.on_values is not None and call.kind == frames.BATCH:
                # Where it is not known which item was the last, each may have run, and none may run again.
                call.on_values(-1, (error, lost.item if lost is not None and begun == call.number else EVERY))
            else:
                call.spend().set_exception(error if call is calls[0] else channel.why_ended(call))
            if call not in again:
                self._reporter.ended(call)
        if again:
            with self._lock:
                self._lanes.queue.extendleft(reversed(again))

    # --- the background ---------------------------------------------------------------------------------------

    def _start_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._background, name="remote_exec-reader", daemon=True)
            self._thread.start()

    def _background(self) -> None:
        quiet_since = time.monotonic()
        while not self._closed:
            if not self._busy.wait(IDLE_SECONDS / 4):
                if self._closing and not self.pending:
                    self.close()
                else:
                    self._release_idle()
                continue
            time.sleep(LEADERLESS_SECONDS)
            now = time.monotonic()
            if self._lanes.busy() or self._lanes.queue:
                quiet_since = now
                if now - self._read_at > LEADERLESS_SECONDS and self._lead.take():
                    try:
                        self._lead_in_background()
                    except Exception:  # what one outcome raises (a closed stderr) must not end the reading
                        logging.getLogger(__name__).exception("while reading answers")
            elif self._closing and not self.pending:
                self.close()
            elif now - quiet_since > 0.5:
                self._busy.clear()
                with self._lock:
                    for channel in self._lanes.channels:
                        channel.flush_acknowledgement()

    def _lead_in_background(self) -> None:
        self._lead.in_background = True
        try:
            self._poll(time.monotonic() + 1.0, lambda: not self._lanes.busy())
        finally:
            self._lead.in_background = False
            self._lead.leave()
            self._answers.run()
            self._lead.pass_on()

    def _release_idle(self) -> None:
        with self._lock:
            self._give_back(self._lanes.take_idle(self._idle_seconds))

    def cancel_all(self) -> None:
        """Cancel what waits and what runs."""
        with self._lock:
            calls = [*self._lanes.queue, *self._lanes.in_flight()]
        for call in calls:
            with contextlib.suppress(HostUnavailable):
                self.cancel(call)

    def close(self, *, cancel: bool = False) -> None:
        """Give all workers back; with `cancel`, stop what runs first."""
        if cancel:
            self.cancel_all()
        self._closed = True
        self._busy.set()
        with self._lock:
            for channel in self._lanes.channels:
                channel.release()
            self._lanes.channels.clear()

    def close_when_done(self) -> None:
        """Give the workers back as soon as nothing is pending, without making the caller wait."""
        self._closing = True
        self._start_thread()
        self._busy.set()

    def let_go(self) -> None:
        """As `close_when_done`, in a few seconds: for finalizers, which may run while this thread holds any lock."""
        self._closing = True

    def abandon(self) -> None:
        """In a forked child: forget everything without a word to the parent's workers."""
        self._closed = True
        for channel in self._lanes.channels:
            channel.abandon()
        self._lanes.channels.clear()
