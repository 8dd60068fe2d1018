"""The fixture that looks for what tests leave behind names each kind of it, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SECONDS = 100.0

WORK = """
import subprocess
import time

def nap(seconds):
    time.sleep(seconds)

def zeros(count):
    return bytes(count)

def start_sleep():
    return subprocess.Popen(["sleep", "571"]).pid
"""
LEAVING = """
import os, socket, subprocess, tempfile, time
import leftovers
import pytest
from remote_exec import RemoteExecutor, remote
from remote_exec.client.channel import Channel
from remote_exec.client.connections import connections
from work import nap, start_sleep, zeros

kept = []

def begun(future):
    while future.status != "running":
        assert not future.done()
        time.sleep(0.01)

@pytest.fixture(scope="module")
def warm():
    with RemoteExecutor(1) as executor:
        executor.submit(pow, 2, 3).result()
        yield executor
    kept.append(tempfile.mkstemp(prefix="of-the-module-"))

def test_nothing(warm):
    assert remote(pow)(2, 3) == warm.submit(pow, 2, 3).result() == 8
    assert remote(zeros)(4 << 20) == warm.submit(zeros, 4 << 20).result()
    with RemoteExecutor(1) as executor:
        assert executor.submit(pow, 2, 3).result() == 8
    remote(nap)(0.4)

def test_job():
    leftovers.GRACE_SECONDS = 0.1  # from here on there is nothing to wait for
    hold = remote(detach=True, max_workers=1)(nap)
    begun(hold.options(name="held").submit(600))
    hold.options(name="behind").submit(600)

def test_call():
    kept.append(remote(nap).submit(600))

def test_executor():
    kept.append(RemoteExecutor(1))
    kept[-1].submit(pow, 2, 3).result()

def test_call_of_the_modules_executor(warm):
    begun(warm.submit(nap, 600))

def test_lease():
    dispatcher = next(iter(connections._dispatchers.values()))
    kept.append(Channel(connections.session(), reconnect=connections.session))
    kept[-1].open(dispatcher._lanes._request)

def test_process_of_a_call():
    remote(start_sleep)()

def test_child_process():
    kept.append(subprocess.Popen(["sleep", "572"]))

def test_memfd():
    kept.append(os.memfd_create("of-a-test"))

def test_pipe():
    kept.append(os.pipe())

def test_socket():
    kept.append(socket.socket())

def test_file():
    kept.append(open(__file__))

def test_temporary_file():
    os.close(tempfile.mkstemp(prefix="of-a-test-")[0])

def test_half_done_file():
    folder = os.path.join(os.environ["REMOTE_EXEC_HOME"], "cache/blobs-v1/incoming")
    open(os.path.join(folder, "half.part"), "x").close()

def test_nothing_more():
    assert not connections.session().ask("jobs", {"states": ["queued", "running"]})["jobs"]
    assert remote(pow)(2, 4) == 16
    for left in kept:
        if isinstance(left, subprocess.Popen):
            left.kill()
            left.wait()
"""


TOLD = {
    "test_nothing": [],
    "test_job": ["job held", "job behind"],
    "test_call": ["pending call of nap"],
    "test_executor": ["executor "],
    "test_call_of_the_modules_executor": ["pending call of nap"],
    "test_lease": ["lease that nothing here holds", "descriptors: socket:["],
    "test_process_of_a_call": ["process of a call: ", "sleep 571"],
    "test_child_process": ["child processes: ", "sleep 572"],
    "test_memfd": ["descriptors: /memfd:of-a-test"],
    "test_pipe": ["descriptors: pipe:["],
    "test_socket": ["descriptors: socket:["],
    "test_file": ["descriptors: ", "test_leaving.py"],
    "test_temporary_file": ["files: ", "/tmp/of-a-test-"],
    "test_half_done_file": ["files: ", "incoming/half.part"],
    "test_nothing_more": [
        "descriptors: ",
        "files: ",
        "/tmp/of-the-module-",
    ],  # what its module's fixture leaves
}


@pytest.mark.skipif(sys.platform != "linux", reason="what there is, is read from /proc")
def test_what_a_test_leaves_is_told_by_name_and_stands_in_no_later_tests_way(tmp_path: Path) -> None:
    (tmp_path / "test_leaving.py").write_text(LEAVING)
    (tmp_path / "work.py").write_text(WORK)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "conftest",
        "-p",
        "no:cacheprovider",
        "--junitxml=told.xml",
    ]
    configuration = [
        "-c",
        str(TESTS.parent / "pyproject.toml"),
        "--rootdir",
        str(tmp_path),
        "--basetemp=base",
    ]
    done = subprocess.run(
        [*command, *configuration, "."],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (TESTS.parent, TESTS, tmp_path)))},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    told = {
        case.attrib["name"]: "".join(found.text or "" for found in case)
        for case in ElementTree.parse(tmp_path / "told.xml").iter("testcase")  # noqa: S314 - it is our own
    }
    assert told.keys() == TOLD.keys()
    for name, parts in TOLD.items():
        assert all(part in told[name] for part in parts), (name, told[name])
        assert bool(told[name]) == bool(parts), (name, told[name])
        assert "Traceback" not in told[name], "it failed by itself"
    assert "of-a-test" not in told["test_nothing_more"], "what has been told is told again"
