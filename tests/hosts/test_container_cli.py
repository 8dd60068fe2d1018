"""`remote-exec` about containers, as a user types it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .docker_engine import IMAGE, DockerEngine
from .user import User

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
