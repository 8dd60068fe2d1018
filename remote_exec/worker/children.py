"""The processes that a call has started and that must not outlive it when it was stopped.

Only those begun during the call: what a module keeps running between calls is the worker's state, and stays.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

GRACE_SECONDS = 0.5  # from SIGTERM to SIGKILL
KILL_SECONDS = 1.0  # after that, whoever is still there hangs in the kernel
NAP_SECONDS = 0.01


def adopt_orphans(adopt: bool = True) -> None:
    """Have this process become the parent of those whose parents, begun by it, end; or no longer."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError, ImportError):
            import ctypes  # which some Pythons lack

            ctypes.CDLL(None).prctl(36, int(adopt), 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def reap_children() -> None:
    """Take in how children have ended that nobody else waits for."""
    deadline = time.monotonic() + KILL_SECONDS
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(NAP_SECONDS)


def end_children(since: float) -> None:
    """End what this process, or a child of it, has started since a time; return when it has ended.

    Args:
        since: UTC, in seconds since the epoch.
    """
    found = _started(since)
    if not found:
        return
    _signal(found, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while found and time.monotonic() < deadline:
        time.sleep(NAP_SECONDS)
        found = _started(since)
    if found:
        kill_children(since)


def kill_children(since: float = 0.0) -> None:
    """Kill what this process, or a child of it, has started since a time, and what they start meanwhile."""
    deadline = time.monotonic() + KILL_SECONDS
    while (found := _started(since)) and time.monotonic() < deadline:
        _signal(found, signal.SIGKILL)
        time.sleep(NAP_SECONDS)


def _signal(pids: set[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _started(since: float) -> set[int]:
    """Return the living members of this process's session, and its descendants, that began after a time."""
    if not os.path.isdir("/proc/self"):
        return set()
    tick = os.sysconf("SC_CLK_TCK")
    limit = (time.clock_gettime(time.CLOCK_BOOTTIME) - (time.time() - since)) * tick - 1
    rows = [row for name in os.listdir("/proc") if name.isdigit() and (row := _row(name)) is not None]
    own, session = os.getpid(), os.getsid(0)
    family = {own}
    while True:
        more = {pid for pid, parent, _, _ in rows if parent in family} - family
        if not more:
            break
        family |= more
    return {
        pid
        for pid, _, leader, began in rows
        if pid != own and (pid in family or leader == session) and began >= limit
    }


def _row(name: str) -> tuple[int, int, int, int] | None:
    """Return (pid, parent, session, start in ticks since boot) of a process that lives."""
    try:
        with open(f"/proc/{name}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    if fields[0] in (b"Z", b"X"):
        return None
    return int(name), int(fields[1]), int(fields[3]), int(fields[19])
