"""What holds for every test: a home of its own, and nothing left behind.

The session gets a home, a configuration and an agent of its own, so that no test can write to the real ones;
at its end the agent is stopped, and nothing that lived in that home may be alive. After each test, and after
the fixtures of each module, calls, jobs, leases, processes, descriptors, files and shared memory are compared
with those before it (`leftovers`).
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shutil
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from homes import FOLDERS
from leftovers import LINUX, Leftovers, processes_naming, until_empty

pytest_plugins = ["skips"]
STOP_SECONDS = 10.0
REAL_HOME = Path.home()
PARTS = ("cloudpickle", "uv", "hypothesis", "numpy", "pandas")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so shells start what they run in the background, ...
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ... and tests press Ctrl-C

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
def session_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Home, configuration, state and temporary files of all tests; its path is short, since sockets lie in it."""
    before = _places_at_home()
    tmp_path_factory.getbasetemp()  # it stays where it is: what a failed test made is looked at later
    root = Path(tempfile.mkdtemp(prefix="re-", dir="/tmp" if os.path.isdir("/tmp") else None))
    patch = pytest.MonkeyPatch()
    for variable, folder in {
        **FOLDERS,
        "TORCHINDUCTOR_CACHE_DIR": "cache/torch",  # else it is made, and stays, among the temporary files
        "REMOTE_EXEC_HOME": "state/remote_exec",
    }.items():
        (root / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        patch.setenv(variable, str(root / folder))
    patch.setattr(tempfile, "tempdir", None)  # it is asked for anew
    _keep_package_indexes(patch)
    for name in [
        name for name in os.environ if name.startswith("REMOTE_EXEC_") and name != "REMOTE_EXEC_HOME"
    ]:
        patch.delenv(name)
    try:
        yield root
        _stop_agent()
        leftover = until_empty(lambda: processes_naming(root), STOP_SECONDS)
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
            session = connections.session()
            session.ask("stop")
            session.close()
            session.abandon()
    connections.close()


def _places_at_home() -> set[Path]:
    """What a test would have made in the real home if it had found it; others may use these meanwhile."""
    places = (REAL_HOME / ".local/share/remote_exec", REAL_HOME / ".config/remote_exec")
    return {place for place in places if place.exists()}


@pytest.fixture
def nothing_held() -> Iterator[None]:
    """Folders of data that have come are held for as long as this process lives: here, for a test."""
    from remote_exec.client import trees

    yield
    for holder in trees._holders.values():
        holder.let_go()


# --- nothing left behind ---


@pytest.fixture(scope="module", autouse=LINUX)
def nothing_left_by_fixtures(session_home: Path) -> Iterator[Leftovers]:
    """Fail a module whose own fixtures leave something that was not there before them."""
    leftovers = Leftovers(session_home)
    yield leftovers
    _fail_if(leftovers.told())


@pytest.fixture(autouse=LINUX)
def nothing_left_behind(session_home: Path, nothing_left_by_fixtures: Leftovers) -> Iterator[None]:
    """Fail a test that leaves something that was not there before: its own fixtures are set up after this one."""
    leftovers = Leftovers(session_home)
    yield
    if told := leftovers.told():
        nothing_left_by_fixtures.forgive()
    _fail_if(told)


def _fail_if(told: list[str]) -> None:
    if told:
        pytest.fail("left behind:\n" + "\n".join(told), pytrace=False)
