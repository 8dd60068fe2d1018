"""`remote-exec` about containers, as a user types it."""

from __future__ import annotations

import os
import signal
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from .docker_engine import IMAGE, DockerEngine
from .sshd import free_port
from .user import SECONDS, User

pytestmark = pytest.mark.usefixtures("docker_engine")


@pytest.fixture
def user(docker_engine: DockerEngine, session_home: Path) -> Iterator[User]:
    user = User(session_home, {**os.environ, "DOCKER_HOST": docker_engine.url})
    user.add("box", backend="docker", image_uri=IMAGE, network_mode="none")
    yield user
    user.close()


def test_a_container_is_listed_entered_stopped_and_removed(user: User) -> None:
    assert user.host("box")["state"] == "not connected"
    ran = user("run", "--instance-type", "box", "--name", "far", "train.py:fit", "0.5")
    assert ran.stdout.endswith("{'rate': 0.5}\n")
    found = user.host("box")
    assert (found["state"], found["home"]) == ("connected", "/remote_exec/state")
    assert user("result", "far").stdout == "{'rate': 0.5}\n"
    assert user("shell", "box", "--", "sh", "-c", "echo $REMOTE_EXEC_HOME; exit 3", code=3).stdout == (
        "/remote_exec/state\n"
    )
    assert {row["status"] for row in user.json("doctor", "box")} == {"ok"}

    assert "has ended" in user("hosts", "stop", "box").stderr
    assert user.host("box")["state"] == "not connected"
    assert "no container of box runs" in user("shell", "box", "--", "true", code=1).stderr
    assert "nothing of ours is left" in user("hosts", "remove", "box").stderr
    assert "there was nothing to remove" in user("hosts", "prune").stderr


BOARD = """
    import http.server
    import threading
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"the way is " + self.path.encode() * 100_000)
            if self.path == "/enough":
                threading.Thread(target=self.server.shutdown).start()
        def log_message(self, *words): ...
    def serve():
        with http.server.ThreadingHTTPServer(("localhost", 6006), Page) as server:
            print("ready", flush=True)
            server.serve_forever()
"""


def test_a_port_of_a_job_in_a_container_without_a_network_is_forwarded(user: User) -> None:
    user.write("board.py", BOARD)
    user("run", "--detach", "--instance-type", "box", "--name", "board", "board.py:serve")
    with user.popen("logs", "--follow", "board") as follower:
        assert follower.stdout is not None
        assert "ready" in follower.stdout.readline()
        here = free_port("127.0.0.1")
        with user.popen("forward", "board", f"{here}:6006") as process:
            assert process.stdout is not None
            assert process.stdout.readline() == f"127.0.0.1:{here}\n"
            for path in ("/first", "/enough"):
                with urllib.request.urlopen(f"http://127.0.0.1:{here}{path}", timeout=SECONDS) as answer:
                    assert answer.read() == b"the way is " + path.encode() * 100_000
            process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS) == 130
            process.communicate()
        follower.communicate(timeout=SECONDS)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", here)).close()
    assert "nothing listens at port 6006 of box" in user("forward", "board", "6006", code=1).stderr


def test_a_job_is_found_when_its_instance_type_has_another_image_since(
    user: User, docker_engine: DockerEngine
) -> None:
    user.write("Dockerfile", f"FROM {IMAGE}\nLABEL made=first\n")
    user.add("built", backend="docker", dockerfile="Dockerfile", network_mode="none")
    user("run", "--instance-type", "built", "--name", "early", "train.py:fit", "0.5")
    docker_engine.docker(
        "stop", *docker_engine.docker("ps", "-q").split()
    )  # as it ends by itself when it is idle
    user.write("Dockerfile", f"FROM {IMAGE}\nLABEL made=then\n")
    user("run", "--instance-type", "built", "--name", "late", "train.py:fit", "0.7")
    assert user("result", "early").stdout == "{'rate': 0.5}\n"
    assert user("result", "late").stdout == "{'rate': 0.7}\n"
    assert "nothing of ours is left" in user("hosts", "remove", "built").stderr
    user("hosts", "prune")
    assert [one["host"] for one in user.json("hosts")] == ["box", "built"]


GREEDY = """
    def eat():
        with open("/proc/1/oom_score_adj", "w") as wanted:
            wanted.write("1000")  # the container's first process goes, and all that is in it
        return len(bytearray(1 << 28))
"""


def test_a_job_whose_container_was_killed_for_its_memory_says_so(user: User) -> None:
    user.write("greedy.py", GREEDY)
    user.add("small", backend="docker", image_uri=IMAGE, network_mode="none", memory_limit="128 MB")
    user("run", "--detach", "--instance-type", "small", "--name", "eater", "greedy.py:eat")
    told = user("result", "eater", code=1).stderr
    assert "killed for using more memory than its limit of 128 MB (exit 137)" in told
    assert "out of memory" in user("jobs", "eater").stdout


KILLED_ONCE = f"""
    FROM {IMAGE}
    RUN mkdir -m 777 /once && printf '%s\\n' \\
        '#!/bin/sh' \\
        'case "$*" in *stdin.buffer*) mkdir /once/killed && kill -9 $$;; esac' \\
        'exec /usr/bin/python3.11 "$@"' > /usr/local/bin/python3.11 && chmod 755 /usr/local/bin/python3.11
"""


def test_what_is_killed_while_it_brings_an_agent_up_is_tried_again(user: User) -> None:
    user.write("Dockerfile", KILLED_ONCE)
    user.add("shaky", backend="docker", dockerfile="Dockerfile", network_mode="none")
    assert user("run", "--instance-type", "shaky", "train.py:fit", "0.5").stdout.endswith("{'rate': 0.5}\n")
    killed = user("shell", "shaky", "--", "ls", "/once")
    assert killed.stdout == "killed\n"


VALUE = "no-one-may-read-this"


def test_no_value_of_a_build_argument_or_variable_is_written_down(
    user: User, docker_engine: DockerEngine
) -> None:
    """Where an image shows its arguments (`docker history`) is the engine's doing, and the guide says so."""
    user.write("Dockerfile", f'FROM {IMAGE}\nARG TOKEN\nRUN test -n "$TOKEN"\n')
    hidden = {"build_args.TOKEN": VALUE, "environment_variables.KEY": VALUE}
    user.add("built", backend="docker", dockerfile="Dockerfile", network_mode="none", **hidden)
    user("run", "--instance-type", "built", "--name", "far", "train.py:fit", "0.5")
    assert [one["host"] for one in user.json("hosts") if one["state"] == "connected"] == ["built"]
    assert user("result", "far").stdout == "{'rate': 0.5}\n"
    names = docker_engine.docker("ps", "-aq").split() + docker_engine.docker("volume", "ls", "-q").split()
    assert VALUE not in docker_engine.docker("inspect", *names)
    written = [path for path in user.home.rglob("*") if path.is_file()]
    assert any(path.parent.name == "hosts" and path.suffix == ".json" for path in written)
    assert [path for path in written if VALUE.encode() in path.read_bytes()] == []
