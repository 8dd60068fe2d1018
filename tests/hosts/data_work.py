"""What runs on hosts in the tests of folders."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from remote_exec import Dir


def turn_over(folder: Path) -> Dir:
    """Return a folder of the same files, each turned over."""
    out = Path(tempfile.mkdtemp()) / "out"
    shutil.copytree(folder, out, symlinks=True)
    for path in (out / "big", out / "deep" / "small"):
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[::-1])
    return Dir(out)


def size_of(folder: Path) -> int:
    """Return the size of its one big file."""
    return (folder / "big").stat().st_size
