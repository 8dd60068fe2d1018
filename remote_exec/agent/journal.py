"""The agent's memory: jobs, attempts, outcomes, retention, and the fork servers that outlive an agent.

Not for what is only true while the agent lives (queues, leases, running attached calls), and not for bytes
that are big: those are blobs, and lie here by digest. The agent owns the one `Journal` of its layout; writes
return futures (see `database`), reads may be made from any thread and are short enough for the agent's loop.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from sqlite3 import Connection
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from ..model.errors import ConfigurationError
from ..model.job import (
    AttemptRecord,
    Cause,
    ForkServerRecord,
    JobRecord,
    JobState,
    Outcome,
    OutcomeKind,
)
from ..model.record import record
from .database import Database, Row, parse_queries
from .rows import attempt_facts, attempt_of, job_of, job_row, part_rows

T = TypeVar("T")
KINDS = ("job", "call", "array")
# a prefix that fewer names share is answered from the index of names, else from the index of times
FEW_NAMES = 500
Listener = Callable[[Sequence[str]], None]
# above all characters that a name can have
LAST = "\U0010ffff"

_SQL_FOLDER = os.path.join(os.path.dirname(__file__), "sql")


def _read_sql(name: str) -> str:
    with open(os.path.join(_SQL_FOLDER, name), encoding="utf-8") as file:
        return file.read()


_Q = parse_queries(_read_sql("queries.sql"))


class Cursor(NamedTuple):
    """Where a page of jobs ended: give it as `before` to get the next one."""

    created_at: float
    name: str


@record(kw_only=True)
class Page:
    """Jobs, newest first. `next` is None when there are no more."""

    jobs: tuple[JobRecord, ...]
    next: Cursor | None


@record(kw_only=True)
class Pruned:
    """What one batch of retention removed."""

    # whose folders (logs, working directories) can go
    jobs: tuple[str, ...] = ()
    # which no job refers to any longer
    blobs: tuple[str, ...] = ()
    # whether there is more to remove: call again
    more: bool = False


class Journal:
    """The journal. Built by `open` only.

    Example::

        journal = Journal.open(layout.journal)
        journal.create_job(record, spec_json="{}", payload=[b"..."]).result()
        journal.transition("train-1", expected={JobState.QUEUED}, state=JobState.RUNNING, started_at=now)
        journal.finish("train-1", state=JobState.SUCCEEDED, ended_at=now, outcome=outcome).result()
        journal.close()
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listeners: tuple[Listener, ...] = ()

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Open or create the journal at `path`, on a local disk.

        Raises:
            RuntimeEnvironmentError: SQLite is too old, the disk is a network's, or the file is damaged or
                was written by a newer version.
        """
        names = sorted(name for name in os.listdir(_SQL_FOLDER) if name[:4].isdigit())
        return cls(Database.open(path, migrations=[(name, _read_sql(name)) for name in names]))

    @property
    def database(self) -> Database:
        """The file, for whoever keeps other tables in it."""
        return self._database

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Have a function told the names of jobs that were changed or removed, in the writer's thread.

        Returns:
            What ends that.
        """
        self._listeners = (*self._listeners, listener)

        def end() -> None:
            self._listeners = tuple(one for one in self._listeners if one != listener)

        return end

    def written(self) -> Future[None]:
        """Return a future that resolves when all that was to be written until now has been."""
        return self._database.submit(lambda _: None, durable=False)

    def close(self) -> None:
        """Write what waits, sync it and close; twice does no harm."""
        self._database.close()

    # ── jobs

    def create_job(
        self, record: JobRecord, *, spec_json: str, payload: Sequence[bytes | str] = ()
    ) -> Future[None]:
        """Make a job durable, so that it can be acknowledged.

        Args:
            record: queued, or running where a running call becomes a job.
            spec_json: what the job asks for; returned by `spec` as it is.
            payload: the pickled call, in order: bytes are kept inline, a string is a blob's digest.

        Raises:
            ConfigurationError: through the future: a job of that name exists.
            ValueError: the record's state is final; `finish` ends a job.
        """
        if record.state.final:
            raise ValueError(
                f"job {record.name!r} cannot begin as {record.state.value}; create it, then finish"
            )

        def apply(connection: Connection) -> None:
            rows = connection.execute(_Q["insert_job"], job_row(record)).fetchall()
            if not rows:
                raise ConfigurationError(
                    f"a job named {record.name!r} exists on this host",
                    option="job_name",
                    hint="choose another name, or get_future(name) for that job's result",
                )
            connection.execute(_Q["count_inserted"], {"last_id": rows[0][0] - 1})
            connection.execute(_Q["insert_spec"], (rows[0][0], spec_json))
            connection.executemany(_Q["insert_part"], part_rows(rows[0][0], "payload", payload))

        return self._told([record.name], self._database.submit(apply, durable=True))

    def transition(
        self,
        name: str,
        *,
        expected: Collection[JobState],
        state: JobState,
        started_at: float | None = None,
        summary: str | None = None,
        attempts: int | None = None,
        durable: bool = False,
    ) -> Future[bool]:
        """Set a job's state if it is one of `expected`; the future says whether it was. Facts left None stay.

        Raises:
            ValueError: `state` is final; `finish` ends a job.
        """
        if state.final:
            raise ValueError(f"job {name!r} cannot become {state.value} without an outcome; use finish")
        facts = {
            "name": name,
            "state": state.value,
            "started_at": started_at,
            "summary": summary,
            "attempts": attempts,
        }

        def apply(connection: Connection) -> bool:
            return any(
                connection.execute(_Q["transition"], {**facts, "expected": one.value}).fetchall()
                for one in expected
            )

        return self._told([name], self._database.submit(apply, durable=durable))

    def finish(
        self,
        name: str,
        *,
        state: JobState,
        ended_at: float,
        outcome: Outcome,
        cause: Cause = Cause.NONE,
        summary: str = "",
        failed: int | None = None,
    ) -> Future[bool]:
        """End a job durably and once; False means that it has ended before, or is not known.

        A call that was recorded with its end gets the outcome that its caller has not taken.

        Args:
            name: the job.
            state: a final one; it succeeds exactly with an ok outcome.
            ended_at: UTC, seconds since the epoch.
            outcome: what its future will give, from now until its retention ends.
            cause: why it ended.
            summary: one line for lists.
            failed: for arrays, how many calls failed.

        Raises:
            ValueError: state and outcome contradict each other.
        """
        if not state.final or (state is JobState.SUCCEEDED) != (outcome.kind is OutcomeKind.OK):
            raise ValueError(f"job {name!r} cannot end as {state.value} with outcome {outcome.kind.value}")
        facts = {
            "name": name,
            "state": state.value,
            "ended_at": ended_at,
            "cause": cause.value,
            "summary": summary,
            "failed": failed,
        }

        def apply(connection: Connection) -> bool:
            rows = connection.execute(_Q["finish"], facts).fetchall()
            rows = rows or connection.execute(_Q["ended_without_outcome"], facts).fetchall()
            if not rows:
                return False
            connection.execute(_Q["insert_outcome"], (rows[0][0], outcome.kind.value, outcome.failure))
            connection.executemany(_Q["insert_part"], part_rows(rows[0][0], "outcome", outcome.parts))
            return True

        return self._told([name], self._database.submit(apply, durable=True))

    def record_calls(
        self,
        records: Sequence[JobRecord],
        attempts: Sequence[AttemptRecord] = (),
        *,
        failures: Mapping[str, str] = MappingProxyType({}),
    ) -> Future[None]:
        """Record calls and arrays that have ended, relaxed; a call whose name is known changes nothing.

        Args:
            records: what is listed; an array whose name is known is added to it.
            attempts: how those of them that took a while came to run.
            failures: as JSON, of some of those that are new, by name: they become their outcomes.

        Raises:
            ValueError: a record has not ended.
        """
        rows = [job_row(record) for record in records]
        for call in records:
            if not call.state.final or call.ended_at is None:
                raise ValueError(f"call {call.name!r} is {call.state.value}; record it when it has ended")

        def apply(connection: Connection) -> None:
            ((last_id,),) = connection.execute(_Q["last_id"]).fetchall()
            connection.executemany(_Q["record_call"], rows)
            connection.execute(_Q["count_inserted"], {"last_id": last_id})
            connection.executemany(
                _Q["record_failure"],
                [{"name": name, "failure": text, "last_id": last_id} for name, text in failures.items()],
            )
            connection.executemany(_Q["record_attempt"], [attempt_facts(attempt) for attempt in attempts])

        names = [record.name for record in records]
        return self._told(names, self._database.submit(apply, durable=False, rows=len(rows)))

    def start_attempt(self, attempt: AttemptRecord, *, durable: bool = False) -> Future[bool]:
        """Add an attempt that has not ended; False when its job has ended or its number was used."""
        facts = attempt_facts(attempt)

        def apply(connection: Connection) -> bool:
            rows = connection.execute(_Q["start_attempt"], facts).fetchall()
            for (job_id,) in rows:
                connection.execute(_Q["count_attempt"], {**facts, "id": job_id})
            return bool(rows)

        return self._told([attempt.job], self._database.submit(apply, durable=durable))

    def withdraw_attempt(self, job: str, number: int) -> None:
        """Forget an attempt that never began."""

        def apply(connection: Connection) -> None:
            connection.execute(_Q["withdraw_attempt"], (job, number))

        self._told([job], self._database.submit(apply, durable=False))

    def end_attempt(self, attempt: AttemptRecord, *, durable: bool = False) -> Future[bool]:
        """End an attempt, with its cause, certificate and phases; False when it has ended or is not known."""
        facts = attempt_facts(attempt)

        def apply(connection: Connection) -> bool:
            rows = connection.execute(_Q["end_attempt"], facts).fetchall()
            for (job_id,) in rows:
                connection.execute(_Q["let_go"], {**facts, "id": job_id})
            return bool(rows)

        return self._told([attempt.job], self._database.submit(apply, durable=durable))

    def get(self, name: str) -> JobRecord | None:
        """Return one job or call, or None."""
        rows = self._database.read(_Q["job"], (name,))
        return job_of(rows[0]) if rows else None

    def spec(self, name: str) -> str | None:
        """Return what a job asked for, as `create_job` was given it; None for calls and unknown names."""
        rows = self._database.read(_Q["spec"], (name,))
        return str(rows[0][0]) if rows else None

    def payload(self, name: str) -> tuple[bytes | str, ...]:
        """Return a job's pickled call: bytes, or digests of blobs, in order."""
        return self._parts(name, "payload")

    def outcome(self, name: str) -> Outcome | None:
        """Return how a job ended; None while it has not, and for calls that returned: their caller has the value."""
        rows = self._database.read(_Q["outcome"], (name,))
        if not rows:
            return None
        kind, failure = rows[0]
        return Outcome(kind=OutcomeKind(kind), failure=failure, parts=self._parts(name, "outcome"))

    def attempts(self, name: str) -> tuple[AttemptRecord, ...]:
        """Return all tries at a job, in order."""
        return tuple(attempt_of(name, row) for row in self._database.read(_Q["attempts"], (name,)))

    def unfinished(self) -> tuple[JobRecord, ...]:
        """Return what had not ended, oldest first: where an agent begins after another's death."""
        return tuple(job_of(row) for row in self._database.read(_Q["unfinished"]))

    def list(
        self,
        *,
        prefix: str = "",
        kinds: Collection[str] = KINDS,
        states: Collection[JobState] = tuple(JobState),
        before: Cursor | None = None,
        limit: int = 100,
    ) -> Page:
        """Return a page of jobs and calls, newest first.

        Args:
            prefix: how their names begin.
            kinds: of "job", "call", "array".
            states: those wanted.
            before: the last page's `next`.
            limit: how many at most.
        """
        bounds = {
            "time": before.created_at if before else float("inf"),
            "before": before.name if before else LAST,
            "low": prefix,
            "high": prefix + LAST,
            "limit": limit,
        }
        rows = sorted(self._rows(bounds, kinds, states), key=_key, reverse=True)[:limit]
        return Page(
            jobs=tuple(map(job_of, rows)),
            next=Cursor(*_key(rows[-1])) if rows and len(rows) == limit else None,
        )

    def count_by_state(self) -> dict[JobState, int]:
        """Return how many rows stand in each state, calls and arrays included."""
        return {JobState(state): count for state, count in self._database.read(_Q["count_by_state"])}

    # ── retention

    def referenced_blobs(self) -> set[str]:
        """Return the digests that jobs need: roots for the cache's garbage collection."""
        return {row[0] for row in self._database.read(_Q["referenced_blobs"])}

    def prune(
        self,
        *,
        ended_before: float,
        max_rows: int,
        max_bytes: int,
        keep: Collection[str] = (),
        batch_rows: int = 200,
    ) -> Future[Pruned]:
        """Remove one batch of what has ended, oldest end first; call again while the answer says `more`.

        Args:
            ended_before: UTC; what ended earlier goes.
            max_rows: how many ended rows may stay.
            max_bytes: how much the journal may hold.
            keep: names that stay, such as those whose result somebody waits for.
            batch_rows: how many rows at most in this transaction, so that other writes get between.
        """
        kept = frozenset(keep)

        def apply(connection: Connection) -> Pruned:
            ((used_bytes,),) = connection.execute(_Q["used_bytes"]).fetchall()
            ((ended,),) = connection.execute(_Q["count_ended"]).fetchall()
            excess = batch_rows if used_bytes > max_bytes else ended - max_rows
            rows = connection.execute(_Q["oldest_ended"], (batch_rows + len(kept),)).fetchall()
            free = [(id_, name, at) for id_, name, at in rows if name not in kept][:batch_rows]
            gone = [row for number, row in enumerate(free) if number < excess or row[2] < ended_before]
            blobs = _delete(connection, [row[0] for row in gone])
            names = tuple(row[1] for row in gone)
            return Pruned(jobs=names, blobs=blobs, more=len(gone) == batch_rows)

        pruned = self._database.submit(apply, durable=False, rows=batch_rows)
        pruned.add_done_callback(lambda done: None if done.exception() else self._tell(done.result().jobs))
        return pruned

    # ── fork servers

    def add_fork_server(self, record: ForkServerRecord) -> Future[None]:
        """Note a fork server, so that the next agent can adopt it; the same id again replaces it."""
        row = (record.id, record.pid, record.socket, record.pool_key, record.started_at)

        def apply(connection: Connection) -> None:
            connection.execute(_Q["add_fork_server"], row)

        return self._database.submit(apply, durable=False)

    def remove_fork_server(self, id: str) -> Future[bool]:  # noqa: A002 - the record's own word
        """Forget a fork server that has ended; False when it is not known."""

        def apply(connection: Connection) -> bool:
            return bool(connection.execute(_Q["remove_fork_server"], (id,)).fetchall())

        return self._database.submit(apply, durable=False)

    def fork_servers(self) -> tuple[ForkServerRecord, ...]:
        """Return all that may still live, oldest first."""
        return tuple(
            ForkServerRecord(id=id_, pid=pid, socket=socket, pool_key=pool_key, started_at=started_at)
            for id_, pid, socket, pool_key, started_at in self._database.read(_Q["fork_servers"])
        )

    # ── inside

    def _told(self, names: Sequence[str], written: Future[T]) -> Future[T]:
        if self._listeners:
            written.add_done_callback(lambda _: self._tell(names))
        return written

    def _tell(self, names: Sequence[str]) -> None:
        for listener in self._listeners:
            listener(names)

    def _parts(self, name: str, role: str) -> tuple[bytes | str, ...]:
        rows = self._database.read(_Q["parts"], (name, role))
        return tuple(data if digest is None else digest for data, digest in rows)

    def _rows(
        self, bounds: dict[str, Any], kinds: Collection[str], states: Collection[JobState]
    ) -> Iterable[Row]:
        """The rows that a page could show: a limit of each kind and state."""
        read = self._database.read
        values = {state.value for state in states}
        if bounds["low"]:
            rows = read(_Q["by_prefix"], {**bounds, "limit": FEW_NAMES + 1})
            if len(rows) <= FEW_NAMES:
                before = (bounds["time"], bounds["before"])
                return [row for row in rows if _key(row) < before and row[1] in kinds and row[3] in values]
        if len(set(kinds)) == len(KINDS) and len(values) == len(JobState):
            return read(_Q["page"], bounds)
        return [
            row
            for kind in set(kinds)
            for state in values
            for row in read(_Q["page_of_kind_and_state"], {**bounds, "kind": kind, "state": state})
        ]


def _key(row: Row) -> tuple[float, str]:
    return row[4], row[0]


def _delete(connection: Connection, ids: Sequence[int]) -> tuple[str, ...]:
    """Delete rows; return the digests that nothing refers to any longer."""
    digests = {d for id_ in ids for (d,) in connection.execute(_Q["digests_of_job"], (id_,)).fetchall()}
    connection.executemany(_Q["delete_job"], [(id_,) for id_ in ids])
    return tuple(
        sorted(d for d in digests if not connection.execute(_Q["blob_is_referenced"], (d,)).fetchall())
    )
