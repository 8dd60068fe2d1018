"""Folders that are made once, whole, under a digest: bundles and trees.

::

    <folder>/<hex>-<boot>/     one that is ready; the rename to this name is its ready mark
    <folder>/.<random>.tmp/    one being made, or on its way out; its maker holds a lock on it

Nothing here is synced, since thousands of small files would take seconds. Instead the name tells in which boot of
the machine a folder was made: after a loss of power, what half reached the disk is never looked at again, and it is
made anew. Any thread or process may call; nothing here keeps state.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Collection, Generator
from pathlib import Path

from .atomic import remove_folder, same_file
from .private import make_private_folder

GRACE_SECONDS = 600.0


def place_of(digest: str, folder: Path) -> Path:
    """Return where the folder of that digest is, or would be."""
    return folder / f"{name_of(digest)}-{_boot()}"


def make(target: Path, fill: Callable[[Path], None]) -> None:
    """Make a folder ready; when two do it at once, the later one's work is thrown away.

    Args:
        target: its place.
        fill: puts into a temporary folder what it is to hold; if that fails, nothing is left.
    """
    temporary, descriptor = _begin(target.parent)
    try:
        fill(temporary)
        try:
            os.rename(temporary, target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY) or not use(target):
                raise
            remove_folder(temporary)
    except BaseException:
        remove_folder(temporary)
        raise
    finally:
        os.close(descriptor)


def prune(
    folder: Path, *, limit: int, roots: Collection[str] = (), grace_seconds: float = GRACE_SECONDS
) -> tuple[str, ...]:
    """Remove the least recently used beyond a number; return the names of the removed folders.

    Sizes do not count here: the bytes are the blobs', which can be pruned once nothing links to them.

    Args:
        folder: where they lie.
        limit: how many may stay.
        roots: digests of those that stay, such as what living workers use.
        grace_seconds: what was used more recently stays.
    """
    newest = time.time() - grace_seconds
    rooted = {f"{name_of(digest)}-{_boot()}" for digest in roots}
    ready: list[tuple[float, Path]] = []
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            used_at = entry.stat(follow_symlinks=False).st_mtime
            if entry.name.startswith("."):
                if used_at <= newest:
                    _remove_unless_held(Path(entry.path))
            else:
                ready.append((used_at, Path(entry.path)))
    ready.sort()
    excess = max(0, len(ready) - limit)
    removed: list[str] = []
    for used_at, path in ready[:excess]:
        if used_at <= newest and path.name not in rooted and retire(path, newest):
            removed.append(path.name)
    return tuple(removed)


def name_of(digest: str) -> str:
    """Return what a folder's name begins with."""
    return digest.removeprefix("sha256:") or "empty"


def _boot() -> str:
    """Eight digits that change when the machine starts anew."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()[:8]
    except OSError:
        return "unknown"


def use(target: Path) -> bool:
    """Whether the folder is there; if so, it was used now."""
    with _locked(target.parent, fcntl.LOCK_SH):
        try:
            os.utime(target, follow_symlinks=False)
        except FileNotFoundError:
            return False
    return True


def _begin(folder: Path) -> tuple[Path, int]:
    """Make a temporary folder and hold its lock."""
    temporary = folder / f".{secrets.token_hex(8)}.tmp"
    os.mkdir(temporary, 0o755)
    descriptor = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return temporary, descriptor


def retire(path: Path, newest: float) -> bool:
    """Remove one that was not used since it was looked at: out of sight first, then file by file."""
    grave = path.with_name(f".{secrets.token_hex(8)}.tmp")
    with _locked(path.parent, fcntl.LOCK_EX):
        try:
            if os.stat(path, follow_symlinks=False).st_mtime > newest:
                return False
            os.rename(path, grave)
        except FileNotFoundError:
            return False
    remove_folder(grave)
    return True


def _remove_unless_held(temporary: Path) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # renamed meanwhile: it is ready now, and somebody's
            if same_file(descriptor, temporary):
                remove_folder(temporary)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _locked(folder: Path, kind: int) -> Generator[None, None, None]:
    """Hold the lock that parts using a folder from removing it: the folder's own."""
    make_private_folder(folder)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)
