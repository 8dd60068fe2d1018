"""What holds for every test: a home of its own, and nothing left behind.

The session gets a home, a configuration and an agent of its own, so that no test can write to the real ones;
at its end the agent is stopped, and nothing that lived in that home may be alive. After each test the
processes, descriptors, sockets and shared memory of this process are compared with those before it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import os
import platform
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import hypothesis
import pytest

LINUX = sys.platform == "linux"
GRACE_SECONDS = (
    2.0  # what ends by itself may take this long: the network of threads and processes is asynchronous
)
STOP_SECONDS = 10.0
SLACK_FILES = 0  # regular files and folders
SLACK_PIPES = 8  # a pool's first calls open some that stay
SLACK_OTHERS = 32  # sockets, memfds, polls: a new pool's channels stay for a while, to be warm
T = TypeVar("T")
REAL_HOME = Path.home()
PARTS = ("cloudpickle", "uv", "hypothesis", "numpy", "pandas")

hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
hypothesis.settings.register_profile("deep", deadline=None, max_examples=2000)
hypothesis.settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev")
)


def pytest_report_header() -> list[str]:
    """Say which real parts the tests ran against."""
    found = [f"python {platform.python_version()}", f"sqlite {sqlite3.sqlite_version}", platform.platform()]
    for part in PARTS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{part} {importlib.metadata.version(part)}")
    return ["real parts: " + ", ".join(found)]


# --- a home for the session ---


@pytest.fixture(scope="session", autouse=True)
def session_home() -> Iterator[Path]:
    """A home, configuration and state directory for all tests; its path is short, since sockets lie in it."""
    before = _places_at_home()
    root = Path(tempfile.mkdtemp(prefix="re-", dir="/tmp" if os.path.isdir("/tmp") else None))
    patch = pytest.MonkeyPatch()
    for variable, folder in {
        "HOME": "home",
        "XDG_CONFIG_HOME": "config",
        "XDG_DATA_HOME": "data",
        "XDG_STATE_HOME": "state",
        "XDG_CACHE_HOME": "cache",
        "XDG_RUNTIME_DIR": "run",
        "REMOTE_EXEC_HOME": "state/remote_exec",
    }.items():
        (root / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        patch.setenv(variable, str(root / folder))
    _keep_package_indexes(patch)
    for name in [
        name for name in os.environ if name.startswith("REMOTE_EXEC_") and name != "REMOTE_EXEC_HOME"
    ]:
        patch.delenv(name)
    try:
        yield root
        _stop_agent()
        leftover = _until_empty(lambda: _processes_naming(root), STOP_SECONDS)
        for pid in leftover:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert not leftover, f"processes outlived their agent: {leftover}"
        assert _places_at_home() == before, "a test wrote into the real home"
    finally:
        patch.undo()
        shutil.rmtree(root, ignore_errors=True)


def _keep_package_indexes(patch: pytest.MonkeyPatch) -> None:
    """The user's own package indexes stay those of pip and uv; only where they write is moved."""
    for variable, path in (
        ("PIP_CONFIG_FILE", REAL_HOME / ".config" / "pip" / "pip.conf"),
        ("UV_CONFIG_FILE", REAL_HOME / ".config" / "uv" / "uv.toml"),
    ):
        if variable not in os.environ and path.is_file():
            patch.setenv(variable, str(path))


def _stop_agent() -> None:
    if (
        "remote_exec.client.connections" not in sys.modules
        and not Path(os.environ["XDG_RUNTIME_DIR"], "remote_exec").is_dir()
    ):
        return
    from remote_exec.backends import local
    from remote_exec.client.connections import connections
    from remote_exec.errors import HostUnavailable
    from remote_exec.model.layout import Layout

    layout = Layout.of(os.environ)
    found = local.connect(layout)
    if found is not None:
        found.close()
        with contextlib.suppress(HostUnavailable):  # it may be gone before it has answered
            session = connections.session(layout)
            session.ask("stop")
            session.close()
            session.abandon()
    connections.close()


def _places_at_home() -> set[Path]:
    """What a test would have made in the real home if it had found it; others may use these meanwhile."""
    places = (REAL_HOME / ".local/share/remote_exec", REAL_HOME / ".config/remote_exec")
    return {place for place in places if place.exists()}


