"""The carried runtime: the files of this installation that run on hosts, under one private name and one digest.

A runtime that is laid out is never changed: another version is another digest, and so another folder.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ..model.digests import digest_of
from ..model.layout import Layout
from ..worker.private import make_private_folder

NAME = "remote_exec_runtime"
PARTS = ("model", "wire", "serial", "session", "worker", "agent")
SETTLED_SECONDS = 2.0  # a file written later than that may be written again with the same stat
STALE_SECONDS = 3600.0  # what was being unpacked for so long was left by a client that died


def files() -> Iterator[tuple[str, Path]]:
    """Yield (path below the runtime's package, file) of all that is carried, in a fixed order."""
    for name, path in _carried():
        yield name, Path(path)


def _carried() -> Iterator[tuple[str, str]]:
    here = os.path.dirname(os.path.dirname(__file__))
    for part in PARTS:
        yield from sorted(_below(os.path.join(here, part), part))
    found = find_spec("cloudpickle")
    assert found is not None  # noqa: S101 - a dependency of this package
    assert found.origin is not None  # noqa: S101
    yield from sorted(_below(os.path.dirname(found.origin), "cloudpickle"))


def _below(folder: str, name: str) -> Iterator[tuple[str, str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith((".py", ".sql")):
                yield f"{name}/{entry.name}", entry.path
            elif entry.name != "__pycache__" and entry.is_dir():
                yield from _below(entry.path, f"{name}/{entry.name}")


@cache
def digest() -> str:
    """Return 32 hexadecimal digits over all that is carried.

    They are kept beside the runtimes, with the stats of the files: to read these is a good part of what a process
    that finds its agent running waits for.
    """
    stats = [(name, os.stat(path)) for name, path in _carried()]
    rows = [f"{name} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns} {s.st_ino}" for name, s in stats]
    files_now = digest_of("\n".join(rows))
    kept = Layout.of(os.environ).home / "cache" / "runtime-digest-v1"
    with contextlib.suppress(OSError, ValueError):
        of, known = kept.read_text().split()
        if of == files_now:
            return known
    made = _digest()
    if time.time() - max(s.st_ctime for _, s in stats) > SETTLED_SECONDS:
        with contextlib.suppress(OSError):
            make_private_folder(kept.parent)
            temporary = kept.with_suffix(f".{os.getpid()}")
            temporary.write_text(f"{files_now} {made}")
            temporary.replace(kept)
    return made


def _digest() -> str:
    import hashlib

    whole = hashlib.sha256()
    for name, path in _carried():
        content = Path(path).read_bytes()
        whole.update(f"{name}\0{len(content)}\0".encode())
        whole.update(content)
    return whole.hexdigest()[:32]


def unpack(folder: Path) -> Path:
    """Lay the runtime out below `folder`, once under its digest, with its bytecode written; return where it is.

    Several clients may do this at once: one's copy stays, the others' are thrown away. A client that dies here
    leaves nothing that anyone would take for a runtime.

    Args:
        folder: where the runtimes of all versions lie; made if need be.

    Returns:
        The folder to put onto ``sys.path``; the package in it is called ``remote_exec_runtime``.

    Raises:
        OSError: it cannot be written there.
    """
    place = folder / digest()
    if place.is_dir():
        with contextlib.suppress(OSError):
            os.utime(place)  # it is used, and stays: see `remote_exec.agent.housekeeping`
        return place
    import compileall
    import shutil
    import tempfile

    make_private_folder(folder)
    _remove_stale(folder)
    work = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=folder))
    try:
        package = work / NAME
        for name, path in files():
            target = package / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        (package / "__init__.py").write_text('"""The carried runtime of remote_exec."""\n')
        compileall.compile_dir(work, quiet=2, ddir=str(place))
        os.rename(work, place)
    except OSError:
        if not place.is_dir():
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)  # after the rename there is none
    return place


def _remove_stale(folder: Path) -> None:
    import shutil

    for work in folder.glob(".unpacking-*"):
        with contextlib.suppress(OSError):
            if time.time() - work.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(work, ignore_errors=True)
