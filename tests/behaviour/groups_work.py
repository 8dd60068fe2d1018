"""What the tests of groups run in workers, and how they wait for it; it imports what any host has."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from remote_exec import current_job, remote

SECONDS = 60.0


def until(path: Path, *, of: int = 1) -> list[str]:
    """Wait for a folder to hold so many files, and return what they hold."""
    deadline = time.monotonic() + SECONDS
    while len(found := [one for one in sorted(path.iterdir()) if one.suffix != ".part"]) < of:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return [one.read_text() for one in found]


@remote
def ended(pid: int) -> bool:
    """Wait for a process of this host to end; return whether it has."""
    deadline = time.monotonic() + SECONDS
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.01)
    return not os.path.exists(f"/proc/{pid}")


def note(folder: str, name: str = "") -> int:
    """Leave this rank's process id in a folder, in a file named for the rank or otherwise; return the rank."""
    job = current_job()
    assert job is not None
    assert job.group is not None
    path = Path(folder, name or str(job.group.rank))
    path.with_suffix(".part").write_text(str(os.getpid()))
    path.with_suffix(".part").rename(path)
    return job.group.rank


def all_ranks(function: Callable[..., Any], *args: object) -> Any:
    """Call a function that returns what all ranks do, and not what it says that it does."""
    return function(*args)


@remote(nproc_per_node=2)
def hold(folder: str) -> int:
    rank = note(folder)
    while not Path(folder, "go").exists():
        time.sleep(0.01)
    return rank
