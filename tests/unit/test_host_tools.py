"""What a host that is not this machine needs to build environments: uv, found there, sent, or got by its pip."""

from __future__ import annotations

import dataclasses
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from host_work import tell

from remote_exec.agent import tools
from remote_exec.agent.platforms import this_platform
from remote_exec.backends import local
from remote_exec.backends.uv import own_uv, own_version, uv_for
from remote_exec.capture.dependencies import resolve
from remote_exec.capture.function import FunctionCapture
from remote_exec.client import host_tools
from remote_exec.client.caller import sent_of
from remote_exec.client.calls import Call
from remote_exec.client.connections import connections
from remote_exec.client.host_tools import ensure_uv, platform_of
from remote_exec.client.session import Session
from remote_exec.client.target import find_place
from remote_exec.errors import RuntimeEnvironmentError
from remote_exec.model.environment import EnvironmentKind, EnvironmentSpec
from remote_exec.model.platform import Platform
from remote_exec.options import Options
from remote_exec.serial import pickling

SECONDS = 30.0
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
X86_64, AARCH64 = 62, 183  # as ELF numbers machines
INTERPRETER_SEGMENT = 3  # which names the dynamic loader
OTHER_MACHINE = "aarch64" if this_platform().machine == "x86_64" else "x86_64"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "remote_exec" / "tools"


def elf_of(path: Path) -> tuple[int, bool]:
    """Return a program's machine, and whether it is linked statically."""
    with path.open("rb") as file:
        head = file.read(64)
        machine, segments, size, count = (
            struct.unpack_from(f"<{kind}", head, at)[0]
            for kind, at in (("H", 18), ("Q", 32), ("H", 54), ("H", 56))
        )
        assert head[:5] == b"\x7fELF\x02"
        file.seek(segments)
        kinds = {struct.unpack("<I", file.read(size)[:4])[0] for _ in range(count)}
    return machine, INTERPRETER_SEGMENT not in kinds


# ── on the client ───────────────────────────────────────────────────────────────────────────────────────────


