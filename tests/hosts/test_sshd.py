"""What tests of SSH hosts may rely on: sessions see the host and nothing of this account, and nothing stays."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from .fixtures import NewHost
from .sshd import SshClient, SshServer, make_other_python, this_python

pytestmark = pytest.mark.usefixtures("ssh_server")  # from the first test on: it stays after the last

SLEEPER = "setsid -f sleep 1000 >/dev/null 2>&1 </dev/null; sleep 1001 & echo started; exec cat"
OF_A_SESSION = {
    "HOME",
    "PATH",
    "SHELL",
    "USER",
    "LOGNAME",
    "SSH_CLIENT",
    "SSH_CONNECTION",
    "PWD",
    "SHLVL",
    "_",
}
VERSION = "import sys; print(*sys.version_info[:2])"


def test_a_session_sees_the_host_and_nothing_of_this_account(ssh: SshClient, new_host: NewHost) -> None:
    fresh = new_host("fresh")
    done = ssh.run("fresh", "pwd; cat; env; exit 7", text="said\n")
    where, said, *environ = done.stdout.splitlines()
    assert (where, said, done.returncode, done.stderr) == (str(fresh.home), "said", 7, "")
    names = {line.partition("=")[0] for line in environ}
    assert names <= OF_A_SESSION
    assert {f"HOME={fresh.home}", f"PATH={fresh.path}"} <= set(environ)
    assert os.listdir(fresh.home) == []


def test_the_products_plain_commands_find_the_host(ssh: SshClient, gpu1: SshServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("carried")
    subprocess.run(["scp", "-q", tmp_path / "file", "gpu1:file"], check=True)
    assert (
        subprocess.run(["ssh", "gpu1", "cat file"], stdout=subprocess.PIPE, check=True).stdout == b"carried"
    )
    (gpu1.home / "file").unlink()


def test_start_up_files_make_noise_where_that_is_asked_for(ssh: SshClient, new_host: NewHost) -> None:
    new_host("noisy", noise="Welcome, it's a nice day")
    done = ssh.run("noisy", "echo told")
    assert done.stdout == "Welcome, it's a nice day\ntold\n"
    assert done.stderr == "Welcome, it's a nice day\n"


def test_the_pythons_of_a_host_are_those_that_were_asked_for(
    ssh: SshClient, new_host: NewHost, tmp_path: Path
) -> None:
    old = make_other_python(tmp_path / "python", "3.8.18")
    new_host("none", pythons={})
    new_host("some", pythons={"python3": old, "python3.99": this_python()})
    assert ssh.run("none", "command -v python3 python python3.11 uv; command -v tar").stdout.endswith(
        "/bin/tar\n"
    )
    assert ssh.run("some", f"python3 -IS -c '{VERSION}'").stdout == "3 8\n"
    assert ssh.run("some", "python3 -", text=VERSION).stdout == "3 8\n"
    assert ssh.run("some", "python3 -V").stdout == "Python 3.8.18\n"
    assert ssh.run("some", f"python3.99 -c '{VERSION}'").stdout != "3 8\n"


def test_a_server_may_forbid_forwarding(ssh: SshClient, new_host: NewHost, tmp_path: Path) -> None:
    new_host("strict", settings={"AllowStreamLocalForwarding": "no", "AllowTcpForwarding": "no"})
    options = ["-o", "ExitOnForwardFailure=yes", "-R", f"{tmp_path}/s:{tmp_path}/t"]
    assert ssh.run("strict", "true", *options).returncode == 255
    assert ssh.run("strict", "true").returncode == 0


def test_hosts_are_told_apart_by_their_keys(ssh: SshClient, new_host: NewHost) -> None:
    first, second = new_host("first"), new_host("second")
    assert ssh.run("second", "pwd").stdout == f"{second.home}\n"
    ssh.add("first", first, via=second)
    assert "Host key verification failed" in ssh.run("first", "true").stderr


def test_dropped_connections_leave_the_sessions_processes(ssh: SshClient, new_host: NewHost) -> None:
    server = new_host("gpu2")
    with _sleeping(ssh, "gpu2") as session:
        server.drop_connections()
        assert session.wait() == 255
    assert [told for told in server.processes().values() if told == "sleep 1000"]
    assert ssh.run("gpu2", "true").returncode == 0


def test_stopping_leaves_no_process_and_starting_gives_the_same_host(
    ssh: SshClient, new_host: NewHost
) -> None:
    server = new_host("gpu2")
    with _sleeping(ssh, "gpu2") as session:
        assert len(server.processes()) >= 3
        assert server.connections() == 1
        server.stop()
        assert session.wait() == 255
    assert (server.processes(), server.connections()) == ({}, 0)
    assert ssh.run("gpu2", "true").returncode == 255
    server.start()
    assert ssh.run("gpu2", "pwd").stdout == f"{server.home}\n"


def _sleeping(ssh: SshClient, alias: str) -> subprocess.Popen[str]:
    """Return a session that has started processes of its own, one of them a daemon."""
    session = subprocess.Popen(
        ["ssh", alias, SLEEPER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert session.stdout is not None
    assert session.stdout.readline() == "started\n"
    return session
