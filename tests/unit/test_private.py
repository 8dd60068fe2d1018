"""Private folders are so all the way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote_exec.worker.private import make_private_folder

SECONDS = 60


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    """What most users have: others may read what they make."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(folder: Path, upto: Path) -> set[int]:
    return {one.stat().st_mode & 0o777 for one in (folder, *folder.parents) if upto in one.parents}


def test_folders_above_are_private_too_and_those_that_were_there_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    folder = tmp_path / "mine" / "a" / "b"
    make_private_folder(folder)
    make_private_folder(folder)
    assert modes(folder, tmp_path / "mine") == {0o700}
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o755


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError):
        make_private_folder(tmp_path / "file")
    with pytest.raises(NotADirectoryError):
        make_private_folder(tmp_path / "file" / "below")
    with pytest.raises(FileExistsError):
        make_private_folder(tmp_path / "link" / "below")


@pytest.mark.parametrize(
    "program",
    [
        "from remote_exec.cli import main; main(['hosts', 'start']); main(['hosts', 'stop'])",
        "from remote_exec.backends.runtime import digest, unpack; import pathlib, os\n"
        "digest(); unpack(pathlib.Path(os.environ['REMOTE_EXEC_HOME'], 'cache', 'runtimes-v1'))",
        "from remote_exec.client.inventory import note_job; from remote_exec.backends.ssh import SshHost\n"
        "note_job(SshHost('gpu1'), 'a-job')",
    ],
    ids=["agent", "runtime", "inventory"],
)
def test_whatever_makes_the_state_directory_first_makes_it_private(tmp_path: Path, program: str) -> None:
    home = tmp_path / "share" / "remote_exec"
    subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "REMOTE_EXEC_HOME": str(home)},
        check=True,
        capture_output=True,
        timeout=SECONDS,
    )
    assert modes(home, tmp_path) == {0o700}
    assert all(one.stat().st_mode & 0o777 == 0o700 for one in home.iterdir() if one.is_dir())
