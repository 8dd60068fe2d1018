"""What whoever looks at a call is told beside its row: the code that ran, its environment, what came of it.

Workers tell the code with the calls that are listed; it lies in the journal's file once for all calls of a function.
Nothing is kept here, and any thread may use it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from concurrent.futures import Future
from sqlite3 import Connection
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ..model.digests import digest_of
from ..serial import sources
from .database import parse_queries

if TYPE_CHECKING:
    from ..model.job import JobRecord
    from ..model.pool import PoolSpec
    from .journal import Journal

About = dict[str, Any]

with open(os.path.join(os.path.dirname(__file__), "sql", "abouts.sql"), encoding="utf-8") as _file:
    _Q = parse_queries(_file.read())


class Noted(NamedTuple):
    """What a worker that died had noted of the call that it ran."""

    function: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    about: str = ""


def about_of(text: str, pool: PoolSpec | None) -> About:
    """Return what is told of a call.

    Args:
        text: what its worker says, see `worker.about`.
        pool: that the worker is of, where that is known.
    """
    found = _facts(text)
    if pool is not None and pool.environment.python:
        environment = pool.environment
        found["environment"] = {
            "kind": environment.kind.value,
            "python": environment.python,
            "requirements": list(environment.requirements),
        }
    return found


def noted(text: str) -> Noted:
    """Return what a worker had noted that is dead; as much as can be understood of it."""
    facts = _facts(text)
    try:
        tags = tuple((str(key), str(value)) for key, value in facts.get("tags", ()))
    except (TypeError, ValueError):
        tags = ()
    code, lines = facts.get("code"), facts.get("lines")
    if isinstance(lines, str):
        code = sources.block_of(lines)
    return Noted(
        str(facts.get("function", "")), tags, json.dumps({"code": code}) if isinstance(code, str) else ""
    )


def _facts(text: str) -> About:
    try:
        found: Any = json.loads(text or "{}")
    except ValueError:  # cut off, as its worker died
        return {}
    return cast("About", found) if isinstance(found, dict) else {}


def put(journal: Journal, abouts: Iterable[tuple[About, Iterable[str]]]) -> Future[None]:
    """Write down what is told of calls, by their names; they are in the journal, or were submitted to it before."""
    rows = [(json.dumps(about), list(names)) for about, names in abouts if about]

    def apply(connection: Connection) -> None:
        for text, names in rows:
            digest = digest_of(text)
            connection.execute(_Q["put_about"], {"digest": digest, "about": text})
            connection.executemany(_Q["tell"], [{"name": name, "digest": digest} for name in names])

    return journal.database.submit(apply, durable=False, rows=sum(len(names) for _, names in rows))


def get(journal: Journal, name: str) -> About:
    """Return what is told of a call; empty where nothing is, and for jobs."""
    rows = journal.database.read(_Q["about"], (name,))
    return _facts(rows[0][0]) if rows else {}


def newest_tagged(journal: Journal, prefix: str, tag: tuple[str, str]) -> JobRecord | None:
    """Return the newest call whose name begins so and that has this tag, or None."""
    from .journal import LAST

    bounds = {"low": prefix, "high": prefix + LAST, "tag": json.dumps(tag)}
    rows = journal.database.read(_Q["newest_tagged"], bounds)
    return journal.get(rows[0][0]) if rows else None


def prune(journal: Journal) -> Future[int]:
    """Remove what is told of calls that are gone; the future says how much that was."""

    def apply(connection: Connection) -> int:
        return len(connection.execute(_Q["prune_abouts"]).fetchall())

    return journal.database.submit(apply, durable=False)
