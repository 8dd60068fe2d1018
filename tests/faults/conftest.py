"""Homes of their own, with agents that a test may kill."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from own_home import agents_of, processes_of
from waiting import until

from remote_exec.backends import local
from remote_exec.client.connections import connections

STOP_SECONDS = 8.0


@contextmanager
def own_home(session_home: Path) -> Iterator[Path]:
    """A state directory whose agent no other test uses; when it is left, nothing lives there."""
    home = Path(tempfile.mkdtemp(prefix="h-", dir=session_home)) / "state"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REMOTE_EXEC_HOME", str(home))
        here = local.here()
        layout = here.layout
        try:
            yield home
            for (where, _), dispatcher in list(connections._dispatchers.items()):
                if where == here:
                    connections.drop(dispatcher)
            session = connections._sessions.pop(here, None)
            if session is not None:
                session.close()
            for pid in agents_of(home):
                os.kill(pid, signal.SIGTERM)
            with contextlib.suppress(AssertionError):
                until(lambda: not processes_of(home), STOP_SECONDS)
            left = processes_of(home)
            assert not left, f"processes outlived their agent: {left}"
        finally:
            for pid in processes_of(home):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for folder in (layout.sockets, home.parent):
                shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def shared_home(session_home: Path) -> Iterator[Path]:
    """One for a module."""
    with own_home(session_home) as home:
        yield home


@pytest.fixture
def home(shared_home: Path) -> Iterator[Path]:
    """The module's home; an agent serves it when the test has ended."""
    yield shared_home
    connections.with_agent(local.here(), lambda session: session.ask("host"))


@pytest.fixture
def fresh_home(session_home: Path) -> Iterator[Path]:
    """One where no agent has been."""
    with own_home(session_home) as home:
        yield home
