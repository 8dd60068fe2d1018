"""One page that looks: what it is sent of each thing that it looks at, as often as it takes it.

There is no queue: each look has a task that works out one frame, sends it, and goes on when it has left. Who reads
slowly is sent less often what has changed since the last time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal, Protocol

from .answers import Answers
from .asked import Leave, Look, message_of
from .board import LOCAL, difference
from .looks import LookAtJob, LookAtJobs, LookAtLogs, LookAtMetrics
from .messages import (
    FRAME_SECONDS,
    UNFINISHED,
    JobDetail,
    Jobs,
    Problem,
    Sent,
)
from .problems import problem_of
from .series import AllSeries

MOST_LOOKS = 32
JOB_SECONDS = 1.0  # how often one looks at what a job that runs waits for and uses
HOSTS_SECONDS = 2.0
HOSTS_PATIENCE_SECONDS = 1.0  # for hosts that do not answer at once: what they say is sent the next time
METRICS_SECONDS = 0.5
QUIET_SECONDS = 10.0  # without any change, one looks nevertheless
AGAIN_SECONDS = 2.0
LASTING = (400, 404)  # statuses that no waiting mends

_log = logging.getLogger(__name__)

Threads = Callable[..., Awaitable[Any]]
Kind = Literal["snapshot", "changes", "problem"]


class Pulse:
    """Tells tasks of a change that was made in any thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event = asyncio.Event()

    def next(self) -> asyncio.Event:
        """Return what is set with the next change. To be asked for before one looks: no change is missed then."""
        self._loop = asyncio.get_running_loop()
        return self._event

    def beat(self) -> None:
        """There is a change."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._beat)

    def _beat(self) -> None:
        event, self._event = self._event, asyncio.Event()
        event.set()


async def _either(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


class Gone(Exception):  # noqa: N818 - it is no mistake
    """The page's connection has ended."""


class _Send(Protocol):
    async def __call__(self, kind: Kind, value: object = None, problem: Problem | None = None) -> None: ...


