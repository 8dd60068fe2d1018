"""A host that has nothing but sshd on it: what a user sees of it, and what becomes of calls when the link breaks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from remote_exec import remote
from remote_exec.backends.ssh import SshHost
from remote_exec.backends.ssh_access import SshAccess
from remote_exec.backends.ssh_session import Session
from remote_exec.client.connections import connections
from remote_exec.client.placement import hosts_of
from remote_exec.config import load_config
from remote_exec.errors import HostUnavailable
from remote_exec.options import Options
from remote_exec.testing import check_transport, serve_echo

from .fixtures import NewHost, NewLink
from .host_work import Counter, double, numbers, slowly, where
from .projects import Project
from .sshd import SshClient, SshServer

SECONDS = 30.0
pytestmark = pytest.mark.usefixtures("ssh_server")


def whole(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_bare_host_runs_a_function_and_keeps_all_in_one_directory(
    project: Project, gpu1: SshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = whole(gpu1.home)
    monkeypatch.setenv("SECRET_OF_MINE", "x")
    on = project.add("gpu", host="gpu1")
    assert on(double)(21) == 42
    seen = on(where).options(environment_variables={"TOLD": "y"})()
    assert seen == {"HOME": str(gpu1.home), "SSH_CONNECTION": "", "SECRET_OF_MINE": "", "TOLD": "y"}
    new = {path for path in whole(gpu1.home) - before if not path.startswith(".local/share/remote_exec")}
    assert new <= {".local", ".local/share"}


def test_a_second_process_comes_by_the_same_connection_and_brings_nothing(
    project: Project, gpu1: SshServer
) -> None:
    on = project.add("gpu", host="gpu1")
    assert on(double)(1) == 2
    logins = gpu1.log().count("Accepted publickey")
    commands = gpu1.log().count("Starting session")
    code = "from remote_exec import remote; print(remote(instance_type='gpu')(lambda x: x + 1)(1))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.stdout == "2\n", done.stderr
    assert gpu1.log().count("Accepted publickey") == logins
    assert gpu1.log().count("Starting session") == commands


def test_what_login_shells_print_does_no_harm(project: Project, new_host: NewHost) -> None:
    new_host("noisy", noise="Welcome to the cluster!\nremote-exec is not our motto")
    assert project.add("gpu", host="noisy")(double)("ab") == "abab"


def test_a_server_that_forwards_nothing_serves_by_a_tunnel(project: Project, new_host: NewHost) -> None:
    new_host("strict", settings={"DisableForwarding": "yes"})
    on = project.add("gpu", host="strict")
    data = os.urandom(3 << 20)
    assert on(double)(data) == data * 2
    assert on(double).map(range(50)) is not None
    assert list(on(double).map(range(50))) == [2 * x for x in range(50)]


def test_a_host_that_is_not_there_is_named_with_what_to_do(project: Project, ssh: Any) -> None:
    on = project.add("gpu", host="no-such-host.invalid")
    with pytest.raises(HostUnavailable, match=r"no-such-host\.invalid cannot be reached over ssh: its name"):
        on(double)(1)


def test_a_dead_host_of_several_is_passed_over(
    project: Project, gpu1: SshServer, capsys: pytest.CaptureFixture[str]
) -> None:
    on = project.add("gpu", hosts=["no-such-host.invalid", "gpu1"])
    assert on(double)(2) == 4
    assert "no-such-host.invalid is passed over" in capsys.readouterr().err


# --- links that break ---------------------------------------------------------------------------------------------


def breaking(link: Any, *, times: int, every: float) -> threading.Thread:
    def body() -> None:
        for _ in range(times):
            time.sleep(every)
            link.cut()

    thread = threading.Thread(target=body)
    thread.start()
    return thread


def test_calls_values_and_state_go_on_when_the_link_is_cut(
    project: Project, gpu1: SshServer, new_link: NewLink, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = new_link("gpu1", gpu1)
    on = project.add("gpu", host="gpu1")
    counter = on(Counter)()
    assert counter.add() == 1
    breaker = breaking(link, times=3, every=0.4)
    assert on(slowly)(str(tmp_path / "ran"), 2.0) == "done"
    assert list(on(numbers)(20)) == list(range(20))
    breaker.join()
    assert counter.add() == 2, "the same worker, with its state"
    counter.close()
    assert (tmp_path / "ran").read_text() == "began\n"
    assert capsys.readouterr().out.count("at work") == 1


def test_a_big_argument_and_result_arrive_whole_over_a_link_that_flaps(
    project: Project, gpu1: SshServer, new_link: NewLink
) -> None:
    link = new_link("gpu1", gpu1)
    on = project.add("gpu", host="gpu1")
    assert on(double)(1) == 2
    data = os.urandom(32 << 20)
    link.rate(400e6)  # a second and a half each way
    breaker = breaking(link, times=4, every=0.7)
    assert on(double)(data) == data * 2
    breaker.join()


def test_what_shrinks_takes_few_bytes_of_a_slow_link_both_ways(
    project: Project, gpu1: SshServer, new_link: NewLink
) -> None:
    link = new_link("gpu1", gpu1)
    on = project.add("gpu", host="gpu1")
    assert on(double)(1) == 2
    link.rate(200e6)
    data = bytes(range(256)) * (64 << 12)  # 64 MB: the first few show how slow it is
    before = link.passed()
    assert on(double)(data) == data * 2
    assert link.passed() - before < 1.5 * len(data)


def pressing(link: Any) -> threading.Thread:
    """Press Ctrl-C when something large is on its way."""
    limit = link.passed() + 400_000

    def body() -> None:
        while link.passed() < limit:
            time.sleep(0.05)
        time.sleep(1.0)  # what the socket takes in has gone
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=body)
    thread.start()
    return thread


def test_ctrl_c_in_the_thread_that_sends_another_call_keeps_that_one_back(
    project: Project, gpu1: SshServer, new_link: NewLink
) -> None:
    link = new_link("gpu1", gpu1)
    counter = project.add("gpu", host="gpu1")(Counter)()
    assert counter.add() == 1
    first = counter.nap.submit(0.5)
    second = counter.add.submit(os.urandom(8 << 20))  # it waits for the first
    third = counter.add.submit()
    link.rate(400_000)
    presser = pressing(link)
    with pytest.raises(KeyboardInterrupt):
        second.result()
    presser.join()
    link.rate(0)
    assert first.result(SECONDS) is None
    assert (second.result(SECONDS), third.result(SECONDS)) == (2, 3)


@pytest.mark.parametrize("what", ["argument", "function", "instance"])
def test_ctrl_c_while_something_large_travels_over_a_slow_link(
    what: str, project: Project, gpu1: SshServer, new_link: NewLink
) -> None:
    link = new_link("gpu1", gpu1)
    on = project.add("gpu", host="gpu1")
    counter = on(Counter)()
    assert (on(double)(1), counter.add()) == (2, 1)
    data = os.urandom(8 << 20)
    do = {
        "argument": lambda: counter.add(data),
        "function": lambda: on(lambda: len(data))(),
        "instance": lambda: on(Counter)(data).add(),
    }[what]
    link.rate(400_000)  # minutes
    presser = pressing(link)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        do()
    assert time.monotonic() - began < SECONDS
    presser.join()
    link.rate(0)
    counted = counter.add()
    assert counted == 2, "what was left of the call has not run"
    assert do() == {"argument": 3, "function": len(data), "instance": len(data) + 1}[what]


def test_a_host_that_stays_away_is_told_of_in_time_and_has_the_result_when_it_is_back(
    project: Project, gpu1: SshServer, new_link: NewLink, tmp_path: Path
) -> None:
    link = new_link("gpu1", gpu1)
    project.add("gpu", host="gpu1")
    function = remote(instance_type="gpu", connection_timeout=2)(slowly)
    future = function.submit(str(tmp_path / "ran"), 6.0)
    until(lambda: (tmp_path / "ran").exists())
    name = future.job
    link.refuse()
    with pytest.raises(HostUnavailable, match=r"out of reach for 2 s") as caught:
        future.result(SECONDS)
    assert name in caught.value.hint
    link.resume()
    (host,) = hosts_of(load_config().instances["gpu"], Options())
    told, body = connections.session(host).start("result", {"name": name, "wait": True}).result(SECONDS)
    assert told["ok"]
    assert b"done" in body
    assert (tmp_path / "ran").read_text() == "began\n"


ASLEEP = """
import os, subprocess, sys
from remote_exec import remote
from host_work import slowly

