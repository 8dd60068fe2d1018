"""An agent of one version, clients of another: who gives way, and when."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from at_a_shell import User
from waiting import until

import remote_exec

OLD, NEW = remote_exec.__version__, "99.0.0"
WAITS = """
    import time
    from pathlib import Path

    def waits(path):
        while not Path(path).exists():
            time.sleep(0.05)
        return "done"
"""


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    """Somebody who has a newer installation beside this one: in the folder that `newer` names."""
    made = User(tmp_path)
    made.write("work.py", WAITS)
    yield made
    made("hosts", "stop")


@pytest.fixture
def newer(tmp_path: Path) -> dict[str, str]:
    """Variables with which commands are the newer version's."""
    folder = tmp_path / "newer" / "remote_exec"
    shutil.copytree(Path(remote_exec.__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    version = folder / "version.py"
    version.write_text(version.read_text().replace(OLD, NEW))
    changed = folder / "model" / "versions.py"
    changed.write_text(changed.read_text() + "\n# changed\n")
    return {"PYTHONPATH": str(folder.parent)}


def version_of_agent(user: User) -> str:
    (row,) = user.json("hosts")
    return str(row["version"])


def test_an_older_agent_goes_on_with_its_work_and_then_gives_way(user: User, newer: dict[str, str]) -> None:
    gate = user.work / "gate"
    job = user("run", "--detach", "work.py:waits", str(gate)).stdout.strip()
    ran = user("run", "train.py:fit", "1", env=newer)
    assert ran.stdout.startswith("hello 1\n")
    assert f"has work and is of another installation (version {OLD}, here is {NEW})" in ran.stderr
    assert version_of_agent(user) == OLD
    gate.touch()
    assert user("result", job, env=newer).stdout == "'done'\n"
    until(lambda: "another installation" not in user("run", "train.py:fit", "1", env=newer).stderr)
    assert version_of_agent(user) == NEW
    assert user("result", job).stdout == "'done'\n"


def test_an_older_client_works_with_a_newer_agent_and_leaves_it_alone(
    user: User, newer: dict[str, str]
) -> None:
    user("run", "train.py:fit", "1", env=newer)
    ran = user("run", "train.py:fit", "2")
    assert ran.stdout.startswith("hello 2\n")
    assert "another installation" not in ran.stderr
    assert version_of_agent(user) == NEW
