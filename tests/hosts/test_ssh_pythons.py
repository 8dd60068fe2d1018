"""Hosts without a Python that fits: uv brings one where it can, else the user is told what is there."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from interpreters import python_of

from remote_exec.errors import HostUnavailable, RuntimeEnvironmentError

from .host_work import double, python
from .letting_go import let_go
from .managed_pythons import MINOR, SETTINGS, serve_nothing, serve_pythons
from .projects import Project
from .sshd import SshClient, SshServer, hiding_pythons, make_other_python

pytestmark = pytest.mark.usefixtures("ssh_server")
hides = pytest.mark.skipif(os.geteuid() != 0, reason="only root can hide the Pythons of this machine")

NewOldHost = Callable[..., SshServer]


def below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture
def new_old_host(ssh: SshClient, tmp_path: Path) -> Iterator[NewOldHost]:
    """Start a host whose only Python is too old, or another."""
    old = make_other_python(tmp_path / "python3", "3.8.10")
    with ExitStack() as stack:

        def start(python: Path = old, shell: str = "/bin/bash") -> SshServer:
            folder = Path(tempfile.mkdtemp(prefix="h-", dir=ssh.folder.parent))
            server = SshServer(
                folder,
                ssh.public_key,
                pythons={"python3": python},
                shell=shell,
                prefix=hiding_pythons(python),
            )
            stack.enter_context(server)
            ssh.add("old", server)
            stack.callback(ssh.forget, "old")
            return server

        yield start


@hides
def test_uv_brings_a_python_once_and_all_lies_in_one_directory(
    new_old_host: NewOldHost, project: Project, tmp_path: Path
) -> None:
    server = new_old_host(shell="/bin/sh")
    serve_pythons(tmp_path, server.home)
    before = below(server.home)
    on = project.add("gpu", host="old")
    version, prefix = on(python)()
    assert version == sys.version_info[:2]
    state = server.home / ".local/share/remote_exec"
    assert Path(prefix).is_relative_to(state / "cache/python")
    assert [path.name for path in state.glob("cache/tools-v1/*/*")] == ["uv"]
    new = {path for path in below(server.home) - before if not path.startswith(".local/share/remote_exec")}
    assert new <= {".local", ".local/share"}
    let_go("gpu")
    (server.home / SETTINGS).write_text('python-downloads-json-url = "file:///nowhere"\n')  # for the next one
    assert on(python)() == (version, prefix)


@hides
def test_a_host_whose_uv_finds_no_python_either_says_which_there_are(
    new_old_host: NewOldHost, project: Project, tmp_path: Path
) -> None:
    server = new_old_host()
    serve_nothing(tmp_path, server.home)
    on = project.add("gpu", host="old", home="~/state of mine")
    told = (
        rf"old has no Python 3\.10 or newer; found: .*python3 \(Python 3\.8.*could not bring one:\n.*{MINOR}"
    )
    with pytest.raises(HostUnavailable, match=told) as caught:
        on(double)(1)
    assert "python-install-mirror" in caught.value.hint
    assert [path.name for path in (server.home / "state of mine").glob("cache/tools-v1/*/*")] == ["uv"]


@hides
def test_a_host_with_another_minor_gets_the_callers_or_says_what_is_missing(
    new_old_host: NewOldHost, project: Project, tmp_path: Path
) -> None:
    other, path = python_of(*(minor for minor in (12, 13, 10) if minor != sys.version_info[1]))
    script = tmp_path / "other"
    script.write_text(f'#!/bin/sh\nexec {path} "$@"\n')
    script.chmod(0o755)
    server = new_old_host(script)
    on = project.add("gpu", host="old")
    serve_nothing(tmp_path, server.home)
    with pytest.raises(RuntimeEnvironmentError, match=rf"has no Python {MINOR} .*found here: .*3\.{other}"):
        on(python)()
    serve_pythons(tmp_path, server.home)
    version, prefix = on(python)()
    assert version == sys.version_info[:2]
    assert Path(prefix).is_relative_to(server.home / ".local/share/remote_exec/cache/python")