ran, seconds = sys.argv[1:]
function = remote(instance_type="gpu", connection_timeout=3)(slowly)
print(function(ran, float(seconds)))
"""


@pytest.mark.parametrize("seconds", [1.0, 4.0])  # it ends before the host gives its client up, or after
def test_a_client_that_slept_through_its_call_gets_the_result(
    project: Project, gpu1: SshServer, new_link: NewLink, tmp_path: Path, seconds: float
) -> None:
    link = new_link("gpu1", gpu1)
    project.add("gpu", host="gpu1")
    ran = tmp_path / "ran"
    client = subprocess.Popen(
        [sys.executable, "-c", ASLEEP, str(ran), str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    until(ran.exists)
    client.send_signal(signal.SIGSTOP)
    link.cut()
    time.sleep(6.0)  # the host gives its client up meanwhile, and the call ends
    client.send_signal(signal.SIGCONT)
    out, err = client.communicate(timeout=SECONDS)
    assert out == "done\n", err
    assert ran.read_text() == "began\n"


def test_a_forwarded_socket_answers_the_rude_questions(ssh: SshClient, gpu1: SshServer) -> None:
    host = SshHost("gpu1")
    echo = gpu1.home / "echo"
    here = host.folder / "echo"
    host.folder.mkdir(mode=0o700, parents=True)
    try:
        with serve_echo(echo), Session(host.options(), "gpu1", "gpu1", host.folder / "log") as session:
            assert ssh.run("gpu1", "true", *host.options()).returncode == 0  # the master connection

            def connect() -> socket.socket:
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                sock.connect(str(here))
                return sock

            session.forward(here, str(echo))
            check_transport(connect, cut=gpu1.drop_connections)
    finally:
        SshAccess(host).close()
