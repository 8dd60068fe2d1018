"""Folders of data on a host that shares no file with this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remote_exec import Dir
from remote_exec.model.layout import Layout

from .data_work import size_of, turn_over
from .fixtures import NewLink
from .projects import Project
from .sshd import SshServer
from .test_ssh import breaking

SIZE = 30_000_000
SECONDS = 60.0
pytestmark = pytest.mark.usefixtures("ssh_server", "nothing_held")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "deep" / "empty").mkdir(parents=True)
    (folder / "big").write_bytes(os.urandom(SIZE))
    (folder / "deep" / "small").write_text("small")
    (folder / "link").symlink_to("deep/small")
    return folder


def check(found: Path, data: Path) -> None:
    assert (found / "big").read_bytes() == (data / "big").read_bytes()[::-1]
    assert (found / "link").read_text() == "llams"
    assert os.readlink(found / "link") == "deep/small"
    assert (found / "deep" / "empty").is_dir()
    assert Layout.of(os.environ).home in found.parents


def blobs_of(server: SshServer) -> set[str]:
    return {path.name for path in (server.home / ".local/share/remote_exec/cache/blobs-v1").glob("??/*")}


def test_a_folder_goes_there_once_and_another_comes_back(
    project: Project, gpu1: SshServer, data: Path
) -> None:
    on = project.add("gpu", host="gpu1")
    call = on(turn_over)
    found = call(Dir(data))
    check(found, data)
    before = blobs_of(gpu1)
    check(call(Dir(data)), data)
    assert blobs_of(gpu1) == before
    again = call(found)
    assert (again / "big").read_bytes() == (data / "big").read_bytes()
    future = call.options(detach=True).submit(Dir(data))
    check(future.result(SECONDS), data)


def test_folders_travel_whole_over_a_link_that_flaps(
    project: Project, gpu1: SshServer, new_link: NewLink, data: Path
) -> None:
    link = new_link("gpu1", gpu1)
    call = project.add("gpu", host="gpu1")(turn_over)
    content = (data / "big").read_bytes()
    (data / "big").write_bytes(b"little")
    check(call(Dir(data)), data)
    (data / "big").write_bytes(content)
    link.rate(200e6)  # more than a second each way
    breaker = breaking(link, times=4, every=0.7)
    check(call(Dir(data)), data)
    breaker.join()


def test_what_shrinks_of_a_folder_takes_few_bytes_of_a_slow_link(
    project: Project, gpu1: SshServer, new_link: NewLink, data: Path
) -> None:
    link = new_link("gpu1", gpu1)
    call = project.add("gpu", host="gpu1")(size_of)
    (data / "big").write_bytes(b"little")
    assert call(Dir(data)) == len(b"little")
    (data / "big").write_bytes(bytes(range(256)) * (SIZE // 128))  # twice: the first few show how slow it is
    link.rate(200e6)
    before = link.passed()
    assert call(Dir(data)) == (data / "big").stat().st_size
    assert link.passed() - before < SIZE
