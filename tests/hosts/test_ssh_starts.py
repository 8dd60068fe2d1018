"""How a process begins with a host behind ssh: it says hello before it has loaded what makes calls."""

from __future__ import annotations

import subprocess
import sys

import pytest

from remote_exec.backends.ssh import SshHost

from .host_work import double
from .projects import Project
from .sshd import SshClient, SshServer

SECONDS = 60.0
CALL = "print(function(20), flush=True)"
FORK = """\
import os
from remote_exec.client.ahead import reach_ahead
reach_ahead(function._options)
child = os.fork()
if not child:
    print(function(10), flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""
pytestmark = pytest.mark.usefixtures("ssh_server")


def in_a_process(*lines: str) -> str:
    """Run a program that has `function`, and return what it prints."""
    code = "from remote_exec import remote\nfunction = remote(instance_type='gpu')(lambda x: x + 1)\n"
    done = subprocess.run(
        [sys.executable, "-c", code + "\n".join(lines)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_process_says_hello_to_a_host_and_may_fork_before_it_is_answered(
    project: Project, gpu1: SshServer
) -> None:
    assert project.add("gpu", host="gpu1")(double)(1) == 2
    assert in_a_process(FORK, CALL) == "11\n21\n"


@pytest.mark.parametrize("broken", ["the connection", "the agent", "the forwarded socket"])
def test_a_way_that_looks_open_and_is_not_is_opened_anew(
    broken: str, project: Project, gpu1: SshServer, ssh: SshClient
) -> None:
    project.add("gpu", host="gpu1")
    assert in_a_process(CALL) == "21\n"
    host = SshHost("gpu1")
    if broken == "the connection":
        assert ssh.run("gpu1", "", *host.options(), "-O", "exit").returncode == 0
    elif broken == "the agent":
        command = "pkill -KILL -f '[a]gent.early import begin.*'\"$HOME\""
        assert ssh.run("gpu1", command, *host.options()).returncode == 0
    else:
        for path in host.folder.glob("a????????"):
            path.unlink()
    assert in_a_process(CALL) == "21\n"
    assert in_a_process(CALL) == "21\n"


def test_a_preflight_says_nothing_to_the_host(project: Project, gpu1: SshServer) -> None:
    seen = len(gpu1.log())
    report = project.add("gpu", host="gpu1")(double).preflight(1)
    assert report.backend == "ssh"
    assert not report.problems
    assert "Connection from" not in gpu1.log(seen)
