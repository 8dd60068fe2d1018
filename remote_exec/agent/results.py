"""Results that calls with `cache=True` have left, by key: what the client's result cache reads and writes.

A cache and nothing more: any row may go at any time, and a blob that the cache's own limit has removed is a miss.
What a key is made of is the client's matter. Rows lie in the journal's file; this class keeps no state, and may be
used from any thread.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from sqlite3 import Connection
from typing import TYPE_CHECKING, Any

from ..model.errors import ProtocolError
from ..model.record import record
from ..worker.blobs import BlobMissing
from .database import parse_queries

if TYPE_CHECKING:
    from .journal import Journal
    from .service import Agent

INLINE_BYTES = 64 << 10
PIECE = 16 << 20

with open(os.path.join(os.path.dirname(__file__), "sql", "results.sql"), encoding="utf-8") as _file:
    _Q = parse_queries(_file.read())


@record(kw_only=True)
class StoredResult:
    """One result: its bytes, or the digest of the blob that holds them."""

    function: str
    created_at: float
    content: bytes | str


@record(kw_only=True)
class ResultStats:
    """What lists show of all results together."""

    results: int
    size_bytes: int
    inline_bytes: int
    hits: int


class Results:
    """The results in one journal.

    Example::

        results = Results(journal)
        results.put("key", function="train", content=b"...", size_bytes=3).result()
        results.find("key").content
    """

    def __init__(self, journal: Journal) -> None:
        self._database = journal.database

    def find(self, key: str) -> StoredResult | None:
        """Return the result under a key, or None. Note it as used with `use`, once it has been of use."""
        rows = self._database.read(_Q["find_result"], (key,))
        if not rows:
            return None
        function, created_at, data, digest = rows[0]
        return StoredResult(
            function=function, created_at=created_at, content=bytes(data) if digest is None else str(digest)
        )

    def use(self, key: str) -> None:
        """Count a hit."""
        facts = {"key": key, "now": time.time()}

        def apply(connection: Connection) -> None:
            connection.execute(_Q["use_result"], facts)

        self._database.submit(apply, durable=False)

    def put(self, key: str, *, function: str, content: bytes | str, size_bytes: int) -> Future[None]:
        """Keep a result; relaxed, since losing it costs only time.

        Args:
            key: of the call.
            function: its name, for people.
            content: the pickled value, or the digest of the blob that holds it.
            size_bytes: the pickled value's.
        """
        data, digest = (content, None) if isinstance(content, bytes) else (None, content)
        facts = {
            "key": key, "function": function, "now": time.time(), "size": size_bytes, "data": data, "digest": digest,
        }  # fmt: skip

        def apply(connection: Connection) -> None:
            connection.execute(_Q["put_result"], facts)

        return self._database.submit(apply, durable=False)

    def remove(self, key: str) -> None:
        """Forget a result."""

        def apply(connection: Connection) -> None:
            connection.execute(_Q["remove_result"], (key,))

        self._database.submit(apply, durable=False)

    def prune(self, *, used_before: float, limit_bytes: int) -> int:
        """Forget what was last used before a time, then the least recently used until the rest fits.

        Args:
            used_before: UTC, seconds since the epoch.
            limit_bytes: how much may stay, blobs of results included.

        Returns:
            How many went. Blocks until they have.
        """

        def apply(connection: Connection) -> int:
            old = connection.execute(_Q["remove_old_results"], (used_before,)).fetchall()
            excess = connection.execute(_Q["remove_excess_results"], (limit_bytes,)).fetchall()
            return len(old) + len(excess)

        return self._database.submit(apply, durable=False).result()

    def stats(self) -> ResultStats:
        """Return what is kept."""
        ((count, size, inline, hits),) = self._database.read(_Q["stats_of_results"])
        return ResultStats(results=count, size_bytes=size, inline_bytes=inline, hits=hits)


# --- what clients ask ---------------------------------------------------------------------------------------------


def tell_cached(agent: Agent, arguments: dict[str, Any], send: Callable[..., None]) -> None:
    """Answer the request "cached": whether there is a result under `key`, and its bytes in pieces."""
    results = Results(agent.journal)
    key: str = arguments["key"]
    found = results.find(key)
    if found is None:
        send({"found": False})
        return
    content, facts = (
        found.content,
        {"found": True, "function": found.function, "created_at": found.created_at},
    )

    def read() -> bytes:
        return content if isinstance(content, bytes) else agent.blobs.read(content)

    def tell(data: bytes | None, error: BaseException | None) -> None:
        if data is None:
            if isinstance(error, BlobMissing):
                results.remove(key)
            send({"found": False})
            return
        results.use(key)
        view = memoryview(data)
        while len(view) > PIECE:
            send(None, body=view[:PIECE], more=True)
            view = view[PIECE:]
        send(facts, body=view)

    if isinstance(content, bytes):
        tell(content, None)
    else:
        agent.reactor.in_thread(read, tell)


def remember(agent: Agent, arguments: dict[str, Any], body: bytes, send: Callable[..., None]) -> None:
    """Answer the request "remember": keep the body, or the blob named by `digest`, as the result under `key`.

    Raises:
        ProtocolError: there is no such blob.
    """
    digest: str = arguments["digest"]
    if digest and agent.blobs.missing([digest]):
        raise ProtocolError(f"remember: the blob {digest} has not been sent")
    kept = Results(agent.journal).put(
        arguments["key"],
        function=arguments["function"],
        content=digest or body,
        size_bytes=int(arguments["size"]),
    )
    kept.add_done_callback(
        lambda _: agent.reactor.call_from_thread(lambda: send({"kept": kept.exception() is None}))
    )
