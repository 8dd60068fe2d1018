"""Who reads a pool's channels, and how: the thread that waits is the thread that reads.

Each channel is read by one thread at a time. Whoever waits for a future takes the channel that its call went to, and
the other busy ones that nobody reads, completes whatever comes, and leaves when its own future is done. Where another
thread reads that channel, it follows: it waits on its future's condition, which is notified when the future is done
and when that channel is free again. It looks again by itself now and then, so a word that gets lost costs a moment
and no more. What nobody has read for a few milliseconds the background thread reads, until somebody waits for it.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ..serial import pickling
from ..wire.frames import RESULT
from .answers import account
from .interrupts import check

if TYPE_CHECKING:
    from ..future import RemoteFuture
    from .answers import Answers
    from .calls import Call
    from .channel import Channel
    from .lanes import Lanes

TICK_SECONDS = 0.1
QUICK_SECONDS = 0.0002  # a call that takes less is waited for awake
RECHECK_SECONDS = 0.05
LISTEN_READS = 16  # of one channel at a time: what prints without an end must not keep others waiting
ELSEWHERE_SECONDS = (
    0.005  # how often one looks whose call may have gone to a channel that another thread reads
)

UNANSWERED = object()


class Reading:
    """See the module's docstring.

    Args:
        lock: the dispatcher's, which guards lanes and answers.
        lanes: the channels.
        answers: what takes frames in, and delivers outcomes.
        on_answers: called under `lock` when a channel has been read.
        on_end: called when a channel's stream has ended.
        on_tick: called every now and then while a thread reads, with the call that it waits for, if it does.
    """

    def __init__(
        self,
        lock: threading.Lock,
        lanes: Lanes,
        answers: Answers,
        *,
        on_answers: Callable[[Channel], None],
        on_end: Callable[[Channel], None],
        on_tick: Callable[[Call | None], None],
    ) -> None:
        self._lock = lock
        self._lanes = lanes
        self._answers = answers
        self._on_answers = on_answers
        self._on_end = on_end
        self._on_tick = on_tick
        # whose list of what it has taken each channel is in that is read now; the list says which thread's wait it is
        self._readers: dict[Channel, list[Channel]] = {}
        self._followers: deque[tuple[RemoteFuture[Any], Call]] = deque()
        self._background: list[Channel] = []
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._unwake = weakref.finalize(self, _close_all, self._wake_read, self._wake_write)
        self._unwake.atexit = False

    def close(self) -> None:
        """Nothing will be read in the background any more; harmless when repeated."""
        with self._lock:
            self._unwake()

    # --- waiting ----------------------------------------------------------------------------------------------

    def exchange(self, channel: Channel, call: Call) -> Any:
        """Read one channel until a call is answered, in the shortest way; complete its future, if it has one.

        Returns:
            The value; or `UNANSWERED` where it takes the long way.
        """
        if self._lanes.unsent:
            self.flush()
        taken = [channel]
        try:
            try:
                if self._readers.setdefault(channel, taken) is not taken:
                    return UNANSWERED
                return self._exchange(channel, call)
            finally:
                self._leave(taken)
        except BaseException:  # a Ctrl-C that came just then has kept it from that
            self._leave(taken)
            raise

    def _exchange(self, channel: Channel, call: Call) -> Any:
        stream, number, value = channel.stream, call.number, UNANSWERED
        quick = 0.0 < call.captured.seconds < QUICK_SECONDS
        while number in channel.in_flight:
            try:
                size = stream.fill_soon() if quick else stream.fill()
            except (OSError, ValueError):  # nothing for a while, or the end: the long way tells which
                return UNANSWERED
            if not size:
                return UNANSWERED
            with self._lock:
                while (frame := stream.next()) is not None:
                    if frame.call == number and frame.kind == RESULT and not (frame.flags or frame.buffers):
                        del channel.in_flight[number]
                        account(channel, call)
                        value = self._load(call, frame.payload)
                    else:
                        self._answers.take(channel, frame)
                if channel.recalled or self._lanes.queue:
                    self._on_answers(channel)
            if self._answers.ready:
                self._answers.run()
                if call.shown and value is UNANSWERED:
                    return UNANSWERED  # it has things to tell: from now on there are ticks as well
        if value is not UNANSWERED and call._future is not None:
            call.spend().set_result(value)
        return value

    def _load(self, call: Call, payload: Any) -> Any:
        try:
            value = pickling.load(payload)
        except BaseException as error:  # a class that is missing here is the call's outcome
            self._answers.add(call.spend().set_exception, error)
            value = UNANSWERED
        if call.shown:
            self._answers.add_end(call)
        return value

    def wait(
        self,
        future: RemoteFuture[Any],
        call: Call,
        deadline: float | None,
        until: Callable[[], bool] | None = None,
    ) -> None:
        """Return when the future is done, or `until()` is true, or the time has come."""
        if self._lanes.unsent:
            self.flush()
        channel = call.channel
        waits_for_it_alone = until is None and deadline is None and self._is_alone(channel)
        if channel is not None and waits_for_it_alone and self.exchange(channel, call) is not UNANSWERED:
            return
        done = until or future.done
        while not done():
            check()
            if deadline is not None and time.monotonic() >= deadline:
                return
            if call.arriving:  # it has been answered, and another thread completes it
                with future._condition:
                    if not done():
                        future._condition.wait(RECHECK_SECONDS)
                continue
            taken: list[Channel] = []
            try:
                try:
                    self._take(taken, call.channel, self._lanes.channels)
                    if taken:
                        self._read_until(taken, call, done, deadline)
                finally:
                    self._leave(taken)
            except BaseException:  # as above
                self._leave(taken)
                raise
            if not taken:
                self._follow(future, call, deadline)

    def _is_alone(self, channel: Channel | None) -> bool:
        """Whether nothing is in flight on other channels: nobody misses us there."""
        for other in self._lanes.channels:  # noqa: SIM110 - a generator costs more than all of it
            if other.in_flight and other is not channel:
                return False
        return True

    def in_background(self, channels: Iterable[Channel], seconds: float) -> None:
        """Read what nobody else does, until somebody waits for it, nothing is in flight, or the time has come."""
        taken: list[Channel] = []
        try:
            self._take(taken, None, channels)
            if not taken:
                return
            with contextlib.suppress(BlockingIOError):  # words that came too late the last time
                os.read(self._wake_read, 4096)
            self._background = taken
            self._poll(
                taken, None, lambda: not self._lanes.busy(), time.monotonic() + seconds, self._wake_read
            )
        finally:
            self._background = []
            self._leave(taken)

    def flush(self) -> None:
        """Send what waits for others to go with it: one waits now."""
        with self._lock:
            self._lanes.flush()

    def listen(self) -> None:
        """Read what idle workers say, without waiting: what a thread prints after its call has ended."""
        for channel in list(self._lanes.channels):
            taken = [channel]
            try:
                if self._readers.setdefault(channel, taken) is taken:
                    with contextlib.suppress(BlockingIOError):
                        for _ in range(LISTEN_READS):
                            if not channel.closed:
                                self._read(channel, socket.MSG_DONTWAIT)
            finally:
                self._leave(taken)

    # --- taking turns -----------------------------------------------------------------------------------------

    def _take(self, taken: list[Channel], wanted: Channel | None, channels: Iterable[Channel]) -> None:
        """Become the reader of the wanted channel and of busy ones that nobody reads; of none if that one is read."""
        if wanted is not None and (wanted.closed or wanted not in self._lanes.channels):  # of another host
            wanted = None
        if wanted is None or self._try(wanted, taken):
            self._take_busy(taken, channels)

    def _take_busy(self, taken: list[Channel], channels: Iterable[Channel]) -> None:
        for channel in channels:
            if channel.in_flight and channel not in taken:
                self._try(channel, taken)

    def _try(self, channel: Channel, taken: list[Channel]) -> bool:
        """Become a channel's reader, if there is none. What is taken is noted before: a Ctrl-C may come any time."""
        taken.append(channel)
        if self._readers.setdefault(channel, taken) is taken:
            return True
        taken.pop()
        return False

    def _leave(self, taken: list[Channel]) -> None:
        """Read them no longer; deliver what came, and tell one follower of each that it is free. May be repeated."""
        readers = self._readers
        for channel in taken:
            if readers.get(channel) is taken:
                del readers[channel]
        if self._answers.ready:
            self._answers.run()
        if self._followers:
            for channel in taken:
                self._pass_on(channel)

    def _pass_on(self, channel: Channel) -> None:
        for follower in list(self._followers):
            future, call = follower
            if call.channel in (channel, None) and not future.done():
                with contextlib.suppress(ValueError):
                    self._followers.remove(follower)
                with future._condition:
                    future._condition.notify_all()
                return

    def _follow(self, future: RemoteFuture[Any], call: Call, deadline: float | None) -> None:
        """While another thread reads: have the background give way, or wait for the future or for our turn."""
        background = self._background
        gives_way = bool(background) and (call.channel is None or call.channel in background)
        follower = (future, call)
        self._followers.append(follower)
        try:
            if gives_way and self._lock.acquire(
                timeout=RECHECK_SECONDS
            ):  # it may be sending over a slow link
                try:
                    if self._background:  # it reads yet, so the pipe is open
                        os.write(self._wake_write, b"w")
                except BlockingIOError:
                    pass
                finally:
                    self._lock.release()
            with future._condition:
                if future.done() or (gives_way and follower not in self._followers):  # it is our turn already
                    return
                left = RECHECK_SECONDS
                if deadline is not None:
                    left = min(left, deadline - time.monotonic())
                future._condition.wait(max(0.0, left))
        finally:
            with contextlib.suppress(ValueError):
                self._followers.remove(follower)

    # --- reading ----------------------------------------------------------------------------------------------

    def _read_until(
        self, taken: list[Channel], call: Call, done: Callable[[], bool], deadline: float | None
    ) -> None:
        """Read until `done()`: first in the kernel where it is one channel, then by poll on all that nobody reads."""
        channel = taken[0]
        if len(taken) == 1 and (deadline is None or deadline - time.monotonic() > TICK_SECONDS):
            ticked_at = time.monotonic()
            try:
                while not done() and not channel.closed:
                    check()
                    self._read(channel, 0)
                    if time.monotonic() - ticked_at > TICK_SECONDS:  # it tells without a pause
                        ticked_at = time.monotonic()
                        self._on_tick(call)
            except BlockingIOError:
                pass  # nothing for a while: look around
        self._poll(taken, call, done, deadline, -1)

    def _poll(
        self,
        taken: list[Channel],
        call: Call | None,
        done: Callable[[], bool],
        deadline: float | None,
        wake: int,
    ) -> None:
        """Wait on all channels that nobody else reads; return when it is time to leave."""
        while not done():
            check()
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                return
            self._take_busy(taken, list(self._lanes.channels))
            by_fd = {channel.stream.fileno(): channel for channel in taken if not channel.closed}
            by_fd.pop(-1, None)  # closed by another thread in this moment
            if not by_fd:
                return
            poller = select.poll()
            for fd in by_fd:
                poller.register(fd, select.POLLIN)
            if wake >= 0:
                poller.register(wake, select.POLLIN)
            limit = TICK_SECONDS if call is None or call.channel in taken else ELSEWHERE_SECONDS
            if deadline is not None:
                limit = min(limit, deadline - now)
            for fd, _ in poller.poll(max(1, int(limit * 1000))):
                if fd == wake:
                    return
                with contextlib.suppress(BlockingIOError):
                    self._read(by_fd[fd], socket.MSG_DONTWAIT)
            self._on_tick(call)

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
            self._on_end(channel)
            return
        with self._lock:
            while (frame := channel.stream.next()) is not None:
                self._answers.take(channel, frame)
            if channel.recalled or self._lanes.queue:
                self._on_answers(channel)
        if self._answers.ready:
            self._answers.run()


def _close_all(*fds: int) -> None:
    for fd in fds:
        os.close(fd)
