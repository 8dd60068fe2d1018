"""Lays folders of data out on a host: one for each tree, made once (`worker.unpacked`) of links to blobs, read-only.

Being read-only keeps mistakes away, not root: what it writes through a hard link changes the blob as well. Therefore
a tree that is asked for again is looked at, file by file, and one that was written to is laid out anew.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..model.bundle import Bundle, BundleFile
from ..model.errors import ProtocolError, RemoteExecError
from ..model.tree import Tree
from ..worker.blobs import BlobMissing, BlobStore
from ..worker.folders import stays_inside
from ..worker.holding import held_in
from ..worker.keeping import TREES_NAME
from ..worker.unpacked import make, place_of, retire, use
from .bundles import check_paths, link_files, why_not
from .uploads import error_of

if TYPE_CHECKING:
    from .leases import Client
    from .service import Agent

PIECE = 8 << 20  # bytes of a blob that are told at once, at the most
TOLD_MISSING = 10_000  # digests in one answer
KEPT_MANIFESTS = 4
READ_ONLY = 0o555

_manifests: OrderedDict[str, Tree] = OrderedDict()
_lock = threading.Lock()


def mount(digest: str, blobs: BlobStore, folder: Path) -> Path:
    """Return the folder of a tree, laid out; what it holds bears the name that it has at home.

    Args:
        digest: the tree's; its manifest is a blob.
        blobs: where its files' bytes are.
        folder: where trees are laid out; best on the blobs' file system.

    Raises:
        ProtocolError: the manifest's paths or links would lead out of the folder, or clash.
        BlobMissing: blobs are not here, or were corrupt; its `digests` are to be sent, then call again.
    """
    tree = read(digest, blobs)
    target = place_of(digest, folder)
    if use(target):
        if all(blobs.is_intact(f"{target}/{file.path}", file.digest) for file in tree.files):
            return target
        retire(target, time.time())
    absent = blobs.missing(file.digest for file in tree.files)
    if absent:
        raise BlobMissing(*absent)

    def fill(temporary: Path) -> None:
        for sub in tree.folders:
            os.mkdir(temporary / sub, 0o755)
        link_files(tree.files, blobs, temporary)
        for path, link in tree.links:
            os.symlink(link, temporary / path)
        for sub in reversed(tree.folders):
            os.chmod(temporary / sub, READ_ONLY)
        os.chmod(temporary, READ_ONLY)

    make(target, fill)
    return target


def read(digest: str, blobs: BlobStore) -> Tree:
    """Return the tree of a digest, its paths checked.

    Raises:
        ProtocolError: its paths or links would lead out of its folder, or clash.
        BlobMissing: its manifest is not here.
    """
    if blobs.missing([digest]):
        raise BlobMissing(digest)
    with _lock:
        known = _manifests.get(digest)
        if known is not None:
            _manifests.move_to_end(digest)
            return known
    tree = Tree.of(blobs.read(digest))
    check(tree)
    with _lock:
        _manifests[digest] = tree
        while len(_manifests) > KEPT_MANIFESTS:
            _manifests.popitem(last=False)
    return tree


def check(tree: Tree) -> None:
    """See to it that laying a tree out, and following its links, leads nowhere else.

    Raises:
        ProtocolError: it would.
    """
    leaves = (*tree.files, *(BundleFile(path=path, digest="", size=0) for path, _ in tree.links))
    needed = check_paths(Bundle(files=leaves))
    folders, paths = set(tree.folders), {leaf.path for leaf in leaves}
    for folder in tree.folders:
        reason = why_not(folder)
        if reason or folder in paths:
            raise ProtocolError(f"the folder {folder[:200]!r} is refused: {reason or 'it is a file, too'}")
    parents = {folder.rpartition("/")[0] for folder in folders} - {""}
    if not folders.issuperset(needed) or not folders.issuperset(parents) or len(folders) < len(tree.folders):
        raise ProtocolError("a manifest names a folder twice, or not at all")
    if any(before > after for before, after in zip(tree.folders, tree.folders[1:])):  # noqa: B905 - on 3.10, too
        raise ProtocolError("a manifest's folders are in no order")
    if len({path.partition("/")[0] for path in (*folders, *paths)}) != 1:
        raise ProtocolError("a manifest must have one entry at its top")
    for path, target in tree.links:
        if not stays_inside(path, target):
            raise ProtocolError(f"the link {path[:200]!r} is refused: it leads out of its folder")


def when_durable(agent: Agent, digests: Iterable[str], then: Callable[[], None]) -> None:
    """Do something when the disk has the blobs of trees, of which there may be none: they are sent without that."""
    if digests:
        agent.reactor.in_thread(agent.blobs.sync, lambda _result, _error: then())
    else:
        then()


def mount_all(agent: Agent, digests: Iterable[str], then: Callable[[RemoteExecError | None], None]) -> None:
    """Lay out what a job needs, in a thread; tell whether that failed, in the loop's."""

    def work() -> None:
        for digest in digests:
            mount(digest, agent.blobs, agent.layout.trees)

    def done(_: None, error: BaseException | None) -> None:
        then(None if error is None else error_of(error))

    agent.reactor.in_thread(work, done)


