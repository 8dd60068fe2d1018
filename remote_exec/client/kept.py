"""What agents have kept on this machine's disk, read without one: jobs, logs, results, environments, the cache.

Nothing is written, so that it does no harm beside an agent that starts meanwhile. What only an agent knows (what
runs, what is queued, what is warm) is not here.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from ..model.errors import RuntimeEnvironmentError
from ..model.layout import Layout

if TYPE_CHECKING:
    from ..agent.database import Database
    from ..agent.environments import EnvironmentStore
    from ..agent.service import Agent

ANSWERED = frozenset(["jobs", "job", "logs", "metrics", "result", "environments"])


class OlderJournal(RuntimeEnvironmentError):  # noqa: N818 - named as the others are
    """An agent has to bring the journal up to date first, as each does when it starts."""


def ask(layout: Layout, what: str, arguments: Mapping[str, Any]) -> tuple[Any, bytes]:
    """Answer one of `ANSWERED` as an agent would, by the agent's own code.

    Raises:
        JobNotFound: there is no such job.
        RuntimeEnvironmentError: the journal was written by another version.
    """
    from ..agent import requests

    pieces: list[bytes] = []
    values: list[Any] = []

    def send(value: Any = None, *, body: bytes = b"", more: bool = False) -> None:
        values.append(value)
        pieces.append(bytes(body))

    # it waits for nothing: nobody is there who could bring it
    asked = {**arguments, "wait": False, "follow": False}
    reader = Reader(layout)
    try:
        agent = cast("Agent", _AtRest(layout, reader))
        send(requests._ASK[what](agent, asked, cast("Callable[..., None]", send)))
    except requests._Later:
        pass
    finally:
        reader.close()
    return values[-1], b"".join(pieces)


class _AtRest:
    """As much of an agent as its answers about kept things look at."""

    def __init__(self, layout: Layout, reader: Reader) -> None:
        from ..agent.journal import Journal
        from ..agent.running import RunningCalls

        class NoCalls(RunningCalls):
            def when_written(self, then: Callable[[], None]) -> None:
                then()  # nothing is being written

        self.layout = layout
        self.journal = Journal(cast("Database", reader))
        self.jobs: Mapping[str, Any] = {}
        self.running = NoCalls(cast("Agent", self))

    @cached_property
    def blobs(self) -> Any:
        from ..worker.blobs import BlobStore

        return BlobStore(self.layout.blobs)

    @cached_property
    def environments(self) -> EnvironmentStore:
        from ..agent.environments import EnvironmentStore

        return EnvironmentStore(self.layout.environments, None, self.layout.blobs.joinpath)  # it builds none


class Reader:
    """The journal's file, read only; an empty journal where there is none."""

    def __init__(self, layout: Layout) -> None:
        self._path = layout.journal

    @cached_property
    def _connection(self) -> sqlite3.Connection:
        from ..agent import journal

        scripts = sorted(name for name in os.listdir(journal._SQL_FOLDER) if name[:4].isdigit())
        if not self._path.exists():
            connection = sqlite3.connect(":memory:")
            for name in scripts:
                connection.executescript(journal._read_sql(name))
            return connection
        try:
            connection = sqlite3.connect(f"{self._path.as_uri()}?mode=ro", uri=True)
            (version,) = connection.execute("PRAGMA user_version").fetchone()
        except sqlite3.Error as error:
            raise RuntimeEnvironmentError(
                f"the journal {self._path} cannot be read: {error}", hint="remote-exec doctor"
            ) from None
        if version != len(scripts):
            connection.close()
            text = f"the journal {self._path} has schema {version}; this version knows {len(scripts)}"
            if version < len(scripts):
                raise OlderJournal(text, hint="remote-exec hosts start")
            raise RuntimeEnvironmentError(text, hint="use the newer remote_exec that wrote it")
        return connection

    def read(self, sql: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        """Return all rows of one query."""
        return self._connection.execute(sql, parameters).fetchall()

    def close(self) -> None:
        """Let go of the file, if it was read."""
        connection = self.__dict__.pop("_connection", None)
        if connection is not None:
            connection.close()
