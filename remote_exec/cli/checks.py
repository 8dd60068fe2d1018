"""What `remote-exec doctor` looks at, in the order in which one thing needs another."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from ..worker.private import make_private_folder
from .host import layout, session

LEAST_FREE_BYTES = 1_000_000_000
UV_SECONDS = 20


class Check(NamedTuple):
    """One check: `status` is ok, wrong or skipped; `fix` is empty unless it is wrong."""

    name: str
    status: str
    found: str
    fix: str = ""


class Wrong(Exception):  # noqa: N818 - a finding
    """What a check raises: what was found, and what to do."""

    def __init__(self, found: str, *, fix: str) -> None:
        super().__init__(found)
        self.fix = fix


class Step(NamedTuple):
    """A check to be carried out: it returns what was found, or raises `Wrong`, if those that it needs are ok."""

    name: str
    check: Callable[[], str]
    needs: tuple[str, ...] = ()


def examine() -> list[Check]:
    """Carry out the checks of this machine."""
    return carry_out(_CHECKS)


def carry_out(steps: Iterable[Step]) -> list[Check]:
    """Carry out checks; once one that others need is wrong, those are skipped."""
    results: list[Check] = []
    for name, check, needs in steps:
        lacking = [one.name for one in results if one.name in needs and one.status != "ok"]
        if lacking:
            results.append(Check(name, "skipped", f"needs: {', '.join(lacking)}"))
            continue
        try:
            results.append(Check(name, "ok", check()))
        except Wrong as wrong:
            results.append(Check(name, "wrong", str(wrong), wrong.fix))
        except Exception as error:
            fix = getattr(error, "hint", "") or f"see {layout().agent_log}"
            text = getattr(error, "message", "") or f"{type(error).__name__}: {error}"
            results.append(Check(name, "wrong", text, fix))
    return results


def _python() -> str:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < (3, 11):  # noqa: UP036 - that is what is asked
        raise Wrong(f"Python {found} is too old", fix="use Python 3.11 or newer")
    if sys.implementation.name != "cpython":
        raise Wrong(f"{sys.implementation.name} cannot run it", fix="use CPython")
    return f"{found}, {sys.executable}"


def _uv() -> str:
    import subprocess

    from ..client.target import find_uv

    try:
        path = find_uv()
        told = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=UV_SECONDS, check=True
        )
    except (OSError, ImportError, subprocess.SubprocessError) as error:
        raise Wrong(
            f"uv cannot be run: {error}", fix=f"{sys.executable} -m pip install --force-reinstall uv"
        ) from None
    return f"{told.stdout.strip()}, {path}"


def _configuration() -> str:
    from ..config import load_config
    from ..model.errors import ConfigurationError

    try:
        config = load_config()
    except ConfigurationError as error:
        raise Wrong(error.message, fix=error.hint or "correct or remove that setting") from None
    return f"{len(config.files)} files read" + "".join(f"; {sentence}" for sentence in config.notes)


def _home() -> str:
    home = layout().home
    fix = "set REMOTE_EXEC_HOME to a directory of your own on a local disk"
    try:
        make_private_folder(home)
        probe = home / f".doctor-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise Wrong(f"{home} cannot be written to: {error.strerror}", fix=fix) from None
    if home.stat().st_uid != os.getuid():
        raise Wrong(f"{home} belongs to another user", fix=fix)
    return str(home)


def _disk() -> str:
    from ..agent.database import why_not_local

    home = layout().home
    reason = why_not_local(home)
    if reason is not None:
        raise Wrong(reason, fix="set REMOTE_EXEC_HOME to a directory on a local disk")
    free = shutil.disk_usage(home).free
    if free < LEAST_FREE_BYTES:
        raise Wrong(f"only {free / 1e9:.1f} GB are free at {home}", fix="remote-exec cache prune")
    return f"local, {free / 1e9:.0f} GB free"


def _sockets() -> str:
    folder = layout().sockets
    for place in (folder.parent, folder):
        if place.exists():
            _private(place)
    if not folder.exists() and not os.access(_existing(folder), os.W_OK):
        raise Wrong(f"{folder} cannot be made", fix="set XDG_RUNTIME_DIR to a directory of your own")
    return str(folder)


def _private(folder: Path) -> None:
    found = folder.stat()
    if found.st_uid != os.getuid():
        raise Wrong(f"{folder} belongs to another user", fix="set XDG_RUNTIME_DIR to a directory of your own")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise Wrong(f"{folder} is open to others ({stat.filemode(found.st_mode)})", fix=f"chmod 700 {folder}")


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if place.exists())


def _sqlite() -> str:
    import sqlite3

    if sqlite3.sqlite_version_info < (3, 35):
        raise Wrong(
            f"SQLite {sqlite3.sqlite_version} is too old for the journal",
            fix="use a Python with SQLite 3.35 or newer: uv python install 3.12",
        )
    return sqlite3.sqlite_version


def _journal() -> str:
    from ..client.kept import OlderJournal, Reader

    path = layout().journal
    try:
        ((count,),) = Reader(layout()).read("SELECT count(*) FROM jobs")
    except OlderJournal:
        return "of an older version; the agent brings it up to date"
    except Exception as error:
        raise Wrong(
            getattr(error, "message", "") or f"{path} is damaged: {error}",
            fix=f"move {path} away: its jobs are forgotten",
        ) from None
    return f"{count} jobs and calls" if path.exists() else "there is none yet"


def _agent() -> str:
    from ..backends import runtime
    from ..version import VERSION

    _stuck()
    begun = time.perf_counter()
    welcome = session(start=True).welcome
    seconds = time.perf_counter() - begun
    found = f"process {welcome.pid}, version {welcome.version}, reached in {seconds * 1000:.0f} ms"
    if (welcome.version, welcome.runtime) != (VERSION, runtime.digest()):
        found += f"; this is {VERSION}, of another build: an older agent gives way when it is idle"
    return found


def _stuck() -> None:
    """Say at once what would else be waited for."""
    from ..client.looking import listening_pid, process_state

    pid = listening_pid()
    if process_state(pid) == "T":
        raise Wrong(f"the agent (process {pid}) is stopped", fix=f"kill -CONT {pid}")
    holder = 0 if pid else lock_holder(layout().agent_lock)
    if holder:
        raise Wrong(
            f"process {holder} is the agent, but does not listen at {layout().agent_socket}",
            fix=f"wait ten seconds, and if that is no help: kill {holder}",
        )


def lock_holder(lock: Path) -> int:
    """Return the process that says it holds an agent's lock, if somebody holds it; else 0."""
    import fcntl

    try:
        with open(lock) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.readline() or 0)
    except (OSError, ValueError):
        pass
    return 0


