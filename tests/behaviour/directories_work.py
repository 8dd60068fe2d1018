"""Functions of the tests about folders, in a module that workers can import."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remote_exec import Dir, remote

BIG = 20_000_000  # bytes: several pieces


def content(folder: Path) -> dict[str, Any]:
    """Return all that is in a folder: what files hold, where links lead, and which may be run."""
    found: dict[str, Any] = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        elif path.is_dir():
            found[name] = "folder"
        else:
            found[name] = (path.read_bytes(), bool(path.stat().st_mode & stat.S_IXUSR))
    return found


remote_content = remote(content)


@remote
def names_in(folders: Any) -> Any:
    if isinstance(folders, dict):
        return {key: names_in.local(one) for key, one in folders.items()}
    if isinstance(folders, list):
        return [names_in.local(one) for one in folders]
    folder = folders.folder if isinstance(folders, Given) else folders
    return type(folder).__name__, folder.name, sorted(os.listdir(folder))


@dataclass
class Given:
    folder: Path


@remote
def read_text(path: Path) -> str:
    return path.read_text()


@remote
def leave(folder: Path) -> dict[str, Any]:
    out = folder / "out"
    (out / "empty").mkdir(parents=True)
    (out / "tool").write_text("#!/bin/sh\n")
    (out / "tool").chmod(0o755)
    (out / "link").symlink_to("tool")
    (out / "big").write_bytes(os.urandom(1000) * (BIG // 1000))
    return {"all": Dir(out), "one": [Dir(out / "tool")]}
