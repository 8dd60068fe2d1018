"""The worker's part in folders that travel: where those lie that calls are given, how those leave that calls return.

What a call is given, the agent has laid out before. What it returns becomes blobs here, and its caller fetches them.
"""

from __future__ import annotations

from pathlib import Path

from ..model.bundle import BundleFile
from ..model.errors import DeserializationError, ResourceLimitExceeded, SerializationError
from ..model.layout import Layout
from ..model.tree import Tree
from ..serial import directories
from ..serial.pickling import Named
from .atomic import FULL
from .blobs import BlobStore, digest_of_file
from .folders import FoundFile, look, refusal
from .holding import Holder
from .unpacked import place_of, use


class WorkerSide:
    """How a worker packs and unpacks. One for each lease.

    Args:
        jobs_folder: of the host; it tells where all else lies there.
        durable: whether what is returned must outlive a loss of power, as a job's result does.
    """

    def __init__(self, jobs_folder: str, *, durable: bool) -> None:
        self._layout = Layout.beside(jobs_folder)
        self._durable = durable
        self._holder = Holder(self._layout.tree_users)

    def pack(self, path: Path, named: Named | None) -> tuple[str, str]:
        """Put a folder's content among the host's blobs; return its digest and name."""
        found = look(path)
        blobs = BlobStore(self._layout.blobs)
        try:
            files = tuple(self._put(file, blobs) for file in found.files)
            tree = Tree(files=files, folders=tuple(found.folders), links=tuple(found.links))
            blobs.put(tree.manifest, durable=self._durable)
        except OSError as error:
            raise full_or(error, path) from error
        directories.noted.digests.append(tree.digest)
        return tree.digest, found.name

    def _put(self, file: FoundFile, blobs: BlobStore) -> BundleFile:
        digest = digest_of_file(file.source)
        if self._durable or blobs.missing([digest], verify=True):  # else it need not be written again
            digest = blobs.put(Path(file.source), durable=self._durable)
        size = blobs.path(digest).stat().st_size  # as it was read, if somebody writes to it
        return BundleFile(path=file.path, digest=digest, size=size, executable=file.executable)

    def unpack(self, digest: str, name: str) -> Path:
        """Return where a tree lies on this host; it stays until the lease ends."""
        place = place_of(digest, self._layout.trees)
        self._holder.hold(place.name)
        if not use(place):
            raise DeserializationError(
                f"the folder {name} is not on this host any longer",
                hint="call again: it will be brought again",
            )
        return place / name

    def end(self) -> None:
        """The lease has ended."""
        self._holder.let_go()


def full_or(error: OSError, path: Path) -> ResourceLimitExceeded | SerializationError:
    """Return what to raise when the bytes at a path could not be copied."""
    if error.errno in FULL:
        return ResourceLimitExceeded(
            f"there is no room for {path}: {error.strerror}", hint="make room, or lower cache_size_limit"
        )
    return refusal(error.filename or path, error.strerror or str(error))
