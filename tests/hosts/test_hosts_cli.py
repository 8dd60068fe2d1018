"""`remote-exec` about other hosts, as a user types it: lists, jobs by name, shell, sync, forward, doctor, remove."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import socket
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from waiting import until

from remote_exec.cli.troubles import TROUBLES, table

from .fixtures import NewHost
from .managed_pythons import serve_nothing
from .sshd import SshClient, SshServer, free_port, hiding_pythons, make_key, make_other_python
from .user import SECONDS, User

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("ssh_server")


class At(NamedTuple):
    """Where a host is said to be."""

    address: str
    port: int


@pytest.fixture
def new_user(ssh: SshClient) -> Iterator[Callable[[], User]]:
    users: list[User] = []

    def make() -> User:
        users.append(User(ssh.folder.parent, ssh.environ()))
        return users[-1]

    yield make
    for user in users:
        user.close()


@pytest.fixture
def user(new_user: Callable[[], User], gpu1: SshServer) -> User:
    user = new_user()
    user.add("gpu", host="gpu1")
    return user


def whole(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def fit(user: User, *flags: str) -> str:
    return user("run", "--instance-type", "gpu", *flags, "train.py:fit", "0.5").stdout


# --- what is there, and what is left ------------------------------------------------------------------------------


def test_a_host_is_listed_stopped_and_removed_and_nothing_is_left_of_it(
    user: User, new_host: NewHost
) -> None:
    gpu1 = new_host("gpu1")
    before = whole(gpu1.home)
    assert user.host("gpu1")["state"] == "not connected"
    assert fit(user) == f"fitting on {gpu1.home}\n{{'rate': 0.5}}\n"
    found = user.host("gpu1")
    assert (found["state"], found["home"]) == ("connected", f"{gpu1.home}/.local/share/remote_exec")
    assert found["pid"] in gpu1.processes()
    for folder in (Path(found["home"]), *Path(found["home"]).parents[:2]):
        assert folder.stat().st_mode & 0o077 == 0, f"{folder} is open to others"

    assert "the agent on gpu1 has ended" in user("hosts", "stop", "gpu").stderr
    assert gpu1.processes() == {}
    assert user.host("gpu1")["state"] == "not connected"
    assert "no agent runs on gpu1" in user("hosts", "stop", "gpu").stderr
    assert gpu1.processes() == {}, "looking starts no agent"

    fit(user, "--detach", "--name", "kept")
    user("sync", "gpu")
    assert user.sockets()
    assert "nothing of ours is left on gpu1" in user("hosts", "remove", "gpu").stderr
    assert whole(gpu1.home) == before
    assert gpu1.processes() == {}
    until(lambda: not gpu1.connections())
    assert user.sockets() == []
    assert os.listdir(user.home / "hosts") == ["lock"]


ENDING = """
import os, signal, sys
from remote_exec.cli import main
from remote_exec.client.session import Session

start = Session.start

def start_too_late(session, *what):
    if what == ("host",):
        os.kill(session.welcome.pid, signal.SIGKILL)
        while not (session.lost or session.away):
            pass
    return start(session, *what)