def _processes_naming(root: Path) -> dict[int, str]:
    """Return (pid: command line) of the processes whose environment or command line names a folder."""
    found: dict[int, str] = {}
    needle = os.fsencode(root) + b"/"
    for entry in os.listdir("/proc") if LINUX else ():
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            command = Path("/proc", entry, "cmdline").read_bytes()
            if b"resource_tracker" in command:  # multiprocessing's, which ends with this process
                continue
            if command and needle in command + b"\0" + Path("/proc", entry, "environ").read_bytes():
                found[int(entry)] = command.replace(b"\0", b" ").decode(errors="replace")[:200]
    return found


# --- nothing left behind by any test ---


@pytest.fixture(autouse=LINUX)
def nothing_left_behind(session_home: Path) -> Iterator[None]:
    """Fail a test after which something stays that was not there before."""
    children, descriptors = _children(), _descriptors()
    sockets, shared = _socket_files(session_home), _shared_memory()
    yield
    for what, find in (
        ("child processes", lambda: _children() - children),
        ("descriptors", lambda: _grown(descriptors, _descriptors())),
        ("socket files that nobody listens at", lambda: _unowned(_socket_files(session_home) - sockets)),
        ("shared memory", lambda: _ours(_shared_memory() - shared, session_home)),
    ):
        if find():  # almost never; then it is worth waiting for what ends by itself
            gc.collect()
            left = _until_empty(find, GRACE_SECONDS)
            if left:
                pytest.fail(f"left behind: {what}: {left}", pytrace=False)


def _until_empty(find: Callable[[], T], seconds: float) -> T:
    deadline = time.monotonic() + seconds
    while (found := find()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def _children() -> set[str]:
    """Return this process's children, as 'pid command', without the agent, which may outlive a test."""
    found: set[str] = set()
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):  # the thread has ended
            for pid in Path("/proc/self/task", task, "children").read_text().split():
                command = _command_of(pid)
                if command is None or "remote_exec_runtime.agent.early" in command:
                    continue
                if "resource_tracker" in command:  # multiprocessing's and loky's; they end with this process
                    continue
                found.add(f"{pid} {command}")
    return found


def _command_of(pid: str) -> str | None:
    """Return a child's command line; None for a session leader that has ended: an agent, unwaited for."""
    command = Path("/proc", pid, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    if command:
        return command[:200]
    fields = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()
    state, session = fields[0], fields[3]
    if state == "Z" and session == pid:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(int(pid), os.WNOHANG)
        return None
    return f"[{state}]"


def _descriptors() -> Counter[str]:
    found: Counter[str] = Counter()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{fd}")
            found[
                target if target.startswith("/") and not target.startswith("/memfd:") else _kind(target)
            ] += 1
    return found


def _kind(target: str) -> str:
    return "pipes" if target.startswith("pipe:") else "sockets, memfds and polls"


def _grown(before: Counter[str], after: Counter[str]) -> dict[str, int]:
    slack = {"pipes": SLACK_PIPES, "sockets, memfds and polls": SLACK_OTHERS}
    return {
        name: grown
        for name, grown in (after - before).items()
        if grown > slack.get(name, SLACK_FILES)
        and not name.startswith(("/dev/", "/proc/"))
        and "(deleted)" not in name
    }


def _socket_files(root: Path) -> set[str]:
    return {str(path) for path in (root / "run").glob("remote_exec/*/*")}


def _unowned(paths: set[str]) -> set[str]:
    if not paths:
        return paths
    listening = {line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines()[1:]}
    return {path for path in paths if path not in listening and os.path.exists(path)}


def _shared_memory() -> set[str]:
    return set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()


def _ours(names: set[str], root: Path) -> set[str]:
    """Return those which are not in the hands of some other program on this machine."""
    if not names:
        return names
    session = set(_processes_naming(root)) | {os.getpid()}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) not in session:
            with contextlib.suppress(OSError):
                maps = Path("/proc", entry, "maps").read_text()
                names = {name for name in names if f"/dev/shm/{name}" not in maps}
    return {name for name in names if os.path.exists(f"/dev/shm/{name}")}