def test_builds_for_other_hosts_are_got_once_and_run_with_any_c_library(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hosts = {
        Platform("linux", "aarch64", "glibc", "2.5"): AARCH64,
        Platform("linux", "aarch64", "musl", "1.0"): AARCH64,
        Platform("linux", "x86_64", "glibc", "2.5"): X86_64,
        Platform("linux", "x86_64", "musl", "1.0"): X86_64,
    }
    with ThreadPoolExecutor(len(hosts)) as pool:
        found = dict(zip(hosts, pool.map(uv_for, hosts), strict=True))
    assert {host: elf_of(path) for host, path in found.items()} == {
        host: (machine, True) for host, machine in hosts.items()
    }
    assert sorted(cache.iterdir()) == sorted(set(found.values()))
    for name, value in {"UV_OFFLINE": "1", "UV_CACHE_DIR": str(tmp_path / "empty")}.items():
        monkeypatch.setenv(name, value)
    assert {host: uv_for(host) for host in hosts} == found


@pytest.mark.usefixtures("cache")
def test_this_platforms_own_build_serves_hosts_that_it_runs_on() -> None:
    here = this_platform()
    assert uv_for(here) == own_uv()
    assert uv_for(dataclasses.replace(here, version="2.99")) == own_uv()


def test_a_build_that_cannot_be_had_says_what_to_do_on_the_host(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {"UV_OFFLINE": "1", "UV_CACHE_DIR": str(tmp_path / "empty")}.items():
        monkeypatch.setenv(name, value)
    for host, words in (
        (Platform("linux", OTHER_MACHINE, "glibc", "2.36"), "could not be got from the package index"),
        (Platform("linux", "s390x", "glibc", "2.36"), "no build of uv for linux s390x"),
    ):
        with pytest.raises(RuntimeEnvironmentError, match=words) as caught:
            uv_for(host)
        assert "install uv on the host" in caught.value.hint
    assert not list(cache.iterdir())


# ── on the host ─────────────────────────────────────────────────────────────────────────────────────────────


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_a_host_uses_its_own_uv_unless_that_is_too_old(tmp_path: Path) -> None:
    environ = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "HOME": str(tmp_path / "home")}
    folder = tmp_path / "tools"
    assert tools.find_uv(folder, environ) is None
    for version in ("0.9.0", "0.10.0"):
        program(folder / f"uv-{version}-00" / "uv", f"echo uv {version}")
    found = tools.find_uv(folder, environ)
    assert found is not None
    assert (found.path.parent.name, found.version) == ("uv-0.10.0-00", "0.10.0")
    program(tmp_path / "bin" / "uv", "echo uv 0.4.30")
    assert tools.find_uv(folder, environ) == found
    theirs = program(tmp_path / "home" / ".local" / "bin" / "uv", "echo 'uv 0.6.1 (abc 2025-01-01)'")
    assert tools.find_uv(folder, environ) == tools.Uv(theirs, "0.6.1")
    assert tools.prune(folder, used_before=found.path.parent.stat().st_mtime + 1) == 2


def test_only_what_runs_is_taken_in_and_under_a_name_of_our_making(tmp_path: Path) -> None:
    folder, digest = tmp_path / "tools", "sha256:" + "0" * 64

    def link(path: Path) -> None:
        program(path, "echo no such loader >&2; exit 127")

    with pytest.raises(RuntimeEnvironmentError, match=r"does not run on this host: .*no such loader"):
        tools.take_in(folder, "1.0", digest, link)
    for version, named in (("../1.0", digest), ("1.0", "sha256:../../x"), ("", digest)):
        with pytest.raises(ValueError, match="named by"):
            tools.take_in(folder, version, named, link)
    assert not list(folder.iterdir())


# ── through an agent ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """With an agent that finds no uv, as on a host where nothing is installed; the client has its own."""
    monkeypatch.setenv("REMOTE_EXEC_HOME", str(tmp_path / "state"))
    host = local.here()
    with monkeypatch.context() as there:
        there.setenv("HOME", str(tmp_path))
        there.setenv("PATH", "/usr/bin:/bin")
        found = connections.session(host)
    yield found
    for (where, _), dispatcher in list(connections._dispatchers.items()):
        if where == host:
            connections.drop(dispatcher)
    found.ask("stop")
    deadline = time.monotonic() + SECONDS
    while not found.lost:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ensure(session: Session, environment: EnvironmentSpec) -> str:
    with connections.watch("uv", "test") as span:
        return ensure_uv(session, environment, span)


def call_as_elsewhere(function: Callable[[], Any], environment: EnvironmentSpec, session: Session) -> Any:
    """Call a function as on a host that is not this machine: in its own variables, by its own uv."""
    found = FunctionCapture(function, name="test", options=Options()).current()
    place = find_place(found, Options())
    pool = dataclasses.replace(place.request["pool"], environment=environment, variables={}, inherit=True)
    request = place.request | {"pool": pool, "uv": ensure(session, environment)}
    dispatcher = connections.dispatcher(place.host, pool.key, request, max_workers=1)
    return dispatcher.run(Call(sent_of("test", found, place), pickling.dump_arguments((), {})))


def test_a_host_tells_its_platform_and_its_pythons(session: Session) -> None:
    assert platform_of(session) == this_platform()
    assert HERE in session.ask("platform", {"pythons": True})["pythons"]


def test_a_function_without_requirements_needs_no_uv_on_a_host_with_its_python(
    session: Session, tmp_path: Path
) -> None:
    environment = resolve(None, third_party={}, here=False, python=HERE, base_folder=tmp_path).spec
    assert ensure(session, environment) == ""
    executable, prefix, _ = call_as_elsewhere(tell, environment, session)
    assert Path(executable).resolve() == Path(sys.executable).resolve()
    assert prefix == sys.base_prefix
    cache = Path(os.environ["REMOTE_EXEC_HOME"], "cache")
    assert not (cache / "tools-v1").exists()
    assert not (cache / "environments-v1").exists()


def test_uv_is_sent_once_and_builds_all_within_the_agents_folder(session: Session) -> None:
    environment = EnvironmentSpec(kind=EnvironmentKind.UV, python=HERE, requirements=("six",))
    path = Path(ensure(session, environment))
    home = Path(os.environ["REMOTE_EXEC_HOME"])
    assert path.parent.parent == home / "cache" / "tools-v1"
    assert path.parent.name.startswith(f"uv-{own_version()}-")
    assert path.read_bytes() == own_uv().read_bytes()
    _, prefix, installed = call_as_elsewhere(tell, environment, session)
    assert Path(prefix).is_relative_to(home)
    assert "six" in installed
    before, cache = path.stat().st_ino, home / "cache" / "uv"
    assert tools.bound_cache(cache, path.parent.parent, limit_bytes=1 << 40) is False
    assert list(cache.glob("archive-*"))
    assert tools.bound_cache(cache, path.parent.parent, limit_bytes=-1) is True
    assert not list(cache.glob("archive-*"))
    assert call_as_elsewhere(tell, environment, session)[1] == prefix
    host_tools._brought.clear()  # as another client
    assert (ensure(session, environment), path.stat().st_ino) == (str(path), before)


def test_a_host_whose_client_has_no_build_asks_its_own_pip(session: Session) -> None:
    told = session.ask("install_tool", {"name": "uv", "version": own_version(), "digest": ""})
    done = subprocess.run([told["path"], "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("uv ")
    unknown = session.ask("install_tool", {"name": "uv", "version": "1.0", "digest": "sha256:" + "0" * 64})
    assert (unknown["path"], "missing" in unknown["reason"]) == ("", True)


def test_a_host_without_the_callers_python_says_which_it_has(session: Session) -> None:
    assert session.ask("tools", {"python": "3.19"})["python"] is False
    missing = EnvironmentSpec(kind=EnvironmentKind.INTERPRETER, python="3.19")
    with pytest.raises(RuntimeEnvironmentError, match=rf"no Python 3\.19 .*found here: .*{HERE}") as caught:
        call_as_elsewhere(tell, missing, session)
    assert caught.value.hint == "install Python 3.19 on the host, or call from one that it has"