class Page:
    """See the module's docstring. To be used in the loop's thread.

    Args:
        answers: who knows.
        pulse: beats with each change.
        threads: awaits a function that blocks.
        write: sends a text, and returns when it has left.
    """

    def __init__(
        self, answers: Answers, pulse: Pulse, threads: Threads, write: Callable[[str], Awaitable[None]]
    ) -> None:
        self._answers = answers
        self._pulse = pulse
        self._threads = threads
        self._write = write
        self._writing = asyncio.Lock()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._at: dict[str, Callable[[Any, _Send], Awaitable[None]]] = {
            "jobs": self._jobs,
            "job": self._job,
            "logs": self._logs,
            "metrics": self._metrics,
            "hosts": self._hosts,
            "status": self._status,
        }

    def hear(self, text: str | bytes) -> None:
        """Take in what the client says."""
        try:
            said = message_of(text)
        except Exception as error:
            self._begin(0, self._refuse(0, problem_of(error)))
            return
        if isinstance(said, Leave):
            self._stop(said.id)
        elif len(self._tasks) >= MOST_LOOKS and said.id not in self._tasks:
            problem = Problem(f"one page looks at {MOST_LOOKS} things at the most", "", 400)
            self._begin(said.id, self._refuse(said.id, problem))
        else:
            self._begin(said.id, self._serve(said))

    def close(self) -> None:
        """The page has gone."""
        for number in list(self._tasks):
            self._stop(number)

    def _begin(self, number: int, work: Any) -> None:
        self._stop(number)
        task = self._tasks[number] = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(lambda done: self._ended(number, done))

    def _stop(self, number: int) -> None:
        task = self._tasks.pop(number, None)
        if task is not None:
            task.cancel()

    def _ended(self, number: int, task: asyncio.Task[None]) -> None:
        if self._tasks.get(number) is task:
            del self._tasks[number]
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, Gone):
            _log.error("a page is told no more of one thing", exc_info=error)

    # --- frames -----------------------------------------------------------------------------------------------

    async def _refuse(self, number: int, problem: Problem) -> None:
        await self._frame(Sent("problem", number, "status", 1, problem=problem))

    async def _frame(self, sent: Sent) -> None:
        text: str = await self._threads(to_json, sent)
        async with self._writing:
            await self._write(text)

    async def _serve(self, look: Look) -> None:
        sequence = 0

        async def send(kind: Kind, value: object = None, problem: Problem | None = None) -> None:
            nonlocal sequence
            sequence += 1
            await self._frame(Sent(kind, look.id, look.at, sequence, value, problem))

        while True:
            try:
                await self._at[look.at](look.what, send)
                return
            except Gone:
                return
            except Exception as error:
                problem = problem_of(error)
                if problem.status == 500:
                    _log.exception("what a page looks at cannot be told: %r", look)
            with contextlib.suppress(Gone):
                await send("problem", problem=problem)
            if problem.status in LASTING:
                return
            await asyncio.sleep(AGAIN_SECONDS)

    # --- what is looked at ------------------------------------------------------------------------------------

    async def _jobs(self, look: LookAtJobs, send: _Send) -> None:
        await self._threads(lambda: self._answers.agents.ready(whole=False))
        last: Jobs | None = None
        while True:
            event = self._pulse.next()
            now: Jobs = await self._threads(self._answers.agents.board.window, look)
            changes = difference(last, now) if last is not None else None
            if last is None or (changes is not None and len(changes.changed) > len(now.jobs) // 2):
                await send("snapshot", now)
            elif changes is not None:
                await send("changes", changes)
            last = now
            await asyncio.sleep(FRAME_SECONDS)
            await _either(event, QUIET_SECONDS)

    async def _job(self, look: LookAtJob, send: _Send) -> None:
        board, host = self._answers.agents.board, look.host
        last: JobDetail | None = None
        while True:
            event, at = self._pulse.next(), time.monotonic()
            row = board.row(host or LOCAL, look.name)
            now: JobDetail = await self._threads(self._answers.job, look.name, host)
            host = now.job.host
            if now != last:
                await send("snapshot", now)
            last = now
            await asyncio.sleep(FRAME_SECONDS)
            limit = JOB_SECONDS if now.job.state in UNFINISHED else QUIET_SECONDS
            while board.row(host, look.name) is row and time.monotonic() - at < limit:
                await _either(event, limit)
                event = self._pulse.next()

    async def _logs(self, look: LookAtLogs, send: _Send) -> None:
        offset = look.start
        kind: Kind = "snapshot"
        while True:
            piece = await self._threads(self._answers.logs, look.name, look.host, offset)
            if piece.records or piece.end or kind == "snapshot":
                await send(kind, piece)
            if piece.end:
                return
            offset, kind = piece.next, "changes"
            await asyncio.sleep(FRAME_SECONDS)

    async def _metrics(self, look: LookAtMetrics, send: _Send) -> None:
        series = AllSeries()
        kind: Kind = "snapshot"
        while True:
            ended = await self._threads(self._answers.metrics, look.name, look.host, series)
            changes = series.changes(end=ended)
            if changes.series or ended or kind == "snapshot":
                await send(kind, changes)
            if ended:
                return
            kind = "changes"
            await asyncio.sleep(METRICS_SECONDS)

    async def _hosts(self, _: None, send: _Send) -> None:
        while True:
            await send("snapshot", await self._threads(self._answers.hosts, HOSTS_PATIENCE_SECONDS))
            await asyncio.sleep(HOSTS_SECONDS)

    async def _status(self, _: None, send: _Send) -> None:
        await self._threads(lambda: self._answers.agents.ready(whole=False))
        last, number = None, None
        while True:
            event = self._pulse.next()
            now, number = await self._threads(self._answers.status, number)
            if now != last:
                await send("snapshot", now)
            last = now
            await asyncio.sleep(FRAME_SECONDS)
            await _either(event, QUIET_SECONDS)


def to_json(value: object) -> str:
    """Return a message as JSON."""
    return json.dumps(value, default=vars, allow_nan=False)
