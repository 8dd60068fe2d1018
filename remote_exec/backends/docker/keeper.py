"""The main process of a container: it waits for orphans, and ends the container once nobody needs it.

So no engine has to have an init program at hand. Sent as text and run by the image's own Python: so the standard
library of 3.10, and no imports of ours.
"""

from __future__ import annotations

import os
import signal
import sys
import time

LOOK_SECONDS = 2.0
STOP_SECONDS = 8.0  # less than the engine's patience with `docker stop`
NAP_SECONDS = 0.05


def is_alone() -> bool:
    """Whether this container has no process but this one."""
    return [name for name in os.listdir("/proc") if name.isdigit()] == [str(os.getpid())]


def reap() -> None:
    """Wait for the processes that were left to this one and have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass  # there is none


def stop_others() -> None:
    """Have all other processes end; who does not is killed with the container."""
    deadline = time.monotonic() + STOP_SECONDS
    try:
        os.kill(-1, signal.SIGTERM)
        while not is_alone() and time.monotonic() < deadline:
            time.sleep(NAP_SECONDS)
            reap()
    except ProcessLookupError:
        pass  # there is none


def main(linger_seconds: float) -> None:
    """Wait until no other process has lived for so long, or this one is told to end."""
    told = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, told)
    alone_since = time.monotonic()
    while time.monotonic() - alone_since < linger_seconds:
        received = signal.sigtimedwait(told, min(LOOK_SECONDS, linger_seconds))
        reap()
        if received is not None and received.si_signo != signal.SIGCHLD:
            stop_others()
            return
        if not is_alone():
            alone_since = time.monotonic()


if __name__ == "__main__":
    main(float(sys.argv[1]))
