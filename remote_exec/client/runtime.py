"""The carried runtime: the files of this installation that run on hosts, under one private name and one digest."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

NAME = "remote_exec_runtime"
PARTS = ("model", "wire", "serial", "worker", "agent")


def files() -> Iterator[tuple[str, Path]]:
    """Yield (path below the runtime's package, file) of all that is carried, in a fixed order."""
    here = Path(__file__).parent.parent
    for part in PARTS:
        for path in sorted((here / part).rglob("*")):
            if path.suffix in (".py", ".sql"):
                yield path.relative_to(here).as_posix(), path
    found = find_spec("cloudpickle")
    assert found is not None and found.origin is not None  # noqa: S101 - a dependency of this package
    for path in sorted(Path(found.origin).parent.glob("*.py")):
        yield f"cloudpickle/{path.name}", path


@cache
def digest() -> str:
    """Return 32 hexadecimal digits over all that is carried."""
    whole = hashlib.sha256()
    for name, path in files():
        content = path.read_bytes()
        whole.update(f"{name}\0{len(content)}\0".encode())
        whole.update(content)
    return whole.hexdigest()[:32]


def unpack(folder: Path) -> Path:
    """Lay the runtime out below `folder`, once under its digest, with its bytecode written; return where it is.

    The folder returned goes onto ``sys.path``. Two clients may do this at once: one's copy is thrown away.
    """
    place = folder / digest()
    if place.is_dir():
        return place
    import compileall

    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
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
        shutil.rmtree(work, ignore_errors=True)
        if not place.is_dir():
            raise
    return place
