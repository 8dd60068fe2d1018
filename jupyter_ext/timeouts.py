"""A limit for how long a cell may take: the main thread is interrupted when it has passed, as by the stop button."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Generator

SETTLE_SECONDS = 0.05


class Limit:
    """Whether the time has passed."""

    passed = False


@contextlib.contextmanager
def interrupted_after(seconds: float | None, limit: Limit) -> Generator[None, None, None]:
    """Raise KeyboardInterrupt in the main thread, which this is to be called by, if what is below takes longer.

    Args:
        seconds: None for no limit.
        limit: is told when it has passed.
    """
    if seconds is None:
        yield
        return
    ended = threading.Lock()

    def interrupt() -> None:
        if ended.acquire(blocking=False):
            limit.passed = True
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    timer = threading.Timer(seconds, interrupt)
    timer.daemon = True
    timer.start()
    heard = False
    try:
        yield
    except KeyboardInterrupt:
        heard = True
        raise
    finally:
        timer.cancel()
        if (
            not ended.acquire(blocking=False) and not heard
        ):  # the interrupt may be on its way: it is for nobody else
            with contextlib.suppress(KeyboardInterrupt):
                time.sleep(SETTLE_SECONDS)
