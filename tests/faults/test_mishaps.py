"""What goes wrong within the agent's own work: whoever waits is told, and the agent serves on.

No part is replaced: its folders are not what they should be, or the kernel refuses it descriptors, or room in files.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import jobs_work as work
import pytest
from own_home import agent_pid
from waiting import until

from remote_exec import remote
from remote_exec.backends import local
from remote_exec.errors import RemoteExecError, ResourceLimitExceeded, RuntimeEnvironmentError

SECONDS = 30.0


@contextlib.contextmanager
def limited(what: int, most: int) -> Iterator[None]:
    """Have the kernel set a limit to this home's agent."""
    pid = agent_pid()
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (most, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, what, before)


def no_descriptors() -> contextlib.AbstractContextManager[None]:
    """Leave the agent none but those that it has; it may close some."""
    numbers = [int(name) for name in os.listdir(f"/proc/{agent_pid()}/fd")]
    free = next(number for number in range(1 << 16) if number not in numbers)
    return limited(resource.RLIMIT_NOFILE, free)


def test_a_file_where_the_environments_are_to_be_is_said_and_does_not_hang(fresh_home: Path) -> None:
    place = local.here().layout.environments
    place.parent.mkdir(parents=True)
    place.touch()
    with pytest.raises(RuntimeEnvironmentError, match="could not be prepared"):
        remote(dependencies=["six"])(work.pids).submit().result(SECONDS)
    assert remote(work.pids)()[0] != os.getpid()
    place.unlink()


def test_no_descriptor_left_is_said_to_whoever_waits_for_a_worker(home: Path) -> None:
    warm = remote(os.getpid)  # which brings no files
    warm()
    other = warm.options(environment_variables={"OF": "another pool"})
    more = warm.options(max_workers=2)
    with no_descriptors():
        for function in (other, more.options(environment_variables={"OF": "a third"})):
            with pytest.raises(RemoteExecError):
                function.submit().result(SECONDS)
    assert warm()
    assert other()


def test_a_job_whose_stream_cannot_be_opened_fails_and_its_worker_is_not_lost(home: Path) -> None:
    job = remote(detach=True, max_workers=1, keep_alive_period_in_seconds=600)(os.getpid)
    job.submit().result(SECONDS)
    with no_descriptors(), pytest.raises(ResourceLimitExceeded, match="Too many open files"):
        job.submit().result(SECONDS)
    assert job.submit().result(SECONDS)


def test_no_room_for_a_job_is_said_and_an_outcome_waits_for_room(home: Path, tmp_path: Path) -> None:
    job = remote(detach=True)(work.hold)
    noted = tmp_path / "noted"
    held = job.submit(str(noted), 1.0)
    until(lambda: noted.exists() and noted.read_text(), SECONDS)
    with limited(resource.RLIMIT_FSIZE, 0):
        with pytest.raises(RemoteExecError):
            job.submit(str(noted), 0.0)
        until(lambda: "cannot be written down" in held.why(), SECONDS)
    assert held.result(SECONDS) == "held"
