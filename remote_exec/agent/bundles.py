"""Unpacks bundles: a folder of local code for each manifest, hard-linked from blobs, made once (`unpacked`).

Files are read-only; folders are not, so that bytecode can lie beside its source.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ..model.bundle import Bundle, BundleFile
from ..model.errors import ProtocolError
from ..worker.blobs import BlobMissing, BlobStore
from ..worker.unpacked import make, place_of, use
from ..worker.unpacked import prune as prune

NAME_BYTES = 255
PATH_BYTES = 3000


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
    if use(target):
        return target
    folders = check_paths(bundle)
    absent = blobs.missing(file.digest for file in bundle.files)
    if absent:
        raise BlobMissing(*absent)

    def fill(temporary: Path) -> None:
        for sub in folders:
            os.mkdir(temporary / sub, 0o755)
        link_files(bundle.files, blobs, temporary)

    make(target, fill)
    return target


def link_files(files: Iterable[BundleFile], blobs: BlobStore, root: Path) -> None:
    """Make read-only files of blobs below a folder.

    Raises:
        BlobMissing: naming all that are not here, or were corrupt.
    """
    corrupt: list[str] = []
    for file in files:
        try:
            blobs.link_to(file.digest, f"{root}/{file.path}", executable=file.executable)
        except BlobMissing as error:
            corrupt += error.digests
    if corrupt:
        raise BlobMissing(*dict.fromkeys(corrupt))


def check_paths(bundle: Bundle) -> list[str]:
    """Return the folders that the manifest needs, parents first.

    Raises:
        ProtocolError: a path is absolute, leads upwards, is not in its shortest form, cannot be a file's
            name, comes twice, or lies under another file; or an import root is no such path.
    """
    files: set[str] = set()
    folders: set[str] = set()
    for file in bundle.files:
        reason = why_not(file.path) or ("it comes twice" if file.path in files else None)
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
        reason = None if root == "." else why_not(root)
        if reason:
            raise ProtocolError(f"the bundle's import root {root[:200]!r} is refused: {reason}")
    return sorted(folders)


def why_not(path: str) -> str | None:
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
