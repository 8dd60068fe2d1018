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

NAME = "remote_exec_runtime"
PARTS = ("model", "wire", "serial", "worker", "agent")
STALE_SECONDS = 3600.0  # what was being unpacked for so long was left by a client that died


def files() -> Iterator[tuple[str, Path]]:
    """Yield (path below the runtime's package, file) of all that is carried, in a fixed order."""
    here = Path(__file__).parent.parent
    for part in PARTS:
        for path in sorted((here / part).rglob("*")):
            if path.suffix in (".py", ".sql"):
                yield path.relative_to(here).as_posix(), path
    found = find_spec("cloudpickle")
    assert found is not None  # noqa: S101 - a dependency of this package
    assert found.origin is not None  # noqa: S101
    for path in sorted(Path(found.origin).parent.glob("*.py")):
        yield f"cloudpickle/{path.name}", path


@cache
def digest() -> str:
    """Return 32 hexadecimal digits over all that is carried."""
    import hashlib

    whole = hashlib.sha256()
    for name, path in files():
        content = path.read_bytes()
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

    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
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
