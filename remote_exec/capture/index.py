"""Content digests by stat: the index that lets a folder be captured again without reading it again.

Like git's index: a file whose stat is as it was has the content it had. Unlike git's, "racily clean" is
judged for each entry when it is read. A stamp that is not yet older than the clock's tick does not vouch for
the content, since another write within that tick would leave the same stamp; such an entry is read again
until it has settled. One index belongs to one folder and lives in this process, with a copy on disk for the
next; losing either costs time, never correctness. An `Index` is used under its own lock.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..model.record import record
from ..worker.private import make_private_folder

if TYPE_CHECKING:
    from ..model.bundle import BundleFile

# marshal's own format may differ between minor versions
_FORMAT = f"1-{sys.version_info[0]}.{sys.version_info[1]}"
_SECOND_NS = 1_000_000_000
# kernels stamp files with a clock that lags by up to a tick of 10 ms
_TICK_NS = 20_000_000
# FAT keeps every second second, old NFS and HFS+ each one
_COARSE_TICK_NS = 2 * _SECOND_NS
# reading this much is worth a second thread
_PARALLEL_BYTES = 16 * 1024 * 1024
# writing a big index costs more than hashing this much again next time
_SPARE_BYTES = 4 * 1024 * 1024
_SPARE_ENTRIES = 50

# mtime_ns, ctime_ns, size, inode, mode
Stamp = tuple[int, int, int, int, int]


def stamp_of(stat: os.stat_result) -> Stamp:
    """What of a file's stat changes when its content does."""
    return (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino, stat.st_mode)


def stamp_now(path: str) -> Stamp | None:
    """The stamp of a file as it is; ``None`` where there is none."""
    try:
        return stamp_of(os.stat(path))
    except OSError:
        return None


def is_settled(stamp: Stamp, *, seen_ns: int) -> bool:
    """Whether a write after the time `seen_ns` would be bound to give another stamp than this one."""
    newest = max(stamp[0], stamp[1])
    tick = _TICK_NS if newest % _SECOND_NS else _COARSE_TICK_NS
    return newest + tick < seen_ns


@dataclass(slots=True)
class FileEntry:
    """What is known of one file. Once settled it is never changed: a changed file gets another entry."""

    stamp: Stamp = (0, 0, 0, 0, 0)
    # "sha256:…"; empty before it is known, and when the file cannot be read
    digest: str = ""
    settled: bool = False


@dataclass(slots=True)
class FolderEntry:
    """What a folder held, and what was decided about it, when its stamp was this. Replaced, never changed."""

    stamp: Stamp
    settled: bool
    # the key of the ignore rules that the decisions were made under
    rules: str
    has_ignore_file: bool
    files: dict[str, FileEntry]
    folders: tuple[str, ...]
    links: tuple[str, ...]
    # name -> why it stays
    left_out: dict[str, str]
    # the files' rows in a bundle, and the prefix that their paths have there; a memo, of settled files only
    rows: tuple[str, tuple[BundleFile, ...]] | None = None

    def with_files(self, files: dict[str, FileEntry]) -> FolderEntry:
        """The same folder, its files changed."""
        return FolderEntry(
            stamp=self.stamp,
            settled=self.settled,
            rules=self.rules,
            has_ignore_file=self.has_ignore_file,
            files=files,
            folders=self.folders,
            links=self.links,
            left_out=self.left_out,
        )


