"""The calls of one pool: a queue, a few channels, and one rule for who reads them.

**The thread that waits is the thread that reads.** Whoever waits for a future becomes the leader if there is none:
it reads all channels, completes whatever comes, and leaves when its own future is done, passing the lead on. So a
call and its answer cross no other thread. When something is in flight and nobody has read for a few milliseconds,
the background thread leads, until somebody waits: logs must flow and unread sockets fill up.

Two locks. `_lock` guards queue and channels, and is held for moments. `_lead` is held by the leader for as long as
it leads. Futures are completed with neither held, since that runs their owners' callbacks.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from ..model.errors import HostUnavailable, ProtocolError, WorkerDied
from ..serial import failures, failures_json, pickling
from ..wire import frames
from ..wire.frames import Frame
from .calls import SHORT_SECONDS, Call
from .channel import Channel

if TYPE_CHECKING:
    from ..future import RemoteFuture
    from .reporter import Reporter
    from .session import Session

DEPTH = 64  # short calls in flight on one channel
WINDOW_BYTES = 96 << 10  # of small calls in flight on one channel: less than what a socket holds
LEADERLESS_SECONDS = 0.003
DEATHS_BEFORE_BEGUN = 3  # workers that may die before they begin anything until a call is given up
IDLE_SECONDS = 10.0  # how long a lease is kept with nothing in flight
PREFETCHED_SECONDS = 0.02  # calls up to this long may wait behind one other on their worker
RECHECK_SECONDS = 0.05  # a waiting thread that does not lead looks again
TICK_SECONDS = 0.1
OUTPUT_KEPT = 1 << 20  # bytes of a call's output kept for `RemoteFuture.logs`

Completion = Callable[[], None]


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
        self._session = session
        self._request = request
        self._max_workers = max_workers
        self._reporter = reporter
        self._idle_seconds = idle_seconds
        self._opening = opening
        self._single = single
        self._broken: Exception | None = None
        self._lock = threading.Lock()
        self._lead = threading.Lock()
        self._leader_in_background = False
        self._queue: deque[Call] = deque()
        self._channels: list[Channel] = []
        self._followers: deque[RemoteFuture[Any]] = deque()
        self._completions: list[Completion] = []
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
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
        """
        with self._lock:
            self._check()
            if not self._queue and (channel := self._with_room(call)) is not None:
                self._send(channel, call)
            else:
                self._queue.append(call)
            self._grow()
        self._run_completions()
        if not self._busy.is_set():
            self._busy.set()

    def run(self, call: Call) -> Any:
        """Take a call and wait for its value: what ``f(x)`` does. Ctrl-C cancels the call.

        Raises:
            BaseException: what the call raised.
        """
        future = call.future
        with self._lock:
            self._check()
            if not self._queue and (channel := self._with_room(call)) is not None:
                self._send(channel, call)
            else:
                self._queue.append(call)
            if self._queue or len(self._channels) == 0:
                self._grow()
        self._run_completions()
        try:
            self.wait(future, None)
        except KeyboardInterrupt:
            if self.cancel(call):
                with contextlib.suppress(CancelledError):
                    self.wait(future, time.monotonic() + IDLE_SECONDS)
            raise
        return future.result()

    def _check(self) -> None:
        if self._broken is not None:
            raise self._broken

    def fail(self, error: Exception) -> None:
        """Fail everything that waits or runs, and all that comes."""
        with self._lock:
            self._broken = error
            calls = list(self._queue)
            self._queue.clear()
            for channel in self._channels:
                calls += channel.in_flight.values()
                channel.in_flight.clear()
                channel.release()
            self._channels.clear()
        for call in calls:
            if not call.future.done():
                call.spend().set_exception(error)

    def cancel_queued(self) -> None:
        """Cancel the calls that have not been sent."""
        with self._lock:
            calls = list(self._queue)
            self._queue.clear()
        for call in calls:
            _cancelled(call.spend())

    def cancel(self, call: Call) -> bool:
        """Withdraw a queued call, or have a running one stopped; False when it has ended."""
        with self._lock:
            if call in self._queue:
                self._queue.remove(call)
                channel = None
            elif call.channel is not None and call.number in call.channel.in_flight:
                channel = call.channel
            else:
                return False
        if channel is None:
            _cancelled(call.spend())
        else:
            # An agent that died has a successor, who has taken its workers over.
            session = channel.session if not channel.session.lost else self._session()
            session.cancel_call(channel.lease, call.number)
            self._busy.set()
        return True

    def why(self, call: Call) -> str:
        """Say in words what a call waits for."""
        with self._lock:
            if call in self._queue:
                position = self._queue.index(call) + 1
                waits = [c.waits.why for c in self._channels if c.granted is None and c.waits is not None]
                return f"position {position} in this process's queue" + (f"; {waits[0]}" if waits else "")
            channel = call.channel
            if channel is None:
                return "it is being sent"
            if channel.granted is None:
                return channel.waits.why if channel.waits is not None else "it waits for a worker"
            first = next(iter(channel.in_flight), call.number)
            return (
                "it runs"
                if first == call.number
                else f"{call.number - first} calls run before it on its worker"
            )

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
        return self._max_workers

    @property
    def closed(self) -> bool:
        """Whether it has given its workers back for good."""
        return self._closed

    @property
    def pending(self) -> int:
        """How many calls have not ended."""
        with self._lock:
            return len(self._queue) + sum(len(channel.in_flight) for channel in self._channels)

    # --- waiting ----------------------------------------------------------------------------------------------

    def wait(
        self, future: RemoteFuture[Any], deadline: float | None, *, until: Callable[[], bool] | None = None
    ) -> None:
        """Return when the future is done, or `until()` is true, or the time has come."""
        done = until or future.done
        while not done():
            if deadline is not None and time.monotonic() >= deadline:
                return
            if self._lead.acquire(blocking=False):
                try:
                    self._read_until(done, deadline)
                finally:
                    self._lead.release()
                    self._run_completions()
                    self._pass_lead()
            elif self._leader_in_background:
                self._wake()
                if self._lead.acquire(timeout=0.05):
                    self._lead.release()
            else:
                self._follow(future, deadline)

    def _follow(self, future: RemoteFuture[Any], deadline: float | None) -> None:
        condition = future._condition
        with condition:
            if future.done():
                return
            self._followers.append(future)
            remaining = (
                RECHECK_SECONDS if deadline is None else min(RECHECK_SECONDS, deadline - time.monotonic())
            )
            condition.wait(max(0.0, remaining))
        with contextlib.suppress(ValueError):
            self._followers.remove(future)

    def _pass_lead(self) -> None:
        while self._followers:
            with contextlib.suppress(IndexError):
                follower = self._followers.popleft()
                if not follower.done():
                    with follower._condition:
                        follower._condition.notify_all()
                    return

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"w")

    # --- reading ----------------------------------------------------------------------------------------------

    def _read_until(self, done: Callable[[], bool], deadline: float | None) -> None:
        """Lead: read until `done()`. First in the kernel on the one busy channel, then by poll on all of them."""
        while not done():
            self._read_at = time.monotonic()
            busy = [channel for channel in self._channels if channel.in_flight]
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
            channels = {channel.stream.fileno(): channel for channel in self._channels if not channel.closed}
            for fd in channels:
                poller.register(fd, select.POLLIN)
            poller.register(self._wake_read, select.POLLIN)
            limit = TICK_SECONDS if deadline is None else min(TICK_SECONDS, deadline - now)
            for fd, _ in poller.poll(max(1, int(limit * 1000))):
                if fd == self._wake_read:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake_read, 4096)
                    return not self._leader_in_background
                with contextlib.suppress(BlockingIOError):
                    self._read(channels[fd], socket.MSG_DONTWAIT)
            self._reporter.tick(self._oldest())
        return True

    def _oldest(self) -> Call | None:
        """The call that has waited for longest, for whoever shows progress."""
        for channel in self._channels:
            for call in channel.in_flight.values():
                return call
        return self._queue[0] if self._queue else None

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
                self._take(channel, frame)
            if self._queue:
                self._refill(channel)
        self._run_completions()

    def _take(self, channel: Channel, frame: Frame) -> None:
        """Take in one frame. Under `_lock`."""
        kind = frame.kind
        if kind == frames.RESULT:
            call = channel.in_flight.pop(frame.call, None)
            if call is None:
                raise ProtocolError(f"the worker answered call {frame.call}, which is not in flight")
            self._account(channel, call)
            self._outcome(channel, call, frame)
        elif kind == frames.BATCH_RESULT:
            call = channel.in_flight[frame.call]
            value = pickling.load(*channel.stream.parts(frame))
            last = bool(frame.flags & frames.LAST)
            if last:
                del channel.in_flight[frame.call]
                self._account(channel, call)
            self._completions.append(lambda: _deliver_batch(call, frame.function, value, last))
        elif kind == frames.YIELD:
            call = channel.in_flight[frame.call]
            value = pickling.load(*channel.stream.parts(frame))
            on_values = call.on_values
            if on_values is not None:
                self._completions.append(lambda: on_values(0, value))
        elif kind == frames.OUTPUT:
            self._output(channel, frame)
        elif kind == frames.EVENT:
            call_or_none = channel.in_flight.get(frame.call)
            data = bytes(frame.payload)
            self._completions.append(lambda: self._reporter.event(call_or_none, data))
        else:
            raise ProtocolError(f"a worker sent a frame of kind {kind}")

    def _account(self, channel: Channel, call: Call) -> None:
        now = time.monotonic()
        channel.acknowledge(call.number)
        channel.bytes_in_flight -= call.size
        # On a pipelined channel a call's own time begins when the one before it ended.
        call.captured.took((now - max(call.sent_at, channel.last_result)) / call.items)
        channel.last_result = channel.idle_since = now

    def _outcome(self, channel: Channel, call: Call, frame: Frame) -> None:
        stream, buffers = channel.stream.parts(frame)
        future = call.spend()
        if frame.flags & frames.CANCELLED:
            self._completions.append(lambda: _cancelled(future))
        elif frame.flags & frames.FAILED:
            text = bytes(stream).decode()
            self._completions.append(lambda: future.set_exception(rebuild(text)))
        else:
            try:
                value = pickling.load(stream, buffers)
            except BaseException as error:
                failure = error
                self._completions.append(lambda: future.set_exception(failure))
            else:
                self._completions.append(lambda: future.set_result(value))
        self._completions.append(lambda: self._reporter.ended(call))

    def _output(self, channel: Channel, frame: Frame) -> None:
        call = channel.in_flight.get(frame.call)
        data, index = bytes(frame.payload), 1 if frame.flags & frames.STDERR else 0
        if call is not None:
            call.output = call.output or []
            call.output.append((index, data))
            if len(call.output) > 1 and sum(len(d) for _, d in call.output) > OUTPUT_KEPT:
                del call.output[0]
        self._completions.append(lambda: self._reporter.output(call, index, data))

    def _run_completions(self) -> None:
        while self._completions:
            with self._lock:
                completions, self._completions = self._completions, []
            for complete in completions:
                complete()

    def _ended(self, channel: Channel) -> None:
        """A channel's stream has ended: the call that ran fails, those behind it are sent elsewhere."""
        with self._lock:
            if channel in self._channels:
                self._channels.remove(channel)
            channel.closed = True
            calls = list(channel.in_flight.values())
            channel.in_flight.clear()
        if calls:
            error = channel.why_ended(calls[0])
            self._settle(channel, calls, error)
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

    def _settle(self, channel: Channel, calls: list[Call], error: Exception) -> None:
        lost = channel.lost
        begun = lost.begun if lost is not None else (1 << 62)
        again: list[Call] = []
        for call in calls:
            if not begun:
                call.deaths += 1  # the worker did not live to begin anything: not for ever
            if lost is not None and call.number > begun and call.pickled.stream and call.deaths < DEATHS_BEFORE_BEGUN:
                call.channel, call.number = None, 0
                again.append(call)
            elif lost is not None and lost.certificate.cause.value == "cancelled":
                _cancelled(call.spend())
            elif call.on_values is not None and call.kind == frames.BATCH:
                call.on_values(-1, (error, lost.item if lost is not None else 0))
            else:
                call.spend().set_exception(error if call is calls[0] else channel.why_ended(call))
            if call not in again:
                self._reporter.ended(call)
        if again:
            with self._lock:
                self._queue.extendleft(reversed(again))

    # --- sending ----------------------------------------------------------------------------------------------

    def _with_room(self, call: Call) -> Channel | None:
        """Return the channel to send a call on. Under `_lock`."""
        best: Channel | None = None
        for channel in self._channels:
            if not channel.in_flight:
                return channel
            if (
                channel.granted
                and self._room(channel, call)
                and (best is None or _load(channel) < _load(best))
            ):
                best = channel
        if best is not None and len(self._channels) < self._max_workers and len(best.in_flight) >= DEPTH // 2:
            return None
        return best

    def _send(self, channel: Channel, call: Call) -> None:
        """Send a call now. Under `_lock`."""
        future = call.future
        if future._state == "PENDING" and not future.set_running_or_notify_cancel():
            return
        call.sent_at = time.monotonic()
        try:
            pieces = channel.prepare(call)
            if pieces:
                channel.stream.send_now(b"".join(pieces) if len(pieces) > 1 else pieces[0])
        except OSError:
            pass  # whoever reads finds the end of the stream, and settles what was in flight

    def _refill(self, channel: Channel) -> None:
        """Send queued calls in one piece, as many as this channel has room for. Under `_lock`."""
        pieces: list[bytes] = []
        now = time.monotonic()
        while self._queue and not channel.closed:
            call = self._queue[0]
            room = self._room(channel, call)
            if not room:
                break
            self._queue.popleft()
            future = call.future
            if future._state == "PENDING" and not future.set_running_or_notify_cancel():
                continue
            call.sent_at = now
            try:
                pieces += channel.prepare(call)
            except OSError:
                return
        if pieces:
            with contextlib.suppress(OSError):
                channel.stream.send_now(b"".join(pieces))
        if self._queue:
            self._grow()

    def _room(self, channel: Channel, call: Call) -> bool:
        """Whether a call may be sent behind others: if it is short and small, and so are they.

        What is sent while the worker runs something must fit into the socket: while we wait for it to read, it may
        wait for us to do so.
        """
        load = len(channel.in_flight)
        if not load:
            return True
        if channel.bytes_in_flight + channel.cost(call) > WINDOW_BYTES:
            return False
        seconds = call.captured.seconds * call.items
        depth = DEPTH if seconds < SHORT_SECONDS else 2 if seconds < PREFETCHED_SECONDS else 1
        return seconds > 0.0 and load < depth

    def _grow(self) -> None:
        """Ask for another worker if calls wait that are worth one. Under `_lock`."""
        waiting = len(self._queue)
        coming = sum(1 for channel in self._channels if channel.granted is None)
        if not waiting or coming >= waiting or len(self._channels) >= self._max_workers:
            return
        if self._single and self._thread is not None:
            return
        seconds = self._queue[0].captured.seconds * self._queue[0].items
        if self._channels and 0.0 < seconds < SHORT_SECONDS and waiting < DEPTH:
            return
        channel = Channel(self._session())
        self._channels.append(channel)
        try:
            channel.open(self._request)
        except HostUnavailable as error:
            self._channels.remove(channel)
            channel.abandon()
            failure = error
            calls = list(self._queue)
            self._queue.clear()
            self._completions += [lambda call=call: call.spend().set_exception(failure) for call in calls]
            return
        self._start_thread()
        if self._opening is not None:
            self._send(channel, self._opening())
        self._refill(channel)

    # --- the background ---------------------------------------------------------------------------------------

    def _start_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._background, name="remote_exec-reader", daemon=True)
            self._thread.start()

    def _background(self) -> None:
        quiet_since = time.monotonic()
        while not self._closed:
            if not self._busy.wait(IDLE_SECONDS / 4):
                self._release_idle()
                continue
            time.sleep(LEADERLESS_SECONDS)
            now = time.monotonic()
            if any(channel.in_flight for channel in self._channels) or self._queue:
                quiet_since = now
                if now - self._read_at > LEADERLESS_SECONDS and self._lead.acquire(blocking=False):
                    self._lead_in_background()
            elif self._closing:
                self.close()
            elif now - quiet_since > 0.5:
                self._busy.clear()
                with self._lock:
                    for channel in self._channels:
                        channel.flush_acknowledgement()

    def _lead_in_background(self) -> None:
        self._leader_in_background = True
        try:
            self._poll(time.monotonic() + 1.0, lambda: not any(c.in_flight for c in self._channels))
        finally:
            self._leader_in_background = False
            self._lead.release()
            self._run_completions()
            self._pass_lead()

    def _release_idle(self) -> None:
        now = time.monotonic()
        with self._lock:
            for channel in list(self._channels):
                if (
                    not channel.in_flight
                    and not self._queue
                    and now - channel.idle_since > self._idle_seconds
                ):
                    self._channels.remove(channel)
                    channel.release()

    def close(self, *, cancel: bool = False) -> None:
        """Give all workers back; with `cancel`, stop what runs first."""
        if cancel:
            with self._lock:
                calls = list(self._queue) + [
                    c for channel in self._channels for c in channel.in_flight.values()
                ]
            for call in calls:
                with contextlib.suppress(HostUnavailable):
                    self.cancel(call)
        self._closed = True
        self._busy.set()
        with self._lock:
            for channel in self._channels:
                channel.release()
            self._channels.clear()

    def close_when_done(self) -> None:
        """Give the workers back as soon as nothing is pending, without making the caller wait."""
        self._closing = True
        self._start_thread()
        self._busy.set()

    def abandon(self) -> None:
        """In a forked child: forget everything without a word to the parent's workers."""
        self._closed = True
        for channel in self._channels:
            channel.abandon()
        self._channels.clear()


def rebuild(text: str) -> BaseException:
    """Return the exception that a failure's JSON tells of."""
    return failures.rebuild(failures_json.from_json(text), loads=pickling.load)


def _load(channel: Channel) -> int:
    return len(channel.in_flight)


def _cancelled(future: RemoteFuture[Any]) -> None:
    """Make a future cancelled, also one that runs: a remote call can be stopped."""
    with future._condition:
        if future._state in ("PENDING", "RUNNING"):
            future._state = "PENDING"
    from concurrent.futures import Future

    Future.cancel(future)
    with contextlib.suppress(Exception):
        future.set_running_or_notify_cancel()


def _deliver_batch(call: Call, first: int, answers: Any, last: bool) -> None:
    if call.on_values is not None:
        call.on_values(first, answers)
    if last and not call.future.done():
        call.spend().set_result(None)
