"""SQLite as the journal needs it: migrations, one writer thread, quick readers. It knows nothing of jobs.

The writer thread owns the writing connection. Callers on any thread hand it functions of that connection
and get futures, which it resolves after the commit; whatever waits becomes one transaction. A batch with a
durable write is synced to the disk before its futures resolve; a relaxed one is safe from the process's
death, not from the machine's. Each reading thread has a connection of its own and never waits for a commit.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, Union

from ..model.errors import ResourceLimitExceeded, RuntimeEnvironmentError
from ..worker.private import make_private_folder

T = TypeVar("T")
Row = tuple[Any, ...]
Parameters = Union[Sequence[Any], Mapping[str, Any]]  # noqa: UP007 - evaluated at run time, on 3.10 too

# RETURNING came with it
OLDEST_SQLITE = (3, 35, 0)
# WAL needs shared memory and file locks, which these do not give, or not between hosts
NETWORK_FILESYSTEMS = frozenset(
    ["nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "lustre", "beegfs", "gpfs", "pvfs2", "ocfs2"]
)
NETWORK_FUSE = frozenset(["fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.gcsfuse"])
# a batch is bounded so that the first of many durable writes does not wait for the last
BATCH_WRITES = 1000
# what may wait for the disk; beyond it, writes are refused rather than memory filled
BACKLOG_ROWS = 200_000
WAL_BYTES = 16 << 20


class _Write(NamedTuple):
    apply: Callable[[sqlite3.Connection], Any]
    future: Future[Any]
    durable: bool
    rows: int


class Database:
    """An open database. Built by `open` only.

    Example::

        database = Database.open(Path("journal.sqlite3"), migrations=[("1", "CREATE TABLE t (x)")])
        database.submit(lambda c: c.execute("INSERT INTO t VALUES (1)"), durable=True).result()
        database.read("SELECT x FROM t")
        database.close()
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._synchronous = ""
        self._changed = threading.Condition()
        self._waiting: deque[_Write] = deque()
        self._backlog = 0
        self._closed = False
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        # a daemon, so that an agent that forgets `close` can still exit; what was durable is on the disk
        self._thread = threading.Thread(target=self._run, name="journal-writer", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, path: Path, *, migrations: Sequence[tuple[str, str]]) -> Database:
        """Open or create the file, bring its schema up to date, start the writer thread.

        Args:
            path: the database's file, on a local disk; its folder is made, for this user alone.
            migrations: names and scripts in order; the file remembers how many of them it has had.

        Raises:
            RuntimeEnvironmentError: SQLite is too old, the disk is a network's, or the file is damaged or
                was written by a newer version.
        """
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise RuntimeEnvironmentError(
                f"this Python's SQLite is {sqlite3.sqlite_version}; the journal needs 3.35 or newer",
                hint="let the agent start with another Python, such as one that uv brings",
            )
        make_private_folder(path.parent)
        reason = why_not_local(path.parent)
        if reason:
            raise RuntimeEnvironmentError(
                f"the journal cannot lie in {path.parent}: {reason}",
                hint="set REMOTE_EXEC_HOME to a folder on a local disk of this host",
            )
        # the write-ahead log and the shared memory beside it take over this file's mode
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        connection = _connect(path)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
            connection.execute("PRAGMA foreign_keys = ON")
            _migrate(connection, path, migrations)
        except RuntimeEnvironmentError:
            connection.close()
            raise
        except sqlite3.DatabaseError as error:
            connection.close()
            raise RuntimeEnvironmentError(
                f"the journal {path} cannot be opened: {error}",
                hint="if the disk is healthy and not full, move that file away: its jobs are forgotten",
            ) from error
        return cls(path, connection)

    def submit(self, apply: Callable[[sqlite3.Connection], T], *, durable: bool, rows: int = 1) -> Future[T]:
        """Have the writer thread apply a function; the future resolves after the commit.

        Args:
            apply: runs on the writer thread inside a transaction of many; when it raises, its own changes
                are undone and its future alone fails.
            durable: whether the disk must have it before the future resolves.
            rows: how much of the backlog's bound this write takes.

        Raises:
            ResourceLimitExceeded: through the future, when the disk lags too far behind.
            RuntimeError: the database is closed.
        """
        future: Future[T] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError(f"the journal {self.path} is closed")
            if self._backlog + rows > BACKLOG_ROWS and self._backlog:
                refused = True
            else:
                refused = False
                self._backlog += rows
                self._waiting.append(_Write(apply, future, durable, rows))
                self._changed.notify()
        if refused:
            future.set_exception(
                ResourceLimitExceeded(f"over {BACKLOG_ROWS} rows wait to be written to {self.path}")
            )
        return future

    def read(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """Return all rows of one query, as of the last commit, on the calling thread's own connection."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            with self._changed:
                if self._closed:
                    raise RuntimeError(f"the journal {self.path} is closed")
                connection = self._local.connection = _connect(self.path)
                self._readers.append(connection)
            connection.execute("PRAGMA query_only = ON")
        return connection.execute(sql, parameters).fetchall()

    def close(self) -> None:
        """Write what waits, sync it, close. Returns when the file is at rest; twice does no harm."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        with self._changed:
            readers, self._readers = self._readers, []
        for reader in readers:
            reader.close()
        self._connection.close()

    def _run(self) -> None:
        while batch := self._next_batch():
            self._commit(batch)
            with self._changed:
                self._backlog -= sum(write.rows for write in batch)
        try:
            # relaxed writes of the last moments reach the disk with it
            self._set_synchronous("FULL")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error:
            pass  # the write-ahead log stays, and the next start reads it

    def _next_batch(self) -> list[_Write]:
        """What waits, up to a bound; empty when closed and all is written."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_WRITES))]

    def _commit(self, batch: list[_Write]) -> None:
        wanted = [write for write in batch if write.future.set_running_or_notify_cancel()]
        results: list[Any] = []
        connection = self._connection
        try:
            self._set_synchronous("FULL" if any(write.durable for write in wanted) else "NORMAL")
            connection.execute("BEGIN IMMEDIATE")
            for write in wanted:
                results.append(_apply(connection, write))
            connection.execute("COMMIT")
        except Exception as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            for write in wanted:
                write.future.set_exception(error)
            return
        for write, result in zip(wanted, results):  # noqa: B905 - equal by construction
            if isinstance(result, _Failed):
                write.future.set_exception(result.error)
            else:
                write.future.set_result(result)

    def _set_synchronous(self, level: str) -> None:
        # of the connection, and only to be changed between transactions
        if level != self._synchronous:
            self._connection.execute(f"PRAGMA synchronous = {level}")
            self._synchronous = level


class _Failed(NamedTuple):
    error: Exception


def _apply(connection: sqlite3.Connection, write: _Write) -> Any:
    connection.execute("SAVEPOINT one")
    try:
        result = write.apply(connection)
    except Exception as error:
        if not connection.in_transaction:
            raise  # a full disk and its like undo the whole transaction by themselves
        connection.execute("ROLLBACK TO one")
        result = _Failed(error)
    connection.execute("RELEASE one")
    return result


def _connect(path: Path) -> sqlite3.Connection:
    # autocommit: transactions are spoken out; other processes may read, hence the patience
    return sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[tuple[str, str]]) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(migrations):
        raise RuntimeEnvironmentError(
            f"the journal {path} has schema {version}; this version knows {len(migrations)}",
            hint="use the newer remote_exec that wrote it, or another REMOTE_EXEC_HOME",
        )
    for number, (_, script) in enumerate(migrations[version:], start=version + 1):
        try:
            connection.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def parse_queries(text: str) -> dict[str, str]:
    """Return the statements of a .sql file by the ``-- name:`` line above each."""
    queries: dict[str, str] = {}
    for part in text.split("-- name: ")[1:]:
        name, _, body = part.partition("\n")
        queries[name.strip()] = "\n".join(
            line for line in body.splitlines() if not line.startswith("--")
        ).strip()
    return queries


def why_not_local(folder: Path, *, mountinfo: str | None = None) -> str | None:
    """Return why a folder is on no local disk, or None; where the system does not tell, it is taken for one.

    Args:
        folder: an existing folder.
        mountinfo: the text of ``/proc/self/mountinfo``; read from there unless given.
    """
    if mountinfo is None:
        try:
            mountinfo = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EACCES, errno.ENOTDIR):
                return None
            raise
    real = os.path.realpath(folder)
    best, filesystem = "", ""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) < 5 or not right:
            continue
        point = _unescape(fields[4])
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        # the last of equal mounts hides the others
        if inside and len(point) >= len(best):
            best, filesystem = point, right.split(" ", 1)[0]
    if filesystem in NETWORK_FILESYSTEMS or filesystem in NETWORK_FUSE:
        return f"{best} is a network file system ({filesystem}), where SQLite's locks cannot be trusted"
    return None


def _unescape(field: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field
