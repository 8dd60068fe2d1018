"""From a folder or file of the user's to the tree that travels; what has not changed is not read again (`index`).

Unlike a bundle, a tree is exactly what is there: nothing is left out.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from ..model.bundle import BundleFile
from ..model.record import record
from ..model.tree import Tree
from ..worker.folders import Found, look, refusal
from .index import FileEntry, FolderEntry, Index, Stamp, open_index, stamp_of

_NO_STAMP: Stamp = (0, 0, 0, 0, 0)


@record(kw_only=True)
class Source:
    """A tree, and where its files lie.

    Attributes:
        root: the folder or file.
        name: its name.
        tree: its manifest.
        files: path in the tree, absolute path.
    """

    root: str
    name: str
    tree: Tree
    files: tuple[tuple[str, str], ...]

    @cached_property
    def paths(self) -> dict[str, str]:
        """Digest -> the path of a file with that content."""
        return {file.digest: path for file, (_, path) in zip(self.tree.files, self.files, strict=True)}

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Digest -> how many bytes."""
        return {file.digest: file.size for file in self.tree.files}


_found: dict[str, tuple[Found, list[FileEntry], Source]] = {}  # by root, as it was the last time
FOUND_KEPT = 256


def find(path: Path, *, cache_dir: Path | None) -> Source:
    """Return the tree of a folder or file, as it is now.

    Args:
        path: where it is.
        cache_dir: folder that keeps digests from one process to the next; ``None`` keeps none.

    Raises:
        SerializationError: it is not there, cannot be read, or something in it cannot travel.
    """
    root = os.path.abspath(path)
    found = look(root)
    index = open_index(cache_dir, root)
    with index.lock:
        entries = _entries(found, index)
        last = _found.get(root)
        if (
            last is not None
            and last[1] == entries
            and last[0].folders == found.folders
            and last[0].links == found.links
        ):
            return last[2]
        index.hash_files(
            (file.source, entry) for file, entry in zip(found.files, entries, strict=True) if not entry.digest
        )
        index.save()
    unread = next((f.source for f, entry in zip(found.files, entries, strict=True) if not entry.digest), None)
    if unread is not None:
        raise refusal(unread, "it cannot be read by this user")
    source = _source(root, found, entries)
    while len(_found) >= FOUND_KEPT:
        _found.pop(next(iter(_found)), None)
    _found[root] = (found, entries, source)
    return source


def _entries(found: Found, index: Index) -> list[FileEntry]:
    """What is known of each file; the digests of those that have changed are to be found out."""
    entries: list[FileEntry] = []
    folders: dict[str, dict[str, FileEntry]] = {}
    for file in found.files:
        folder, _, name = file.path.rpartition("/")
        stamp = stamp_of(file.stat)
        before = index.folders.get(folder)
        known = before.files.get(name) if before is not None else None
        if known is None or known.stamp != stamp or not known.settled:
            known = FileEntry(stamp)
        folders.setdefault(folder, {})[name] = known
        entries.append(known)
    index.folders = {
        folder: FolderEntry(
            stamp=_NO_STAMP,
            settled=False,
            rules="",
            has_ignore_file=False,
            files=files,
            folders=(),
            links=(),
            left_out={},
        )
        for folder, files in folders.items()
    }
    return entries


def _source(root: str, found: Found, entries: list[FileEntry]) -> Source:
    rows = sorted(zip(found.files, entries, strict=True), key=lambda row: row[0].path)
    files = tuple(
        BundleFile(path=file.path, digest=entry.digest, size=entry.stamp[2], executable=file.executable)
        for file, entry in rows
    )
    tree = Tree(files=files, folders=tuple(sorted(found.folders)), links=tuple(sorted(found.links)))
    return Source(
        root=root, name=found.name, tree=tree, files=tuple((file.path, file.source) for file, _ in rows)
    )
