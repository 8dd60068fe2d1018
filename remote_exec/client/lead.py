"""Who reads a pool's channels: at most one thread leads, the others that wait follow, the background gives way.

A follower waits on its own future's condition, which is notified when the future is done and when the lead is passed
to it. It looks again by itself now and then, so a word that gets lost costs a moment and no more.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..future import RemoteFuture

RECHECK_SECONDS = 0.05


class Lead:
    """One for each dispatcher; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._followers: deque[RemoteFuture[Any]] = deque()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        weakref.finalize(self, _close_all, self._wake_read, self._wake_write).atexit = False
        self.in_background = False

    def fileno(self) -> int:
        """A descriptor that can be read when the background is to give way."""
        return self._wake_read

    def take(self) -> bool:
        """Lead, if nobody does; `leave` and `pass_on` must follow."""
        return self._lock.acquire(blocking=False)

    def leave(self) -> None:
        """Lead no longer."""
        self._lock.release()

    def pass_on(self) -> None:
        """Tell one of those who follow that nobody leads."""
        while self._followers:
            with contextlib.suppress(IndexError):
                follower = self._followers.popleft()
                if not follower.done():
                    with follower._condition:
                        follower._condition.notify_all()
                    return

    def wait(self, future: RemoteFuture[Any], deadline: float | None) -> None:
        """While another leads: have the background give way, or follow until the future is done or the lead free."""
        if self.in_background:
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake_write, b"w")
            if self._lock.acquire(timeout=RECHECK_SECONDS):
                self._lock.release()
            return
        with future._condition:
            if future.done():
                return
            self._followers.append(future)
            left = RECHECK_SECONDS if deadline is None else min(RECHECK_SECONDS, deadline - time.monotonic())
            future._condition.wait(max(0.0, left))
        with contextlib.suppress(ValueError):
            self._followers.remove(future)

    def heard(self) -> None:
        """Take note that the background was asked to give way."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)


def _close_all(*fds: int) -> None:
    for fd in fds:
        os.close(fd)