Session.start = start_too_late
sys.exit(main(["hosts", "--json"]))
"""


def test_an_agent_that_ends_while_hosts_are_listed_is_not_there(user: User, gpu1: SshServer) -> None:
    user("hosts", "start")
    fit(user)
    before = {host["host"]: host["state"] for host in user.json("hosts")}
    assert before == {"local": "here", "gpu1": "connected"}
    after = {host["host"]: host["state"] for host in json.loads(user.python(ENDING))}
    assert after == {"gpu1": "not connected"}


def test_what_is_not_ours_stays_in_the_state_directory(user: User, gpu1: SshServer) -> None:
    user.add("scratch", host="gpu1", home=str(gpu1.home / "scratch"))
    (gpu1.home / "scratch").mkdir()
    (gpu1.home / "scratch" / "data.csv").write_text("1,2\n")
    user("run", "--instance-type", "scratch", "train.py:fit", "1")
    told = user("hosts", "remove", "scratch").stderr
    assert "data.csv" in told
    assert os.listdir(gpu1.home / "scratch") == ["data.csv"]


def test_a_host_that_is_gone_is_forgotten(user: User, new_host: NewHost) -> None:
    server = new_host("brief")
    user.add("brief", host="brief")
    user("run", "--instance-type", "brief", "--detach", "--name", "far", "train.py:fit", "1")
    server.stop()
    assert "far was submitted to brief, which does not answer" in user("result", "far", code=1).stderr
    refused = user("hosts", "remove", "brief", code=1)
    assert "remote-exec hosts remove --forget brief" in refused.stderr
    assert "it was reached lately, and stays" in user("hosts", "prune").stderr
    (note,) = (user.home / "hosts").glob("*.json")
    note.write_text(json.dumps({**json.loads(note.read_text()), "reached_at": 1.0}))
    assert "removed: brief" in user("hosts", "prune").stderr
    assert list((user.home / "hosts").glob("*.json")) == []


# --- jobs ---------------------------------------------------------------------------------------------------------


def test_a_job_is_found_by_its_name_from_any_later_process(
    user: User, new_user: Callable[[], User], gpu1: SshServer
) -> None:
    assert fit(user, "--detach", "--name", "far") == "far\n"
    assert user("result", "far").stdout == "{'rate': 0.5}\n"
    assert user("logs", "far").stdout == f"fitting on {gpu1.home}\n"
    assert user("jobs", "far").stdout.startswith("name:          far\n")
    user("run", "--detach", "--name", "near", "train.py:fail")
    user("result", "near", code=1)
    shown = [(row["name"], row["host"]) for row in user.json("jobs")]
    assert shown == [("near", "local"), ("far", "gpu1")]
    assert [row["name"] for row in user.json("jobs", "--on", "gpu")] == ["far"]
    assert user.json("top", "--once", "--on", "gpu")["workers"][0]["memory_bytes"] > 0
    assert {row["what"] for row in user.json("cache", "ls", "--on", "gpu1")} >= {"runtimes"}

    colleague = new_user()  # the same project elsewhere: another home, nothing noted
    shutil.copy(user.work / "pyproject.toml", colleague.work)
    program = """if True:
        from remote_exec import get_future, list_futures
        print(get_future("far").result(), [found.job for found in list_futures()])
    """
    assert colleague.python(program) == "{'rate': 0.5} ['far']\n"
    assert user.python(program) == "{'rate': 0.5} ['near', 'far']\n"


def test_a_host_that_says_nothing_is_passed_over_and_named(
    user: User, ssh: SshClient, gpu1: SshServer
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ssh.add("silent", gpu1, via=At("127.0.0.1", silent.getsockname()[1]))
        user.add("silent", host="silent")
        user.types.remove("silent")  # nothing is to be removed there
        fit(user)
        missing = user("jobs", "nowhere", code=1).stderr
    assert "no job named 'nowhere' on this machine, gpu1" in missing
    assert "silent was not asked: no answer in 5 s" in missing
    ssh.forget("silent")


# --- at work there ------------------------------------------------------------------------------------------------


def test_sync_brings_what_has_changed_and_the_shell_starts_there(user: User, gpu1: SshServer) -> None:
    user.write(".gitignore", "*.bin\n")
    user.write("data.bin", "not this")
    user.write("package/model.py", "depth = 1")
    first = user.json("sync", "gpu")
    there = Path(first["folder"])
    assert there.is_relative_to(gpu1.home)
    brought = {".gitignore", "package", "package/model.py", "pyproject.toml", "train.py"}
    assert whole(there) == brought
    (there / "results.txt").write_text("made there")
    (there / "train.py").write_text("edited there")
    user.write("package/model.py", "depth = 22")
    os.unlink(user.work / ".gitignore")
    os.unlink(user.work / "data.bin")
    second = user.json("sync", "gpu")
    assert (second["written"], second["removed"]) == (2, 1)
    assert second["sent_bytes"] == len("depth = 22\n"), "the script's bytes are there"
    assert whole(there) == brought - {".gitignore"} | {"results.txt"}
    assert (there / "train.py").read_text() == (user.work / "train.py").read_text()

    assert user("shell", "gpu", "--", "pwd").stdout == f"{there}\n"
    told = user("shell", "gpu", "--", "sh", "-c", """echo "it's $0!" \\\\ '*'; exit 7""", "a b", code=7)
    assert told.stdout == "it's a b! \\ *\n"


class _Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello from the job")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


def test_a_port_of_the_jobs_host_is_here_until_ctrl_c(user: User) -> None:
    fit(user, "--detach", "--name", "far")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hello) as server:
        threading.Thread(target=server.serve_forever).start()
        there, here = server.server_port, free_port("127.0.0.1")
        refused = user("forward", "far", str(there), code=1).stderr
        assert f"port {there} of this machine is taken" in refused
        assert f"HERE:{there}" in refused
        with user.popen("forward", "far", f"{here}:{there}") as process:
            assert process.stdout is not None
            assert process.stdout.readline() == f"127.0.0.1:{here}\n"
            with urllib.request.urlopen(f"http://127.0.0.1:{here}", timeout=SECONDS) as answer:
                assert answer.read() == b"hello from the job"
            process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS) == 130
            process.communicate()
        server.shutdown()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", here)).close()
    closed = user("forward", "far", f"{here}:{there}", code=1).stderr
    assert f"nothing listens at port {there} of gpu1" in closed


# --- doctor -------------------------------------------------------------------------------------------------------


def doctor(user: User, name: str, *, code: int = 1) -> list[tuple[str, str]]:
    return [(row["name"], row["status"]) for row in user.json("doctor", name, code=code)]


def first_wrong(user: User, name: str) -> tuple[str, str]:
    """Return the check that is wrong first, and its fix; all before it are well, all after it are not tried."""
    rows = user.json("doctor", name, code=1)
    states = [row["status"] for row in rows]
    number = states.index("wrong")
    assert set(states[:number]) <= {"ok"}, rows
    assert set(states[number + 1 :]) <= {"skipped", "ok"}, rows
    return rows[number]["name"], rows[number]["fix"]


def test_the_doctor_finds_a_way_with_noise_and_without_forwarding_well(user: User, new_host: NewHost) -> None:
    new_host("odd", noise="Welcome to the cluster!", settings={"AllowStreamLocalForwarding": "no"})
    user.add("odd", host="odd")
    rows = {row["name"]: row for row in user.json("doctor", "odd")}
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert "passed over" in rows["login shell"]["found"]
    assert "not allowed" in rows["socket forwarding"]["found"]
    assert set(rows) == {row.check for row in TROUBLES.values()} | {"test call"}


def test_the_doctor_names_the_first_thing_that_is_wrong_and_its_fix(
    user: User, ssh: SshClient, gpu1: SshServer, new_host: NewHost, tmp_path: Path
) -> None:
    assert first_wrong(user, "gpuu") == (
        "configuration",
        TROUBLES["unknown"].fix.format(name="gpuu").replace("`", ""),
    )

    ssh.add("lost", gpu1, via=At("no-such-host.invalid", 22))
    ssh.add("closed", gpu1, via=At("127.0.0.1", free_port("127.0.0.1")))
    ssh.add("stranger", gpu1)
    (ssh.folder / "known_hosts.stranger").write_text(f"stranger {make_key(tmp_path / 'other')}\n")
    ssh.add("denied", gpu1, settings={"User": "no-such-user"})
    user.add("unwritable", host="gpu1", home="/proc/remote_exec")
    exits = new_host("exits")
    (exits.home / ".bashrc").write_text("exit 0\n")
    for name in ("lost", "closed", "stranger", "denied", "exits"):
        user.add(name, host=name)
        user.types.remove(name)  # nothing is to be removed there
    user.types.remove("unwritable")

    found = {name: first_wrong(user, name) for name in ("lost", "closed", "stranger", "denied", "exits")}
    found["unwritable"] = first_wrong(user, "unwritable")
    assert {name: check for name, (check, _) in found.items()} == {
        "lost": "name",
        "closed": "port",
        "stranger": "host key",
        "denied": "login",
        "exits": "login shell",
        "unwritable": "state directory",
    }
    assert "ssh-keygen -R 127.0.0.1" in found["stranger"][1]
    for name in ("lost", "closed", "stranger", "denied"):
        ssh.forget(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hide the Pythons of this machine")
def test_the_doctor_tells_a_host_without_a_python_from_one_that_is_out_of_reach(
    user: User, ssh: SshClient, tmp_path: Path
) -> None:
    old = make_other_python(tmp_path / "python3", "3.8.10")
    folder = Path(tempfile.mkdtemp(prefix="h-", dir=ssh.folder.parent))
    with SshServer(folder, ssh.public_key, pythons={"python3": old}, prefix=hiding_pythons(old)) as server:
        ssh.add("old", server)
        serve_nothing(tmp_path, server.home)
        user.write("pyproject.toml", '[tool.remote_exec.instances.old]\nbackend = "ssh"\nhost = "old"')
        user.types.clear()
        check, fix = first_wrong(user, "old")
        assert (check, "uv python install" in fix) == ("Python", True)
        ssh.forget("old")


def test_the_table_of_troubles_is_the_doctors() -> None:
    page = (ROOT / "docs" / "guides" / "ssh.md").read_text(encoding="utf-8")
    assert page.endswith(f"\n{table()}\n"), "its end is what `python -m remote_exec.cli.troubles` prints"
