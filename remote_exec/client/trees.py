"""Folders that travel, on the client: what goes out with a call's arguments, and what comes back with its result.

Out: pickling a `Dir` makes its manifest, and `bring` sends what the host lacks before the call is sent. Back: loading
a pickle tells which trees it names; they are fetched into this machine's own cache, laid out there, and only then is
the value given to anyone. From an agent of this machine nothing is fetched: its cache is the same one.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..agent import trees
from ..backends.host import Host
from ..capture.data import Source, find
from ..model.errors import HostUnavailable, ProtocolError, ResourceLimitExceeded, SerializationError
from ..model.layout import Layout
from ..serial import directories, pickling
from ..serial.directories import Dir
from ..serial.pickling import Named, Pickled
from ..worker.atomic import FULL
from ..worker.blobs import BlobMissing, BlobStore
from ..worker.folders import refusal
from ..worker.holding import Holder
from ..worker.unpacked import place_of
from .connections import connections

if TYPE_CHECKING:
    from ..worker.incoming import Upload
    from .phases import Span
    from .session import Session

UNANSWERED = 64  # blobs or pieces that may be under way at once, ...
UNANSWERED_BYTES = 32 << 20  # ... and of how many bytes
ROUNDS = 4  # of asking what is missing and sending it, with nothing new missing

Sessions = Callable[[], "Session"]


class ClientSide:
    """How this process packs and unpacks."""

    def pack(self, path: Path, named: Named | None) -> tuple[str, str]:
        if named is None:
            raise SerializationError(
                f"{path} cannot travel in this place",
                path=(str(path),),
                hint="pass it as an argument of the call",
            )
        with connections.watch("capture", path.name):
            source = find(path, cache_dir=_layout().home / "cache" / "index-v1" / "data")
        named.trees[source.tree.digest] = source
        return source.tree.digest, source.name

    def unpack(self, digest: str, name: str) -> Path:
        directories.noted.digests.append(digest)
        return Dir(place_of(digest, _layout().trees), name)

    def end(self) -> None:
        pass


def _layout() -> Layout:
    return Layout.of(os.environ)


@functools.cache
def _blobs(folder: Path) -> BlobStore:
    return BlobStore(folder)


_holders: dict[Path, Holder] = {}  # of what has come, for as long as this process lives


def _in_child() -> None:
    global _counting
    _counting = threading.Lock()
    _holders.clear()


os.register_at_fork(after_in_child=_in_child)

# --- out ----------------------------------------------------------------------------------------------------------


class Held:
    """Trees that a host keeps for as long as this object lives: that of the pickle that names them."""

    def __init__(self, host: Host, digests: Iterable[str]) -> None:
        self.digests = tuple(digests)
        with _counting:
            _counts.setdefault(host, Counter()).update(self.digests)
        # nothing else is done at its end: that may be any moment, in any thread
        weakref.finalize(self, _gone.append, (host, self.digests)).atexit = False


_counting = threading.Lock()
_counts: dict[Host, Counter[str]] = {}
_gone: deque[tuple[Host, tuple[str, ...]]] = deque()
_unneeded: dict[Host, set[str]] = {}  # the agent is told with the next question


def is_brought(pickled: Pickled, host: Host) -> bool:
    """Whether a host keeps all that a pickle names."""
    with _counting:
        return host in _counts and all(_counts[host][digest] for digest in pickled.trees)


def bring(pickled: Pickled, host: Host, of: str) -> None:
    """Bring the folders that a pickle names to a host, which keeps them while the pickle lives.

    Args:
        pickled: arguments, or a function.
        host: where they are needed.
        of: the function whose call needs them, for who watches.

    Raises:
        SerializationError: a file was changed while it was sent, or cannot be read any longer.
        ResourceLimitExceeded: there is no room on the host.
        HostUnavailable: its agent is gone.
    """
    if not pickled.trees:
        return
    held = Held(host, pickled.trees)
    with connections.watch("transfer", of) as span:
        for source in pickled.trees.values():
            connections.with_agent(host, functools.partial(_send, source, span))
    pickled.hold(held)


def _dropped(host: Host) -> list[str]:
    """Return what the agent need not keep on behalf of this process any longer."""
    with _counting:
        while _gone:
            owner, digests = _gone.popleft()
            _counts[owner].subtract(digests)
            _unneeded.setdefault(owner, set()).update(digests)
        mine = _unneeded.pop(host, set())
        return [digest for digest in mine if _counts[host][digest] <= 0]


def _send(source: Source, span: Span, session: Session) -> None:
    digest = source.tree.digest
    again = 0
    before: set[str] = set()
    while again < ROUNDS:
        question = {"digest": digest, "mount": True, "dropped": _dropped(session.host)}
        missing: list[str] = session.ask("tree", question)["missing"]
        if not missing:
            return
        again += not before.isdisjoint(missing)
        before.update(missing)
        _send_blobs(session, source, missing, span)
    raise HostUnavailable(f"the host keeps missing what was sent to it of {source.root}")


def _send_blobs(session: Session, source: Source, missing: list[str], span: Span) -> None:
    span.expect(sum(source.sizes.get(digest, 0) for digest in missing))
    waiting: deque[tuple[str, Future[Any]]] = deque()
    try:
        for digest in missing:
            waiting.append((digest, _send_blob(session, source, digest, span)))
            while len(waiting) >= UNANSWERED:
                _settle(source, *waiting.popleft())
        while waiting:
            _settle(source, *waiting.popleft())
    finally:
        wait(reply for _, reply in waiting)  # where one was refused, the others are not left under way


def _send_blob(session: Session, source: Source, digest: str, span: Span) -> Future[Any]:
    if digest == source.tree.digest:
        manifest = source.tree.manifest
        return session.send_file(digest, BytesIO(manifest), size=len(manifest), span=span)
    path = source.paths[digest]
    try:
        with open(path, "rb") as file:
            return session.send_file(digest, file, size=source.sizes[digest], span=span)
    except HostUnavailable:  # it is an OSError, too
        raise
    except OSError as error:
        raise refusal(path, error.strerror or str(error)) from error


def _settle(source: Source, digest: str, reply: Future[Any]) -> None:
    try:
        reply.result()
    except ProtocolError as error:
        path = source.paths.get(digest, source.root)
        raise refusal(
            path, "it was changed while it was sent", "call again when nobody writes to it"
        ) from error


# --- back ---------------------------------------------------------------------------------------------------------


def load(stream: Any, buffers: Any = ()) -> tuple[Any, tuple[str, ...]]:
    """Load a pickle; return the value, and the digests of the trees to be fetched before it is given to anyone."""
    directories.noted.take()
    value = pickling.load(stream, buffers)
    return value, directories.noted.take()


def fetch(digests: Iterable[str], sessions: Sessions, of: str) -> None:
    """Bring trees from a host to this machine, where they stay for as long as this process lives.

    Args:
        digests: theirs.
        sessions: gives a session with the host's agent, again when the last one was lost.
        of: the function that has returned them.

    Raises:
        DeserializationError: the host does not have them any longer.
        ResourceLimitExceeded: there is no room here.
        HostUnavailable: its agent is gone.
    """
    with connections.watch("transfer", of) as span:
        for digest in digests:
            try:
                _fetch(digest, sessions(), span)
            except HostUnavailable:
                _fetch(digest, sessions(), span)  # what has come is here


def _fetch(digest: str, session: Session, span: Span) -> None:
    layout = _layout()
    blobs = _blobs(layout.blobs)
    holder = _holders.setdefault(layout.tree_users, Holder(layout.tree_users))
    holder.hold(place_of(digest, layout.trees).name)
    try:
        for _ in range(ROUNDS):
            try:
                trees.mount(digest, blobs, layout.trees)
                return
            except BlobMissing as error:
                _get_blobs(session, digest, error.digests, span)
    except HostUnavailable:  # it is an OSError, too
        raise
    except OSError as error:
        if error.errno in FULL:
            raise ResourceLimitExceeded(
                f"there is no room on this machine for a folder that was returned: {error.strerror}"
            ) from error
        raise
    raise ProtocolError("what came of a folder was not what the host had promised")


def _get_blobs(session: Session, tree: str, missing: Iterable[str], span: Span) -> None:
    """Fetch what is missing of a tree: its manifest, or contents of files."""
    held = Held(session.host, (tree,))
    session.ask("tree", {"digest": tree, "mount": False, "dropped": _dropped(session.host)})
    blobs = _blobs(_layout().blobs)
    getting = _Getting(session, blobs, span)
    try:
        if tree in missing:
            blobs.put(getting.whole(tree), durable=False)
        else:
            sizes = {file.digest: file.size for file in trees.read(tree, blobs).files}
            span.expect(sum(sizes[digest] for digest in missing))
            for digest in missing:
                getting.begin(digest, sizes[digest])
            getting.finish()
    finally:
        getting.end()
        del held


class _Getting:
    """Blobs on their way, in pieces, several at once. What has come when this breaks off is gone on with later."""

    def __init__(self, session: Session, blobs: BlobStore, span: Span) -> None:
        self._session, self._blobs, self._span = session, blobs, span
        self._waiting: deque[tuple[Upload, int, Future[tuple[Any, bytes]]]] = (
            deque()
        )  # with the size of the blob
        self._size = 0
        self._full = False

    def whole(self, digest: str) -> Iterator[bytes]:
        """Yield a blob of unknown size."""
        offset = 0
        while piece := self._ask(digest, offset, trees.PIECE).result()[1]:
            yield piece
            offset += len(piece)

    def begin(self, digest: str, size: int) -> None:
        """Begin to fetch a blob, when there is room for its pieces; what has come before is not asked for again."""
        upload = self._blobs.put_stream(digest, durable=False)
        if upload.offset >= size:
            _commit(upload)
            return
        for offset in range(upload.offset, size, trees.PIECE):
            while len(self._waiting) >= UNANSWERED or self._size > UNANSWERED_BYTES:
                self._take()
            length = min(trees.PIECE, size - offset)
            self._waiting.append((upload, size, self._ask(digest, offset, length)))
            self._size += length

    def finish(self) -> None:
        """Take in all that is under way."""
        while self._waiting:
            self._take()

    def end(self) -> None:
        """Leave what has not come whole, unless there is no room for it."""
        for upload, _, _ in self._waiting:
            upload.abort() if self._full or not upload.offset else upload.suspend()

    def _take(self) -> None:
        upload, size, reply = self._waiting[0]
        piece = reply.result()[1]
        try:
            upload.write(piece)
            if upload.offset >= size or not piece:
                _commit(upload)
        except OSError:
            self._full = True
            raise
        self._waiting.popleft()
        self._size -= len(piece)
        self._span.moved(len(piece))

    def _ask(self, digest: str, offset: int, length: int) -> Future[tuple[Any, bytes]]:
        return self._session.start("read_blob", {"digest": digest, "offset": offset, "length": length})


def _commit(upload: Upload) -> None:
    with contextlib.suppress(ProtocolError):  # it is found to be missing, then
        upload.commit()