@record(frozen=False, kw_only=True)
class Index:
    """The folders below one folder, by their path relative to it ("" is the folder itself)."""

    # where the copy on disk is kept; ``None`` for an index of this process alone
    file: Path | None = None
    # what links to files inside point to, by the link's relative path; not kept on disk
    links: dict[str, FileEntry] = field(default_factory=dict[str, FileEntry])
    folders: dict[str, FolderEntry] = field(default_factory=dict[str, FolderEntry])
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    # what the copy on disk lacks
    _unsaved_bytes: int = 0
    _unsaved_entries: int = 0

    def hash_files(self, entries: Iterable[tuple[str, FileEntry]]) -> None:
        """Read files, given by absolute path, and fill in their entries; unreadable ones get no digest."""
        pending = list(entries)
        total = sum(entry.stamp[2] for _, entry in pending)
        if total > _PARALLEL_BYTES and len(pending) > 1:
            with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
                list(pool.map(hash_file, *zip(*pending, strict=True)))
        else:
            for path, entry in pending:
                hash_file(path, entry)
        self._unsaved_bytes += total
        self._unsaved_entries += len(pending)

    def remember_folder(self, path: str, entry: FolderEntry) -> None:
        """Keep what a folder held."""
        self.folders[path] = entry
        self._unsaved_entries += 1

    def save(self) -> None:
        """Write the copy on disk, if what it lacks is worth it. Failure to write is no failure."""
        spare = self._unsaved_entries <= _SPARE_ENTRIES and self._unsaved_bytes <= _SPARE_BYTES
        if self.file is None or (spare and self.file.exists()):
            return
        folders = {path: _row_of_folder(entry) for path, entry in self.folders.items()}
        # marshal reads twice as fast as json, but only what it wrote itself: hence the digest
        body = marshal.dumps(folders)
        with suppress(OSError):
            _write_atomically(self.file, hashlib.sha256(body).digest() + body)
            self._unsaved_bytes = self._unsaved_entries = 0


def hash_file(path: str, entry: FileEntry) -> None:
    """Read one file and fill in its entry. One that is being written meanwhile stays unsettled."""
    seen_ns = time.time_ns()
    try:
        # no waiting for a writer if the file has become a pipe since it was looked at
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0) as file:
            before = stamp_of(os.fstat(descriptor))
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            after = stamp_of(os.fstat(descriptor))
    except OSError:
        entry.digest = ""
        return
    entry.digest = f"sha256:{digest}"
    entry.stamp = after
    entry.settled = before == after and is_settled(after, seen_ns=seen_ns)


def _write_atomically(path: Path, content: bytes) -> None:
    import tempfile

    make_private_folder(path.parent)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".index-")
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


# one for each (cache folder, folder) that this process has captured
_open_indexes: dict[tuple[str, str], Index] = {}
_opening = threading.Lock()


def open_index(cache_dir: Path | None, folder: str) -> Index:
    """The index of a folder, from this process, else from disk, else empty.

    Args:
        cache_dir: folder for the copies on disk; ``None`` keeps none.
        folder: the absolute folder that is captured.
    """
    key = (str(cache_dir), folder)
    with _opening:
        index = _open_indexes.get(key)
        if index is None:
            name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]
            file = cache_dir / "index" / f"{name}.{_FORMAT}" if cache_dir is not None else None
            index = _open_indexes[key] = _load(file)
        return index


def _load(file: Path | None) -> Index:
    index = Index(file=file)
    if file is None:
        return index
    try:
        content = file.read_bytes()
        digest, body = content[:32], content[32:]
        if hashlib.sha256(body).digest() != digest:
            return index
        rows: dict[str, Any] = marshal.loads(body)  # noqa: S302 - it has just been seen to be what was written
        folders = {path: _folder_of_row(*row) for path, row in rows.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        # none yet, or one torn or strange: begin anew
        return index
    index.folders = folders
    return index


def _row_of_folder(entry: FolderEntry) -> tuple[Any, ...]:
    files = {name: (file.stamp, file.digest, file.settled) for name, file in entry.files.items()}
    about = (entry.stamp, entry.settled, entry.rules, entry.has_ignore_file)
    return (*about, files, entry.folders, entry.links, entry.left_out)


def _folder_of_row(stamp: list[int], settled: bool, rules: str, *rest: Any) -> FolderEntry:
    has_ignore_file, files, folders, links, left_out = rest
    return FolderEntry(
        stamp=_stamp_of_row(stamp),
        settled=settled,
        rules=rules,
        has_ignore_file=has_ignore_file,
        files={name: FileEntry(_stamp_of_row(row[0]), row[1], row[2]) for name, row in files.items()},
        folders=tuple(folders),
        links=tuple(links),
        left_out=dict(left_out),
    )


def _stamp_of_row(row: list[int]) -> Stamp:
    mtime_ns, ctime_ns, size, inode, mode = row
    return (mtime_ns, ctime_ns, size, inode, mode)
