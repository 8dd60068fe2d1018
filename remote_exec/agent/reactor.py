"""The agent's one loop: descriptors, timers, and what threads hand in, each by a callback in the loop's thread.

A turn has three visible phases: wait, run what has become ready, run what is due. asyncio would do as much; it
costs the agent half of its start-up time and a third of its memory.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

_log = logging.getLogger(__name__)

Callback = Callable[[], Any]
TIMERS_KEPT = 256  # beyond that, cancelled ones are cleared away whenever their number may have doubled


class Timer:
    """A callback that is due at a time; `cancel` is harmless at any moment."""

    __slots__ = ("callback", "due")

    def __init__(self, due: float, callback: Callback) -> None:
        self.due = due
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        """Forget the callback."""
        self.callback = None


class Reactor:
    """Owned by one thread; `call_from_thread` is for all others.

    Example::

        reactor = Reactor()
        reactor.watch(sock.fileno(), on_readable)
        reactor.after(1.5, reactor.stop)
        reactor.run()
        reactor.close()
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._callbacks: dict[int, Callback] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._timers_limit = TIMERS_KEPT
        self._order = itertools.count()
        self._soon: deque[Callback] = deque()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._stopped = False
        self._closed = False
        self._closing = threading.RLock()  # a number that was closed may soon be another file's
        self.watch(self._wake_read, self._awake)

    def watch(self, fd: int, callback: Callback, *, write: bool = False) -> None:
        """Call back whenever the descriptor can be read (or, with `write`, also written)."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if write else 0)
        self._callbacks[fd] = callback
        try:
            self._selector.modify(fd, events, callback)
        except KeyError:
            self._selector.register(fd, events, callback)

    def unwatch(self, fd: int) -> None:
        """Call back no more, not even for what this turn has found ready. Before the descriptor is closed."""
        self._callbacks.pop(fd, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(fd)

    def after(self, seconds: float, callback: Callback) -> Timer:
        """Call back once, `seconds` from now."""
        timer = Timer(time.monotonic() + seconds, callback)
        if len(self._timers) >= self._timers_limit:
            self._timers = [row for row in self._timers if row[2].callback is not None]
            heapq.heapify(self._timers)
            self._timers_limit = max(TIMERS_KEPT, 2 * len(self._timers))
        heapq.heappush(self._timers, (timer.due, next(self._order), timer))
        return timer

    def soon(self, callback: Callback) -> None:
        """Call back in this turn's last phase or the next turn."""
        self._soon.append(callback)

    def call_from_thread(self, callback: Callback) -> None:
        """Have the loop's thread call back; from a signal handler, too. Once it is closed, nobody calls."""
        with self._closing:
            if self._closed:
                return
            self._soon.append(callback)
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake_write, b"w")

    def in_thread(self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], None]) -> None:
        """Run `work` in a thread of its own, then `done(result, error)` in the loop's."""

        def body() -> None:
            result, failure = None, None
            try:
                result = work()
            except BaseException as error:  # handed to `done`
                failure = error
            self.call_from_thread(lambda: done(result, failure))

        threading.Thread(target=body, daemon=True).start()

    def stop(self) -> None:
        """End `run` after this turn."""
        self._stopped = True

    def run(self) -> None:
        """Turn until stopped. A callback's error is logged: one client's trouble must not end the others'."""
        while not self._stopped:
            for key, _ in self._selector.select(self._timeout()):
                callback = self._callbacks.get(key.fd)
                if callback is not None and callback == key.data:  # else it was changed in this very turn
                    self._guard(callback)
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                timer = heapq.heappop(self._timers)[2]
                if timer.callback is not None:
                    self._guard(timer.callback)
            for _ in range(len(self._soon)):
                self._guard(self._soon.popleft())

    def close(self) -> None:
        """Give back the descriptors, after `run`; what is watched stays open."""
        self._selector.close()
        with self._closing:
            self._closed = True
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _timeout(self) -> float | None:
        if self._soon:
            return 0.0
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def _awake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)

    def _guard(self, callback: Callback) -> None:
        try:
            callback()
        except Exception:
            _log.exception("a callback of the agent failed")
