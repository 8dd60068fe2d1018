"""Content-addressed bytes on a host's disk: written atomically, verified when read, bounded by size.

::

    <folder>/lock                 flock: shared to publish or to promise, exclusive to remove
    <folder>/incoming/<hex>.part  an upload, kept when it breaks off, so that it can go on
    <folder>/incoming/<random>.tmp  a blob being written whose digest is not known yet
    <folder>/ab/<hex>             a blob, mode 0444: `ab` is how its digest begins
    <folder>/ab/<hex>.x           the same bytes, mode 0555, for executable files of bundles

A file under its digest's name is whole, or the machine lost power before its bytes were synced: therefore a
blob is verified the first time that a process uses it, and again when its inode, size or time has changed.
A corrupt blob is removed and reported as missing. The time of last use is the file's access time, set here
explicitly, since file systems are mounted without. Every method may be called from any thread and process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import time
from collections.abc import Collection, Generator, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..model.errors import ProtocolError
from ..model.record import record
from .atomic import (
    StrPath,
    copy,
    read_chunks,
    remove_abandoned,
    same_file,
    scan,
    sync_folder,
    write_all,
)
from .incoming import Upload
from .private import make_private_folder

# `read` hashes these each time
SMALL_BYTES = 64 << 10
# the last use is written down again only after this
USE_SECONDS = 60.0
# what was used or written this recently may be promised to somebody: never pruned
GRACE_SECONDS = 600.0
_VERIFIED_ENTRIES = 200_000
_PRUNE_BATCH = 200
_TRIES = 20  # of what others may be replacing meanwhile
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_NAME = re.compile(r"[0-9a-f]{64}(\.x)?")

_Identity = tuple[int, int, int]
# file name -> status: a blob, its executable copy, or both
_Files = dict[str, os.stat_result]


class BlobMissing(LookupError):  # noqa: N818 - named as the tree in errors.py is
    """Blobs are not here, or were corrupt and therefore dropped; `digests` names them."""

    def __init__(self, digest: str, *more: str) -> None:
        others = f" and {len(more)} more" if more else ""
        super().__init__(f"blob {digest}{others} is missing or was corrupt; send it again")
        self.digests = (digest, *more)


@record(kw_only=True)
class BlobInfo:
    """One blob, as lists show it."""

    digest: str
    size_bytes: int
    used_at: float  # UTC, seconds since the epoch
    # hard-linked from a bundle: removing it would free nothing
    linked: bool


@record(kw_only=True)
class CacheStats:
    """What the cache holds; executable copies and unfinished uploads count as well."""

    blobs: int
    size_bytes: int
    incoming_bytes: int


def digest_of(data: bytes | bytearray | memoryview) -> str:
    """Return the ``sha256:…`` digest of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class BlobStore:
    """Blobs under one folder.

    Example::

        blobs = BlobStore(layout.blobs)
        digest = blobs.put(b"some bytes")
        assert blobs.read(digest) == b"some bytes"
    """

    def __init__(self, folder: Path) -> None:
        """Use a folder; it is made, for this user alone, when it is missing."""
        self.folder = folder
        self._root = os.fspath(folder)
        self._incoming = folder / "incoming"
        make_private_folder(self._incoming)
        self._verified: dict[str, _Identity] = {}
        self._relaxed = False  # something was stored that the disk may not have yet

    def put(
        self, content: bytes | bytearray | memoryview | Path | Iterator[bytes], *, durable: bool = True
    ) -> str:
        """Store bytes, a file's content, or chunks; return the digest.

        Args:
            content: what to store; a file that is written to meanwhile is stored as it was read.
            durable: whether the disk must have it on return. Without, a loss of power may lose it, and the
                next reader finds it missing: right for what can be sent again, and much faster.
        """
        if isinstance(content, (bytes, bytearray, memoryview)):
            digest = digest_of(content)
            # a durable one is written anew, since nobody knows whether the one here was synced
            if not durable and not self.missing([digest], verify=True):
                return digest
            chunks: Iterable[bytes | bytearray | memoryview] = (content,)
        elif isinstance(content, Path):
            chunks = read_chunks(content)
        else:
            chunks = content
        path = self._incoming / f"{secrets.token_hex(8)}.tmp"
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            # tells `prune` that somebody is at it
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            hasher = hashlib.sha256()
            for chunk in chunks:
                hasher.update(chunk)
                write_all(descriptor, chunk)
            digest = f"sha256:{hasher.hexdigest()}"
            self._publish(descriptor, path, digest, durable=durable)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            raise
        finally:
            os.close(descriptor)
        return digest

    def put_stream(self, digest: str, *, durable: bool = True) -> Upload:
        """Begin or go on with an upload whose digest is known; `Upload.offset` says from where.

        Two at once for the same digest do not disturb each other: the second begins from nothing.
        """
        name = _hex(digest)
        path = self._incoming / f"{name}.part"
        while True:
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                path = self._incoming / f"{secrets.token_hex(8)}.tmp"
                continue
            # between open and lock, its owner may have committed or dropped it
            if same_file(descriptor, path):
                return Upload(self, digest, path=path, descriptor=descriptor, durable=durable)
            os.close(descriptor)

    def path(self, digest: str) -> Path:
        """Return where a blob lies, verified; read it soon, and never write to it.

        Raises:
            BlobMissing: it is not here, or was corrupt.
        """
        path = self._path(digest)
        self._verify(digest, path)
        return Path(path)

    def open(self, digest: str) -> BinaryIO:
        """Open a blob for reading, verified; it can be read to the end even if it is pruned meanwhile.

        Raises:
            BlobMissing: it is not here, or was corrupt.
        """
        try:
            return open(self.path(digest), "rb")
        except FileNotFoundError:
            raise BlobMissing(digest) from None

    def read(self, digest: str) -> bytes:
        """Return a blob's bytes, verified.

        Raises:
            BlobMissing: it is not here, or was corrupt.
        """
        path = self._path(digest)
        try:
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                data = file.read()
        except FileNotFoundError:
            raise BlobMissing(digest) from None
        if status.st_size <= SMALL_BYTES or self._verified.get(digest) != _identity(status):
            if digest_of(data) != digest:
                self._drop(path, status)
                raise BlobMissing(digest)
            self._remember(digest, status)
        _use(path, status)
        return data

    def size(self, part: bytes | str) -> int:
        """Return how many bytes a blob has, or bytes themselves; 0 where it is not here."""
        try:
            return len(part) if isinstance(part, bytes) else os.stat(self._path(part)).st_size
        except OSError:
            return 0

    def missing(self, digests: Iterable[str], *, verify: bool = False) -> list[str]:
        """Return those that are not here, each once; the others are safe from `prune` for the grace period.

        Args:
            digests: what somebody wants to rely upon.
            verify: whether to read those that this process has not verified yet; else a corrupt one is found
                out when it is used.
        """
        absent: list[str] = []
        present: list[tuple[str, str]] = []
        with self._lock(fcntl.LOCK_SH):
            for digest in dict.fromkeys(digests):
                path = self._path(digest)
                try:
                    _use(path, os.stat(path, follow_symlinks=False))
                    present.append((digest, path))
                except FileNotFoundError:
                    absent.append(digest)
        # not under the lock: dropping a corrupt one takes it
        for digest, path in present if verify else ():
            try:
                self._verify(digest, path)
            except BlobMissing:
                absent.append(digest)
        return absent

    def sync(self) -> None:
        """See to it that the disk has all that was stored by this object, durable or not."""
        if self._relaxed:
            self._relaxed = False
            os.sync()

    def is_intact(self, path: str, digest: str) -> bool:
        """Whether a file that `link_to` has made still has these bytes; it is read once, and when it was changed."""
        try:
            status = os.stat(path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        known = (self._verified.get(key) for key in (digest, f"{_hex(digest)}.x", path))
        if _identity(status) not in known:
            if digest_of_file(path) != digest:
                return False
            self._remember(path, status)
        return True

    def link_to(self, digest: str, target: StrPath, *, executable: bool = False) -> None:
        """Make `target` a read-only file of these bytes: a hard link, or a copy where links cannot be.

        Raises:
            BlobMissing: it is not here, or was corrupt.
            FileExistsError: something is at `target`.
        """
        for _ in range(_TRIES):
            source = self._path(digest)
            self._verify(digest, source)
            try:
                if executable:
                    source = self._executable(source)
                self._link(source, target, mode=0o555 if executable else 0o444)
                return
            except FileNotFoundError:
                if not os.path.isdir(os.path.dirname(target)):
                    raise
                # it is gone; or another process has put the same in its place, at this very moment
        raise BlobMissing(digest)

    def ls(self) -> Iterator[BlobInfo]:
        """Yield all blobs, in no order; executable copies are counted into their blob."""
        for digest, files in self._files().items():
            if digest[7:] in files:
                yield BlobInfo(
                    digest=digest,
                    size_bytes=sum(status.st_size for status in files.values()),
                    used_at=max(status.st_atime for status in files.values()),
                    linked=any(status.st_nlink > 1 for status in files.values()),
                )

    def stats(self) -> CacheStats:
        """Return what the cache holds, by looking at every file: some milliseconds for a thousand."""
        sizes = [info.size_bytes for info in self.ls()]
        incoming = sum(status.st_size for _, status in scan(self._incoming))
        return CacheStats(blobs=len(sizes), size_bytes=sum(sizes), incoming_bytes=incoming)

    def prune(
        self, *, limit_bytes: int, roots: Collection[str] = (), grace_seconds: float = GRACE_SECONDS
    ) -> tuple[str, ...]:
        """Remove the least recently used until the cache fits; return the digests of the removed.

        Args:
            limit_bytes: how much may stay.
            roots: digests that stay (live jobs, environments); those hard-linked from bundles stay too.
            grace_seconds: what was used or written more recently stays, as does an upload's unfinished part.
        """
        newest = time.time() - grace_seconds
        for path, status in scan(self._incoming):
            if status.st_mtime <= newest:
                remove_abandoned(path)
        known = [
            (max(status.st_atime for status in files.values()), digest, files)
            for digest, files in self._files().items()
        ]
        excess = sum(status.st_size for _, _, files in known for status in files.values()) - limit_bytes
        rooted = frozenset(roots)
        victims: list[tuple[str, _Files]] = []
        for used_at, digest, files in sorted(known, key=lambda entry: entry[0]):
            if excess <= 0:
                break
            linked = any(status.st_nlink > 1 for status in files.values())
            if used_at <= newest and not linked and digest not in rooted:
                victims.append((digest, files))
                excess -= sum(status.st_size for status in files.values())
        return tuple(self._remove(victims))

    # ── inside

    def _remove(self, victims: list[tuple[str, _Files]]) -> Iterator[str]:
        """Remove what nobody has used since it was looked at; in batches, so that writers get between."""
        for start in range(0, len(victims), _PRUNE_BATCH):
            with self._lock(fcntl.LOCK_EX):
                for digest, files in victims[start : start + _PRUNE_BATCH]:
                    places = {f"{self._root}/{name[:2]}/{name}": files[name] for name in files}
                    with contextlib.suppress(FileNotFoundError):
                        if all(
                            _last_use(os.stat(place, follow_symlinks=False)) == _last_use(status)
                            for place, status in places.items()
                        ):
                            # the executable copy first: what a crash leaves is a blob
                            for place in sorted(places, reverse=True):
                                os.unlink(place)
                            yield digest

    def _path(self, digest: str) -> str:
        # a string: thousands are made for one bundle, and a Path costs more than looking at the file
        name = _hex(digest)
        return f"{self._root}/{name[:2]}/{name}"

    def _files(self) -> dict[str, _Files]:
        """By digest, the files that hold it."""
        found: dict[str, _Files] = {}
        for sub in os.listdir(self.folder):
            for path, status in scan(self.folder / sub) if len(sub) == 2 else ():
                if _NAME.fullmatch(path.name):
                    found.setdefault(f"sha256:{path.name[:64]}", {})[path.name] = status
        return found

    def _publish(self, descriptor: int, path: Path, digest: str, *, durable: bool) -> None:
        """Give a file that is complete and verified its final name."""
        target = self._path(digest)
        parent = os.path.dirname(target)
        os.fchmod(descriptor, 0o444)
        if durable:
            os.fsync(descriptor)
        else:
            self._relaxed = True
        with self._lock(fcntl.LOCK_SH):
            made = _make_folder(parent)
            os.rename(path, target)
        if durable:
            sync_folder(parent)
            if made:
                sync_folder(self.folder)
        self._remember(digest, os.fstat(descriptor))

    def _executable(self, source: str) -> str:
        """The copy of a verified blob that can be executed: a link shares its mode with all others."""
        path = source + ".x"
        try:
            status = os.stat(path, follow_symlinks=False)
        except FileNotFoundError:
            status = None
        key = os.path.basename(path)
        if status is None or self._verified.get(key) != _identity(status):
            # made anew once for each process, which is cheaper to get right than to verify
            copy(source, path, mode=0o555, replace=True, temporary_in=self._incoming)
            status = os.stat(path, follow_symlinks=False)
            self._remember(key, status)
        _use(path, status)
        return path

    @staticmethod
    def _link(source: str, target: StrPath, *, mode: int) -> None:
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError as error:
            # another file system, one without links, or as many links as an inode can have
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP):
                raise
            copy(source, target, mode=mode, replace=False)

    def _verify(self, digest: str, path: str) -> None:
        """Note the use of a blob; read it if this process has not seen this very file yet."""
        try:
            status = os.stat(path, follow_symlinks=False)
            if self._verified.get(digest) != _identity(status):
                if digest_of_file(path) != digest:
                    self._drop(path, status)
                    raise BlobMissing(digest)
                self._remember(digest, status)
        except FileNotFoundError:
            raise BlobMissing(digest) from None
        _use(path, status)

    def _drop(self, path: str, status: os.stat_result) -> None:
        """Remove a corrupt blob, unless a good one has taken its place meanwhile."""
        with self._lock(fcntl.LOCK_EX), contextlib.suppress(FileNotFoundError):
            if _identity(os.stat(path, follow_symlinks=False)) == _identity(status):
                os.unlink(path)

    def _remember(self, key: str, status: os.stat_result) -> None:
        if len(self._verified) >= _VERIFIED_ENTRIES:
            self._verified.clear()
        self._verified[key] = _identity(status)

    @contextlib.contextmanager
    def _lock(self, kind: int) -> Generator[None, None, None]:
        # a descriptor for each use: locks belong to descriptions, and threads must not share one
        descriptor = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, kind)
            yield
        finally:
            os.close(descriptor)


def _hex(digest: str) -> str:
    match = _DIGEST.fullmatch(digest)
    if not match:
        raise ProtocolError(
            f"not a blob's digest: {digest[:100]!r}; it reads sha256: and 64 hexadecimal digits"
        )
    return match[1]


def digest_of_file(path: StrPath) -> str:
    """Return the ``sha256:…`` digest of a file's content."""
    hasher = hashlib.sha256()
    for chunk in read_chunks(path):
        hasher.update(chunk)
    return f"sha256:{hasher.hexdigest()}"


def _identity(status: os.stat_result) -> _Identity:
    # not the change time: every new link sets it
    return status.st_ino, status.st_size, status.st_mtime_ns


def _last_use(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_atime_ns, status.st_nlink


def _use(path: str, status: os.stat_result) -> None:
    now = time.time()
    if abs(now - status.st_atime) > USE_SECONDS:
        os.utime(path, ns=(int(now * 1e9), status.st_mtime_ns))


def _make_folder(folder: str) -> bool:
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        return False
    return True
