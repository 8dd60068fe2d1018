"""A home of its own, with an agent that a test may kill, for each test that asks for one."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from own_home import processes_of, until

from remote_exec.client.connections import connections
from remote_exec.model.layout import Layout


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
        if "agent.early" in command or "agent.main" in command:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
    try:
        until(lambda: not processes_of(home))
    finally:
        for pid in processes_of(home):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
