"""File operations that a crash between any two of them leaves whole or undone. Standard library, no state."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Union

CHUNK_BYTES = 1 << 20
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})  # that a disk, or a user's share of it, is full
StrPath = Union[str, "os.PathLike[str]"]


def read_chunks(path: StrPath) -> Iterator[bytes]:
    """Yield a file's content in chunks of a megabyte."""
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of some bytes, however often the kernel takes only a part."""
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(descriptor, view) :]


def copy(
    source: StrPath, target: StrPath, *, mode: int, replace: bool, temporary_in: StrPath | None = None
) -> None:
    """Copy by way of a temporary file, so that the target is whole or not there.

    Args:
        source: the file to copy.
        target: where to; on the temporary file's file system.
        mode: the copy's permissions.
        replace: whether a target that exists is replaced, else `FileExistsError`.
        temporary_in: the temporary file's folder; the target's unless given.
    """
    temporary = os.path.join(temporary_in or os.path.dirname(target), f".{secrets.token_hex(8)}.tmp")
    try:
        with open(source, "rb") as reader, open(temporary, "xb") as writer:
            shutil.copyfileobj(reader, writer, CHUNK_BYTES)
            os.fchmod(writer.fileno(), mode)
        if not replace and os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(target))
        os.rename(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def sync_folder(folder: StrPath) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def scan(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield a folder's regular files; one that goes meanwhile, or a folder that is missing, is left out."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if entry.is_file(follow_symlinks=False):
                    yield Path(entry.path), entry.stat(follow_symlinks=False)


def same_file(descriptor: int, path: StrPath) -> bool:
    """Tell whether an open file is still the one at a path: what to ask after a lock was waited for."""
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_ino, here.st_dev) == (there.st_ino, there.st_dev)


def remove_abandoned(path: Path) -> None:
    """Remove an unfinished file, unless a process holds its lock."""
    with contextlib.suppress(FileNotFoundError, BlockingIOError), open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if same_file(file.fileno(), path):
            os.unlink(path)


def remove_folder(path: StrPath) -> None:
    """Remove a folder with all that is in it, read-only folders too; what cannot be removed stays."""
    for parent, folders, _ in os.walk(path):
        for folder in (parent, *(os.path.join(parent, name) for name in folders)):
            with contextlib.suppress(OSError):
                if not os.path.islink(folder):
                    os.chmod(folder, 0o700)
    shutil.rmtree(path, ignore_errors=True)
