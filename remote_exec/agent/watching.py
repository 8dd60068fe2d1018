"""What a client is told that watches the jobs: the newest there are, then each change, for as long as it is there.

A change is told some moments later, together with all others of these moments; a client that does not take what it is
told is told less often, never of less. The agent keeps names for it, no messages.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..model.job import JobRecord, JobState
from ..wire.messages import to_plain
from ..worker.joblog import LOG_NAME
from . import requests
from .journal import Cursor

if TYPE_CHECKING:
    from .leases import Client
    from .service import Agent

TURN_SECONDS = 0.2
BACKLOG_SECONDS = 0.05
PIECE_ROWS = 250  # at once: the loop has others to serve
MOST_ROWS = 20_000
LOOKS = 64  # at logs, for progress, in one turn
READS = 8  # of them, where they have grown


class Watch:
    """Answers one request "watch": rows as those of "jobs", names that are gone, how many stand in each state.

    The first answers are the newest rows; in the last of them `whole` is true, and `older` says whether there are more.
    """

    def __init__(self, agent: Agent, client: Client, send: Callable[..., None]) -> None:
        self._agent = agent
        self._client = client
        self._send = send
        self._lock = threading.Lock()
        self._touched: dict[str, None] = {}  # in order
        self._live: dict[str, JobRecord] = {}
        self._progress: dict[str, tuple[tuple[int, ...], list[dict[str, Any]]]] = {}
        self._turns = 0
        self._end = agent.journal.listen(self._touch)
        self._tell_page(None, 0)

    def _touch(self, names: Sequence[str]) -> None:
        with self._lock:
            self._touched.update(dict.fromkeys(names))

    def _is_gone(self) -> bool:
        if self._client.link.closed:
            self._end()
        return self._client.link.closed

    def _tell_page(self, before: Cursor | None, told: int) -> None:
        if self._is_gone():
            return
        if self._client.link.backlog:
            self._agent.reactor.after(BACKLOG_SECONDS, lambda: self._tell_page(before, told))
            return
        rows: list[dict[str, Any]] = []
        if before is None:
            self._live = self._calls()
            rows += [to_plain(self._agent.journal.get(name) or call) for name, call in self._live.items()]
        page = self._agent.journal.list(before=before, limit=PIECE_ROWS)
        rows += [to_plain(record) for record in page.jobs if record.name not in self._live]
        told += len(page.jobs)
        whole = page.next is None or told >= MOST_ROWS
        self._tell(rows, whole=whole, older=page.next is not None)
        if whole:
            self._agent.reactor.after(0.0, self._turn)
        else:
            self._agent.reactor.after(0.0, lambda: self._tell_page(page.next, told))

    def _turn(self) -> None:
        if self._is_gone():
            return
        self._agent.reactor.after(TURN_SECONDS, self._turn)
        if self._client.link.backlog:
            return
        live, before = self._calls(), self._live
        self._live = live
        self._touch([name for name in before if name not in live])
        self._touch([name for name, record in live.items() if before.get(name) is not record])
        self._touch(self._with_progress())
        with self._lock:
            names = list(self._touched)[:PIECE_ROWS]
            for name in names:
                del self._touched[name]
        rows: list[dict[str, Any]] = []
        gone: list[str] = []
        for name in names:
            record = self._agent.journal.get(name) or live.get(name)
            if record is None:
                gone.append(name)
            else:
                rows.append(to_plain(record))
        if names:
            self._tell(rows, gone=gone)

    def _tell(
        self, rows: list[dict[str, Any]], *, gone: Sequence[str] = (), whole: bool = True, older: bool = False
    ) -> None:
        counts = {state.value: count for state, count in self._agent.journal.count_by_state().items()}
        for row in rows:
            known = self._progress.get(row["name"])
            row["progress"] = known[1] if known is not None and row["state"] == "running" else []
        unwritten = sum(1 for name in self._live if self._agent.journal.get(name) is None)
        counts["running"] = counts.get("running", 0) + unwritten
        told = {"jobs": rows, "gone": list(gone), "counts": counts, "whole": whole, "older": older}
        self._send(told, more=True)

    def _calls(self) -> dict[str, JobRecord]:
        """The calls that run and are not written down yet; a job's own call is listed as the job."""
        jobs, calls = self._agent.jobs, self._agent.running.records
        return {name: record for name, record in calls.items() if name not in jobs}

    def _with_progress(self) -> list[str]:
        """Return what has got on since the last turn: a few are looked at in each."""
        jobs = self._agent.jobs.values()
        running = {job.name: job.record.attempts for job in jobs if job.record.state is JobState.RUNNING}
        running |= {name: record.attempts for name, record in self._live.items()}
        for name in [name for name in self._progress if name not in running]:
            del self._progress[name]
        self._turns += 1
        names = list(running)
        start = self._turns * LOOKS % max(1, len(names)) if len(names) > LOOKS else 0
        changed: list[str] = []
        reads = 0
        for name in (names[start:] + names[:start])[:LOOKS]:
            size, bars = self._log_size(name, running[name]), self._progress.get(name, ((), []))
            if size == bars[0] or reads >= READS:
                continue
            reads += 1
            found: list[dict[str, Any]] = requests._last("progress", self._agent, name, running[name]) or []
            self._progress[name] = (size, found)
            if found != bars[1]:
                changed.append(name)
        return changed

    def _log_size(self, name: str, attempts: int) -> tuple[int, ...]:
        sizes: list[int] = []
        for _, folder, _ in requests._log_folders(self._agent, name, attempts):
            for part in ("", ".a", ".b"):
                try:
                    sizes.append(os.stat(folder / f"{LOG_NAME}{part}").st_size)
                except OSError:
                    sizes.append(-1)
        return tuple(sizes)
