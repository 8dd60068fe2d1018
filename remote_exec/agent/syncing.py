"""A folder of a client's machine on this host, for people: a working copy, which `remote-exec sync` brings up to date.

Its files are copies of the user's own, unlike a bundle's, which are links to blobs and must not be written to. What
was brought is noted beside it, so that only what differs is written, and only what was brought is removed: what
somebody made here stays.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..model.errors import ProtocolError
from ..worker.private import make_private_folder
from ..worker.unpacked import place_of
from .bundles import why_not


def bring(
    folder: Path, bundles: Path, digest: str, files: Sequence[Sequence[str]], *, name: str, origin: str
) -> dict[str, Any]:
    """Make a working copy the same as a bundle; return where it is, and how many files were written and removed.

    Args:
        folder: of all working copies.
        bundles: where bundles are unpacked, this one among them.
        digest: the bundle's.
        files: path and digest of each.
        name: what to call the copy; one of that name from elsewhere stays, and this is told apart from it.
        origin: the machine and folder that it comes from.

    Raises:
        ProtocolError: a name leads out of the folder.
        OSError: it cannot be written.
    """
    for path in (name, *(path for path, _ in files)):
        if reason := why_not(path):
            raise ProtocolError(f"the path {path[:200]!r} is refused: {reason}")
    make_private_folder(folder)
    note = _note_of(folder, name)
    if _read(note).get("origin", origin) != origin:
        name = f"{name}-{hashlib.sha256(origin.encode()).hexdigest()[:6]}"
        note = _note_of(folder, name)
    before: dict[str, list[Any]] = _read(note).get("files", {})
    root, source = folder / name, place_of(digest, bundles)
    root.mkdir(mode=0o700, exist_ok=True)
    after: dict[str, list[Any]] = {}
    written = 0
    for path, content in files:
        target = root / path
        if before.get(path) != [content, *_stamp(target)]:
            _copy(source / path, target)
            written += 1
        after[path] = [content, *_stamp(target)]
    removed = [path for path in before if path not in after]
    for path in removed:
        _remove(root, path)
    temporary = note.with_suffix(".new")
    temporary.write_text(json.dumps({"origin": origin, "files": after}), encoding="utf-8")
    temporary.replace(note)
    return {"folder": str(root), "written": written, "removed": len(removed)}


def _note_of(folder: Path, name: str) -> Path:
    return folder / f".{name}.json"


def _read(note: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
        return found
    return {}


def _stamp(path: Path) -> list[int]:
    """What tells whether a file was changed here since."""
    try:
        found = os.lstat(path)
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.new")
    shutil.copyfile(source, temporary)
    temporary.chmod(0o755 if os.access(source, os.X_OK) else 0o644)
    temporary.replace(target)


def _remove(root: Path, path: str) -> None:
    with contextlib.suppress(OSError):
        (root / path).unlink()
        for parent in (root / path).parents:
            if parent == root:
                return
            parent.rmdir()  # where that was all that lay in it
