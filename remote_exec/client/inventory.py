"""The user's hosts other than this machine: those that were reached, and which of them a durable job lies on.

Below the client's own state directory, in the folder ``hosts``: for each host a file of JSON with its address, so that
any later process finds it again, and a file with a line for each job that was submitted to it. Both are notes, no
truth: what a host has, its agent knows. Written whole by renaming, under a lock, or appended to in one piece; any
number of processes may do so at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import field
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from ..backends.host import Host
from ..model.digests import digest_of
from ..model.errors import ProtocolError
from ..model.layout import Layout
from ..model.record import record
from ..wire.messages import from_plain, to_plain
from ..worker.private import make_private_folder

NOTED_SECONDS = 60.0  # a note of this age is as good as a new one
JOBS_BYTES = 1 << 20  # of the names that are kept for one host; the older half goes
_BACKENDS = __name__.partition(".")[0] + ".backends"


@record(kw_only=True)
class Known:
    """What is noted of a host.

    Attributes:
        key: of its files here.
        host: itself, ready to be reached.
        backend: what reaches it.
        reached_at: when an agent there was last reached; UTC, seconds since the epoch.
        home: its state directory there, as far as that is known.
        version: of its agent then.
        folders: where `remote-exec sync` has brought folders of this machine.
    """

    key: str
    host: Host
    backend: str
    reached_at: float = 0.0
    home: str = ""
    version: str = ""
    folders: Mapping[str, str] = field(default_factory=dict[str, str])


def key_of(host: Host) -> str:
    """Return the name of a host's files: short, the same in every process."""
    told = json.dumps([_kind_of(host), to_plain(host)], sort_keys=True)
    return digest_of(told)[:12]


# --- noting -----------------------------------------------------------------------------------------------------


def note_reached(host: Host, *, version: str) -> None:
    """Note that the agent of a host answers. That a note cannot be written is nobody's trouble."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        row = json.loads((_folder() / f"{key_of(host)}.json").read_text(encoding="utf-8"))
        if row.get("version") == version and 0 <= time.time() - row.get("reached_at", 0.0) < NOTED_SECONDS:
            return
    _change(host, lambda row: {**row, "reached_at": time.time(), "version": version})


def note_home(host: Host, home: str) -> None:
    """Note where a host's state directory is."""
    _change(host, lambda row: {**row, "home": home})


def note_folder(host: Host, here: str, there: str) -> None:
    """Note where a folder of this machine was brought to."""
    _change(host, lambda row: {**row, "folders": {**row.get("folders", {}), here: there}})


def note_job(host: Host, name: str) -> None:
    """Note that a job lies on a host."""
    with contextlib.suppress(OSError):
        file = _folder() / f"{key_of(host)}.jobs"
        make_private_folder(_folder())
        with open(file, "a", encoding="utf-8") as jobs:
            jobs.write(f"{name}\n")  # one write, at the end of the file
            size = jobs.tell()
        if size > JOBS_BYTES:
            with _locked():
                text = file.read_text(encoding="utf-8")
                _write(file, text[text.index("\n", len(text) // 2) + 1 :])


def forget(host: Host) -> None:
    """Remove a host's notes."""
    with _locked():
        for kind in ("json", "jobs"):
            (_folder() / f"{key_of(host)}.{kind}").unlink(missing_ok=True)


# --- looking ----------------------------------------------------------------------------------------------------


def known() -> list[Known]:
    """Return the hosts that are noted, the one last reached first. Those of a backend that is not here are left out."""
    found: list[Known] = []
    for file in _files("json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, ImportError, ProtocolError):
            row = json.loads(file.read_text(encoding="utf-8"))
            host = _host(row["kind"], row["host"])
            found.append(
                Known(
                    key=file.stem,
                    host=host,
                    backend=row["kind"].partition(".")[0],
                    reached_at=float(row.get("reached_at", 0.0)),
                    home=str(row.get("home", "")),
                    version=str(row.get("version", "")),
                    folders=dict(row.get("folders", {})),
                )
            )
    return sorted(found, key=lambda one: one.reached_at, reverse=True)


def find(host: Host) -> Known | None:
    """Return what is noted of a host."""
    key = key_of(host)
    return next((one for one in known() if one.key == key), None)


def host_of_job(name: str) -> Host | None:
    """Return the host that a job was submitted to, if that is noted; the one last reached if it is several."""
    line = f"\n{name}\n"
    for one in known():
        with contextlib.suppress(OSError):
            if line in "\n" + (_folder() / f"{one.key}.jobs").read_text(encoding="utf-8"):
                return one.host
    return None


def job_names(prefix: str) -> list[str]:
    """Return the names of noted jobs that begin so, for completion."""
    found: list[str] = []
    for file in _files("jobs"):
        with contextlib.suppress(OSError):
            found += [one for one in file.read_text("utf-8").splitlines() if one.startswith(prefix)]
    return found


# --- files ------------------------------------------------------------------------------------------------------


def _folder() -> Path:
    return Layout.of(os.environ).home / "hosts"


def _files(kind: str) -> list[Path]:
    return sorted(_folder().glob(f"[0-9a-f]*.{kind}"))


def _change(host: Host, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    with contextlib.suppress(OSError), _locked():
        file = _folder() / f"{key_of(host)}.json"
        row: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            row = json.loads(file.read_text(encoding="utf-8"))
        row |= {"kind": _kind_of(host), "host": to_plain(host)}
        _write(file, json.dumps(change(row), indent=1))


def _write(file: Path, text: str) -> None:
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)


@contextlib.contextmanager
def _locked() -> Generator[None, None, None]:
    make_private_folder(_folder())
    lock = os.open(_folder() / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _kind_of(host: Host) -> str:
    """Return a host's class, as its module below `backends` and its name."""
    cls = type(host)
    return f"{cls.__module__.removeprefix(_BACKENDS + '.')}.{cls.__name__}"


def _host(kind: str, fields: Any) -> Host:
    module, _, name = kind.rpartition(".")
    cls = getattr(import_module(f"{_BACKENDS}.{module}"), name)
    return cast("Host", from_plain(cls, fields))
