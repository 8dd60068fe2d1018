"""Unpacks bundles: a folder of local code for each manifest, hard-linked from blobs, made once.

::

    <folder>/<hex>-<boot>/     an unpacked bundle; the rename to this name is its ready mark
    <folder>/.<random>.tmp/    one being unpacked, or on its way out; its maker holds a lock on it

Nothing here is synced, since thousands of small files would take seconds. Instead the name tells in which
boot of the machine a bundle was unpacked: after a loss of power, what half reached the disk is never looked
at again, and the bundle is unpacked anew from verified blobs. Files are read-only; folders are not, so that
bytecode can lie beside its source. Any thread or process may call; nothing here keeps state.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Collection, Generator
from pathlib import Path

from ..model.bundle import Bundle
from ..model.errors import ProtocolError
from ..worker.atomic import same_file
from .cache import BlobMissing, BlobStore

NAME_BYTES = 255
PATH_BYTES = 3000
GRACE_SECONDS = 600.0


def place_of(digest: str, folder: Path) -> Path:
    """Return where the bundle of that digest is unpacked, or would be."""
    return folder / f"{_name(digest)}-{_boot()}"


def materialise(bundle: Bundle, blobs: BlobStore, folder: Path) -> Path:
    """Return the folder of a bundle, unpacked; when two do it at once, the later one's work is thrown away.

    Args:
        bundle: the manifest; the empty one has a folder too.
        blobs: where its files' bytes are.
        folder: where bundles are unpacked; best on the blobs' file system.

    Raises:
        ProtocolError: a path in the manifest would lead out of the folder, or clashes with another.
        BlobMissing: blobs are not here, or were corrupt; its `digests` are to be sent, then call again.

    Example::

        root = materialise(bundle, BlobStore(layout.blobs), layout.bundles)
        sys.path[:0] = [str(root / part) for part in bundle.import_roots]
    """
    target = place_of(bundle.digest, folder)
    if _use(target):
        return target
    folders = check_paths(bundle)
    absent = blobs.missing(file.digest for file in bundle.files)
    if absent:
        raise BlobMissing(*absent)
    temporary, descriptor = _begin(folder)
    try:
        for sub in folders:
            os.mkdir(temporary / sub, 0o755)
        corrupt: list[str] = []
        for file in bundle.files:
            try:
                blobs.link_to(file.digest, f"{temporary}/{file.path}", executable=file.executable)
            except BlobMissing as error:
                corrupt += error.digests
        if corrupt:
            raise BlobMissing(*dict.fromkeys(corrupt))
        try:
            os.rename(temporary, target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY) or not _use(target):
                raise
            shutil.rmtree(temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        os.close(descriptor)
    return target


def check_paths(bundle: Bundle) -> list[str]:
    """Return the folders that the manifest needs, parents first.

    Raises:
        ProtocolError: a path is absolute, leads upwards, is not in its shortest form, cannot be a file's
            name, comes twice, or lies under another file; or an import root is no such path.
    """
    files: set[str] = set()
    folders: set[str] = set()
    for file in bundle.files:
        reason = _why_not(file.path) or ("it comes twice" if file.path in files else None)
        if reason:
            raise ProtocolError(f"the bundle's path {file.path[:200]!r} is refused: {reason}")
        files.add(file.path)
        parent = file.path.rpartition("/")[0]
        while parent and parent not in folders:
            folders.add(parent)
            parent = parent.rpartition("/")[0]
    both = files & folders
    if both:
        raise ProtocolError(f"the bundle's path {min(both)!r} is refused: it is a file and a folder")
    for root in bundle.import_roots:
        reason = None if root == "." else _why_not(root)
        if reason:
            raise ProtocolError(f"the bundle's import root {root[:200]!r} is refused: {reason}")
    return sorted(folders)


def prune(
    folder: Path, *, limit: int, roots: Collection[str] = (), grace_seconds: float = GRACE_SECONDS
) -> tuple[str, ...]:
    """Remove the least recently used bundles beyond a number; return the names of the removed folders.

    Sizes do not count here: the bytes are the blobs', which can be pruned once no bundle links to them.

    Args:
        folder: where bundles are unpacked.
        limit: how many may stay.
        roots: digests of bundles that stay, such as those of living workers.
        grace_seconds: what was used more recently stays.
    """
    newest = time.time() - grace_seconds
    rooted = {f"{_name(digest)}-{_boot()}" for digest in roots}
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
        if used_at <= newest and path.name not in rooted and _retire(path, newest):
            removed.append(path.name)
    return tuple(removed)


def _name(digest: str) -> str:
    return digest.removeprefix("sha256:") or "empty"


def _boot() -> str:
    """Eight digits that change when the machine starts anew."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()[:8]
    except OSError:
        return "unknown"


def _why_not(path: str) -> str | None:
    """Why a path cannot be one of a bundle, or None."""
    if path.startswith("/"):
        return "it is absolute"
    if "\0" in path:
        return "it has a NUL in it"
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:
        return "it cannot be encoded"
    parts = encoded.split(b"/")
    if any(part in (b"", b".", b"..") for part in parts):
        return "each part must be a name"
    if len(encoded) > PATH_BYTES or max(map(len, parts)) > NAME_BYTES:
        return "it is too long"
    return None


def _use(target: Path) -> bool:
    """Whether the bundle is there; if so, it was used now."""
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


def _retire(path: Path, newest: float) -> bool:
    """Remove a bundle that was not used since it was looked at: out of sight first, then file by file."""
    grave = path.with_name(f".{secrets.token_hex(8)}.tmp")
    with _locked(path.parent, fcntl.LOCK_EX):
        try:
            if os.stat(path, follow_symlinks=False).st_mtime > newest:
                return False
            os.rename(path, grave)
        except FileNotFoundError:
            return False
    shutil.rmtree(grave, ignore_errors=True)
    return True


def _remove_unless_held(temporary: Path) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # renamed meanwhile: it is somebody's ready bundle now
            if same_file(descriptor, temporary):
                shutil.rmtree(temporary, ignore_errors=True)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _locked(folder: Path, kind: int) -> Generator[None, None, None]:
    """Hold the lock that parts using a bundle from removing it: the folder's own."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)
