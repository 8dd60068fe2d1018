"""What an agent holds for jobs that wait."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from remote_exec import remote
from remote_exec.backends.host import Host
from remote_exec.client.connections import connections

SECONDS = 30.0


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts the descriptors of another process")
def test_jobs_that_wait_hold_no_descriptors(tmp_path: Path, host: Host) -> None:
    @remote(max_workers=1, detach=True, environment_variables={"QUEUED": "here"})  # a pool of their own
    def hold(path: str, number: int) -> int:
        while not os.path.exists(path):
            time.sleep(0.01)
        return number

    @remote
    def count(agent: int) -> int:
        return len(os.listdir(f"/proc/{agent}/fd"))

    agent = connections.session(host).welcome.pid
    go = tmp_path / "go"
    running = hold.submit(str(go), 0)
    deadline = time.monotonic() + SECONDS
    while running.status != "running":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    before = count(agent)
    waiting = [hold.submit(str(go), number) for number in range(1, 41)]
    assert {future.status for future in waiting} == {"queued"}
    assert count(agent) - before < 20
    go.touch()
    assert [future.result(SECONDS) for future in waiting] == list(range(1, 41))