# --- what clients ask ---------------------------------------------------------------------------------------------


def offer(
    agent: Agent,
    client: Client,
    arguments: dict[str, Any],
    send: Callable[..., None],
    fail: Callable[..., None],
) -> None:
    """Answer the request "tree": hold one for a client, lay it out if `mount`; tell which blobs are missing for it."""
    digest: str = arguments["digest"]
    client.trees.difference_update(arguments["dropped"])
    client.trees.add(digest)

    def work() -> None:
        if arguments["mount"]:
            mount(digest, agent.blobs, agent.layout.trees)
        else:
            read(digest, agent.blobs)

    def done(_: None, error: BaseException | None) -> None:
        if isinstance(error, BlobMissing):
            missing = list(error.digests[:TOLD_MISSING])
            client.relaxed.update(missing)
            send({"missing": missing})
        elif error is not None:
            told = error_of(error)
            fail(type(told).__name__, told.message)
        else:
            send({"missing": []})

    agent.reactor.in_thread(work, done)


def tell_blob(
    agent: Agent, arguments: dict[str, Any], send: Callable[..., None], fail: Callable[..., None]
) -> None:
    """Answer the request "read_blob": so many bytes of a blob, from an offset on."""
    digest: str = arguments["digest"]
    offset, length = int(arguments["offset"]), min(int(arguments["length"]), PIECE)

    def read_piece() -> bytes:
        with agent.blobs.open(digest) as file:
            file.seek(offset)
            return file.read(length)

    def done(piece: bytes | None, error: BaseException | None) -> None:
        if error is not None:
            told = error_of(error)
            fail(type(told).__name__, told.message)
        else:
            send(None, body=piece)

    agent.reactor.in_thread(read_piece, done)


# --- what stays ---------------------------------------------------------------------------------------------------


def kept_by_jobs(jobs: Path) -> frozenset[str]:
    """Return the digests of the trees that results of jobs name, as their workers have left word."""
    found: set[str] = set()
    if jobs.is_dir():
        for entry in os.scandir(jobs):
            try:
                with open(f"{entry.path}/{TREES_NAME}", encoding="ascii") as file:
                    found.update(file.read().split())
            except (FileNotFoundError, NotADirectoryError):
                continue
    return frozenset(found)


def blobs_of(digests: Iterable[str], blobs: BlobStore) -> set[str]:
    """Return the digests of the blobs that trees consist of, as far as they are here."""
    found: set[str] = set()
    for digest in digests:
        found.add(digest)
        try:
            found.update(file.digest for file in read(digest, blobs).files)
        except (BlobMissing, ProtocolError):
            continue
    return found


def used(agent: Agent) -> frozenset[str]:
    """Return the digests of the trees that living processes of this host use."""
    return frozenset(f"sha256:{name.partition('-')[0]}" for name in held_in(agent.layout.tree_users))