def _versions() -> str:
    from importlib.metadata import PackageNotFoundError, version

    found: list[str] = []
    for name in ("remote_exec", "cloudpickle", "click", "rich"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            raise Wrong(
                f"{name} is not installed here, though it is needed",
                fix=f"{sys.executable} -m pip install {name}",
            ) from None
    return ", ".join(found)


def _call() -> str:
    from ..function import RemoteFunction
    from ..options import Options, Origin

    function = RemoteFunction(os.getpid, Options.from_keywords(Origin.CALL, instance_type="local"))
    begun = time.perf_counter()
    pid = function()
    first = time.perf_counter() - begun
    if pid == os.getpid():
        raise Wrong("a remote call ran in this very process", fix="report this as a bug")
    times: list[float] = []
    for _ in range(20):
        begun = time.perf_counter()
        function()
        times.append(time.perf_counter() - begun)
    return f"first in {first * 1000:.0f} ms, then {sorted(times)[10] * 1e6:.0f} µs each"


def _gpus() -> str:
    from ..agent.devices import detect

    found = detect()
    if not found and Path("/dev/nvidiactl").exists():
        raise Wrong(
            "there is an NVIDIA device, but NVML finds no GPU that may be used",
            fix="nvidia-smi must work; and CUDA_VISIBLE_DEVICES must name what it shows, or be unset",
        )
    return ", ".join(gpu.name for gpu in found) or "none"


_CHECKS = (
    Step("Python", _python),
    Step("versions", _versions),
    Step("uv", _uv),
    Step("configuration", _configuration),
    Step("home", _home),
    Step("disk", _disk, needs=("home",)),
    Step("sockets", _sockets),
    Step("SQLite", _sqlite),
    Step("journal", _journal, needs=("disk", "SQLite")),
    Step("GPUs", _gpus),
    Step("agent", _agent, needs=("Python", "versions", "disk", "sockets", "journal")),
    Step("test call", _call, needs=("configuration", "agent")),
)
