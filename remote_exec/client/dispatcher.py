"""The calls of one pool, from their callers to their outcomes.

A call is sent by the thread that makes it (`lanes`) and its answer is read by the thread that waits for it
(`reading`): it crosses no other thread. When something is in flight and nobody has read for a few milliseconds, a
background thread does: logs must flow, and unread sockets fill up.

`_lock` guards queue and channels, and is held for moments. A channel has one reader at a time, for as long as that
reads. Outcomes (`answers`) are delivered with neither held.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from ..model.errors import HostUnavailable, WorkerDied
from ..wire import frames
from .answers import Answers, cancelled
from .calls import Call
from .channel import Channel
from .interrupts import shield, unshield
from .lanes import Lanes
from .reading import UNANSWERED, Reading
from .settling import settle

if TYPE_CHECKING:
    from ..future import RemoteFuture
    from ..serial.pickling import Pickled
    from .reporter import Reporter
    from .session import Session

UNREAD_SECONDS = 0.003  # when the background thread begins to read what nobody does
BACKGROUND_SECONDS = 1.0  # how long it reads at a stretch
QUIET_SECONDS = 0.5  # with nothing in flight, until it sleeps
IDLE_SECONDS = 10.0  # how long a lease is kept with nothing in flight
LISTEN_SECONDS = 0.25
WHY_SECONDS = 0.5

FORKED = "the call was made by the process that this one was forked from"


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
        self._answers = Answers(self._lock, reporter, take_back=self._lanes.take_back, session=session)
        self._reading = Reading(
            self._lock,
            self._lanes,
            self._answers,
            on_answers=self._on_answers,
            on_end=self._ended,
            on_tick=self._tick,
        )
        self._settling = 0  # calls whose worker is gone, until it is known what becomes of them
        self._busy = threading.Event()
        self._closed = False
        self._closing = False
        self._forked = False
        self._thread: threading.Thread | None = None

    def report_to(self, reporter: Reporter, *, instead_of: Reporter) -> None:
        """Have another reporter hear of its calls, if it is that one which does now."""
        if self._reporter is instead_of:
            self._reporter = reporter
            self._answers.report_to(reporter)

    # --- calls ------------------------------------------------------------------------------------------------

    def submit(self, call: Call) -> None:
        """Take a call: send it if there is a worker with room, else queue it.

        Raises:
            BrokenExecutor: what every worker runs first has failed.
            WorkerDied: the one worker is gone.
            HostUnavailable: no agent could be reached.
        """
        shielded = shield()
        try:
            self._take(call)
            if not self._busy.is_set():
                self._busy.set()
        except KeyboardInterrupt:  # while it was sent: nobody will have its future
            self._give_up(call)
            raise
        finally:
            if shielded:
                unshield()

    def _take(self, call: Call) -> Channel | None:
        with self._lock:
            if self._broken is not None:
                raise self._broken
            channel = self._lanes.take(call)
            gone = self._lanes.gone if channel is None and self._single else None
        if self._thread is None:
            self._start_thread()
        if gone is not None:  # its worker has ended while nothing ran on it, and no other takes its place
            self.fail(gone.why_ended(call))
        return channel

    def run(self, call: Call) -> Any:
        """Take a call and wait for its value: what ``f(x)`` does. Ctrl-C cancels the call.

        Raises:
            BaseException: what the call raised.
        """
        given = call._future  # the call lets go of it when it has ended
        shielded = shield()
        try:
            channel = self._take(call)
            if channel is not None:
                value = self._reading.exchange(channel, call)
                if value is not UNANSWERED:
                    return value
            future = given or call.future
            self.wait(future, None)
        except KeyboardInterrupt:
            future = given or call.future
            if self._give_up(call):
                with contextlib.suppress(CancelledError):
                    self.wait(future, time.monotonic() + IDLE_SECONDS)
            raise
        finally:
            if shielded:
                unshield()
        call.spend()
        return future.result()

    def _give_up(self, call: Call) -> bool:
        """Cancel a call that may not have been taken; return whether it has to be waited for."""
        if self.cancel(call):
            return True
        if call.channel is None and not call.ended:
            cancelled(call.spend())
        return False

    def _on_answers(self, channel: Channel) -> None:
        """Send what waits to a worker that has answered, or give it back if it is wanted. Under `_lock`."""
        if channel.recalled and not channel.in_flight:
            self._give_back(self._lanes.take_idle(self._idle_seconds))
        elif self._lanes.queue:
            self._lanes.refill(channel)

    def _tick(self, awaited: Call | None) -> None:
        """See to calls that are stuck; tell the reporter that time passes for the call waited for, or the oldest."""
        with self._lock:
            self._lanes.unstick()
            call = awaited
            if call is None or call.ended:
                call = self._lanes.oldest()
            if call is None:
                return
            phase, why = self._lanes.phase(call), self._lanes.why(call)
        call.shown = True
        self._reporter.tick(call, phase, why, waited_for=awaited is not None)

    def _give_back(self, channels: list[Channel]) -> None:
        for channel in channels:
            channel.release()
        if channels and self._single:
            self._broken = WorkerDied(
                "the instance was idle for keep_alive_period_in_seconds and its worker was given back",
                hint="make another instance, or raise keep_alive_period_in_seconds",
            )
            self._end()
        if channels and self._lanes.queue:
            self._grow()

    def _grow(self) -> None:
        """Ask for another worker if calls wait that are worth one; fail them when there is no agent. Under `_lock`."""
        try:
            self._lanes.grow()
        except HostUnavailable as error:
            if not self._lanes.channels:
                while self._lanes.queue:
                    call = self._lanes.queue.popleft()
                    if call.elsewhere is not None:
                        self._answers.add(call.elsewhere, call, error)
                    else:
                        self._answers.add(call.spend().set_exception, error)

    def recall(self) -> None:
        """Give back what is idle and recalled: others wait for workers. Called in the session's thread."""
        with self._lock:
            self._give_back(self._lanes.take_idle(self._idle_seconds))
        self._answers.run()

    def fail(self, error: Exception) -> None:
        """Fail everything that waits or runs, and all that comes."""
        with self._lock:
            self._broken = error
            calls = self._lanes.clear()
            self._end()
        for call in calls:
            if not call.ended:
                call.spend().set_exception(error)

    def hand_over(self, limit: int, take: Callable[[Call], None]) -> None:
        """Have somebody else take calls that have not been sent, those that came last."""
        with self._lock:
            calls = self._lanes.take_last(limit)
            self._settling += len(calls)
        try:
            for call in reversed(calls):
                take(call)
        finally:
            with self._lock:
                self._settling -= len(calls)

    def cancel_queued(self) -> None:
        """Cancel the calls that have not been sent."""
        with self._lock:
            calls = list(self._lanes.queue)
            self._lanes.queue.clear()
        for call in calls:
            cancelled(call.spend())

    def cancel(self, call: Call) -> bool:
        """Withdraw a queued call, or have a running one stopped; False when it has ended."""
        if self._forked:
            return False
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
            call.cancelling = True
            self._lanes.session_of(channel).cancel_call(channel.lease, call.number)
            with self._lock, contextlib.suppress(HostUnavailable):
                channel.withdraw()  # it may wait behind another, or for its function to be loaded
            self._busy.set()
        return True

    def why(self, call: Call) -> str:
        """Say in words what a call waits for."""
        if self._forked:
            return FORKED
        if not self._lock.acquire(timeout=WHY_SECONDS):
            return "its host is being reached"
        try:
            return self._lanes.why(call)
        finally:
            self._lock.release()

    def credit(self, call: Call, count: int) -> None:
        """Let a generator call yield more values."""
        with self._lock:
            channel = call.channel
            if channel is not None and call.number in channel.in_flight:
                with contextlib.suppress(OSError):
                    channel.stream.send(frames.pack(frames.CREDIT, function=count, call=call.number))

    def answer(self, call: Call, value: Pickled) -> None:
        """Send what a generator call has asked for."""
        with self._lock:
            channel = call.channel
            if channel is not None and call.number in channel.in_flight:
                buffers = [buffer.raw() for buffer in value.buffers]
                frame = channel.stream.frame(frames.ANSWER, value.stream, buffers, call=call.number)
                with contextlib.suppress(OSError):
                    channel.stream.send(frame)

    @property
    def max_workers(self) -> int:
        """How many workers may run its calls at once."""
        return self._lanes.max_workers

    @property
    def leases(self) -> int:
        """How many leases it has, or waits for."""
        return len(self._lanes.channels)

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

    def wait(
        self, future: RemoteFuture[Any], deadline: float | None, *, until: Callable[[], bool] | None = None
    ) -> None:
        """Return when the future is done, or `until()` is true, or the time has come.

        Raises:
            HostUnavailable: this process was forked from the one that made the call, and has no part in it.
        """
        if self._forked and not future.done():
            raise HostUnavailable(FORKED, hint="wait for it there, or call again here")
        call = future._call
        if call is not None:
            shielded = shield()
            try:
                self._reading.wait(future, call, deadline, until)
            finally:
                if shielded:
                    unshield()
                self._reporter.left()

    # --- ends of workers --------------------------------------------------------------------------------------

    def _ended(self, channel: Channel) -> None:
        """A channel's stream has ended: the call that ran fails, those behind it are sent elsewhere."""
        with self._lock:
            if channel in self._lanes.channels:
                self._lanes.channels.remove(channel)
            channel.closed = True
            calls = list(channel.in_flight.values())
            channel.in_flight.clear()
            self._settling += len(calls)
        channel.learn_death()
        if calls and channel.out_of_reach and not self._single:
            threading.Thread(target=self._find_out, args=(channel, calls), daemon=True).start()
            return
        try:
            if calls:
                error = channel.why_ended(calls[0])
                again = settle(channel, calls, error, answers=self._answers, reporter=self._reporter)
                if again:
                    with self._lock:
                        self._lanes.take_back(again)
        finally:
            with self._lock:
                self._settling -= len(calls)
        channel.abandon()
        if self._single and not self._closed:
            self.fail(
                channel.why_ended(calls[0])
                if calls
                else WorkerDied("its worker has ended; its state is gone")
            )
            return
        with self._lock:
            self._grow()
        self._answers.run()

    def _find_out(self, channel: Channel, calls: list[Call]) -> None:
        """See what became of calls on a host that was out of reach: some have gone on as jobs, others never came."""
        from .whereabouts import find_out

        try:
            never_came = find_out(channel, calls)
            with self._lock:
                self._lanes.take_back(never_came)
                self._grow()
        finally:
            with self._lock:
                self._settling -= len(calls)
            for call in calls:
                self._reporter.ended(call)
            self._answers.run()
            channel.abandon()
            self._busy.set()

    # --- the background ---------------------------------------------------------------------------------------

    def _start_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._background, name="remote_exec-reader", daemon=True)
            self._thread.start()

    def _background(self) -> None:
        quiet_since = time.monotonic()
        while not self._closed:
            # What a call has left running may print for as long as its worker is held.
            recent = time.monotonic() - quiet_since < IDLE_SECONDS and self._lanes.channels
            if not self._busy.wait(LISTEN_SECONDS if recent else IDLE_SECONDS / 4):
                if self._closing and not self.pending:
                    self.close()
                else:
                    with self._lock:
                        self._lanes.acknowledge()
                    self._reading.listen()
                    self._release_idle()
                continue
            time.sleep(UNREAD_SECONDS)
            now = time.monotonic()
            if self._lanes.unsent:
                self._reading.flush()
            busy = self._lanes.busy()
            if busy or self._lanes.queue:
                quiet_since = now
                unread = [one for one in busy if now - max(one.sent_at, one.last_result) > UNREAD_SECONDS]
                if unread:
                    self._read_in_background(unread)
            elif self._closing and not self.pending:
                self.close()
            elif now - quiet_since > QUIET_SECONDS:
                self._busy.clear()
                with self._lock:
                    self._lanes.acknowledge()
        self._reading.close()

    def _read_in_background(self, channels: list[Channel]) -> None:
        try:
            self._reading.in_background(channels, BACKGROUND_SECONDS)
        except Exception:  # what one outcome raises (a closed stderr) must not end the reading
            logging.getLogger(__name__).exception("while reading answers")

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
        else:
            self._reading.listen()
        self._end()
        with self._lock:
            if self._single and self._broken is None:
                self._broken = WorkerDied("the instance was closed", hint="make another")
            calls = self._lanes.clear()
        for call in calls:  # nobody will read their outcomes
            cancelled(call.spend())
        if self._thread is None:
            self._reading.close()

    def _end(self) -> None:
        """Nothing will run any more: the background thread ends, and with it what it reads by."""
        self._closed = True
        self._busy.set()

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
        self._closed = self._forked = True
        self._broken = WorkerDied(FORKED) if self._single else None
        for channel in self._lanes.channels:
            channel.abandon()
        self._lanes.channels.clear()
