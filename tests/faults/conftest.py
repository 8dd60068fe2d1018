"""A home of its own, with an agent that a test may kill, for each test that asks for one."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from remote_exec.client.connections import connections
from remote_exec.model.layout import Layout

SECONDS = 10.0
T = TypeVar("T")


def until(found: Callable[[], T], seconds: float = SECONDS) -> T:
    """Wait until `found()` is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < deadline, f"still not true after {seconds} s"
        time.sleep(0.005)
    return result


def processes_of(home: Path) -> dict[int, str]:
    """Return (pid: command line) of what lives for this home: agent, fork servers, workers, and their children."""
    found: dict[int, str] = {}
    needle = b"REMOTE_EXEC_HOME=" + os.fsencode(home) + b"\0"
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            with contextlib.suppress(OSError):
                command = Path("/proc", entry, "cmdline").read_bytes()
                if command and needle in Path("/proc", entry, "environ").read_bytes() + b"\0":
                    found[int(entry)] = command.replace(b"\0", b" ").decode(errors="replace")[:300]
    return found


@pytest.fixture
def home(session_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory whose agent nobody else uses; when the test is over nothing lives there."""
    home = Path(tempfile.mkdtemp(prefix="h-", dir=session_home)) / "state"
    monkeypatch.setenv("REMOTE_EXEC_HOME", str(home))
    layout = Layout.of(os.environ)
    yield home
    session = connections._sessions.pop(layout, None)
    if session is not None:
        session.close()
    for (where, _), dispatcher in list(connections._dispatchers.items()):
        if where == layout:
            connections.drop(dispatcher)
    for pid, command in processes_of(home).items():
        if "agent.main" in command:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
    try:
        until(lambda: not processes_of(home))
    finally:
        for pid in processes_of(home):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def agent_pid() -> int:
    """Return the process id of the agent that this process is connected to."""
    return connections.session().welcome.pid
