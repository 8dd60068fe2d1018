"""The inventory of hosts: any number of processes note and read at once, and it stays small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from remote_exec.backends.ssh import SshHost
from remote_exec.client import inventory

NOTE = """
import sys
from remote_exec.backends.ssh import SshHost
from remote_exec.client import inventory
number = int(sys.argv[1])
for count in range(40):
    host = SshHost("shared") if count % 2 else SshHost(f"own-{number}", port=number + 1)
    inventory.note_reached(host, version="1")
    inventory.note_folder(host, f"/here/{number}", f"/there/{number}")
    inventory.note_job(host, f"job-{number}-{count}")
    assert len(inventory.known()) >= 1
"""


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REMOTE_EXEC_HOME", str(tmp_path))
    return tmp_path


def test_what_several_processes_note_at_once_is_all_there(own_home: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", NOTE, str(number)]) for number in range(4)]
    assert [writer.wait() for writer in writers] == [0] * 4
    found = {one.host: one for one in inventory.known()}
    assert set(found) == {SshHost("shared"), *(SshHost(f"own-{n}", port=n + 1) for n in range(4))}
    assert found[SshHost("shared")].folders == {f"/here/{n}": f"/there/{n}" for n in range(4)}
    assert len(inventory.job_names("job-")) == 4 * 40
    assert inventory.host_of_job("job-2-4") == SshHost("own-2", port=3)
    assert inventory.host_of_job("job-2-5") == SshHost("shared")
    assert inventory.host_of_job("job-2") is None
    assert [path.name for path in (own_home / "hosts").glob(".*")] == [], "nothing half written"


def test_a_host_that_is_forgotten_leaves_no_note_and_a_broken_note_is_passed_over(own_home: Path) -> None:
    for name in ("first", "second"):
        inventory.note_reached(SshHost(name), version="1")
        inventory.note_job(SshHost(name), f"job-{name}")
    inventory.forget(SshHost("first"))
    assert [one.host for one in inventory.known()] == [SshHost("second")]
    assert inventory.host_of_job("job-first") is None
    (own_home / "hosts" / f"{inventory.key_of(SshHost('second'))}.json").write_text('{"kind": "ssh.Ss')
    assert inventory.known() == []


def test_the_names_of_jobs_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "JOBS_BYTES", 1000)
    for number in range(300):
        inventory.note_job(SshHost("busy"), f"job-{number}")
    names = inventory.job_names("job-")
    assert names[-1] == "job-299"
    assert 50 < len(names) < 120
