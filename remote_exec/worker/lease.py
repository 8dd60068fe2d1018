"""One lease as its worker sees it: call stream, functions, what runs now, what is not acknowledged.

Main thread and attendant share it. Fields that both touch are single attributes (assignments are atomic) or are
guarded by `lock`.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..model.job import AttemptRecord, Cause, JobRecord, JobState, Phase
from ..model.record import record
from ..wire.protocol import Attach
from ..wire.stream import CallStream

RECORDED_ALONE_SECONDS = 0.05  # a silent success shorter than this is summed up with its like
TOLD_SECONDS = 0.5  # a call that took longer is recorded with the phases of its way


@record(frozen=False)
class Function:
    """What a DEFINE frame made: the function, or why it could not be loaded."""

    name: str = "function"
    call: Callable[..., Any] | None = None
    failure: str = ""
    max_runtime_seconds: float = 0.0
    pre_execution: tuple[str, ...] = ()


@dataclass
class Outcome:
    """What a call came to; kept until the client has acknowledged it."""

    call: int
    function: str
    started_at: float
    ended_at: float
    ok: bool
    stream: list[Any]  # the pickle in chunks, or the failure's JSON
    buffers: Sequence[Any] = ()
    cause: Cause = Cause.NONE
    summary: str = ""


class Lease:
    """The worker's side of one lease."""

    def __init__(self, attach: Attach, stream: CallStream) -> None:
        self.attach = attach
        self.id = attach.lease
        self.stream = stream
        self.lock = threading.Lock()
        self.functions: dict[int, Function] = {}
        self.working_folder = ""
        # the running call: its number is set last and cleared first, and 0 means that none runs
        self.running = 0
        self.running_function = ""
        self.started_at = 0.0
        self.reported = False  # the agent has been told that the running call runs
        self.interrupted: dict[int, str] = {}  # call number -> reason, for calls to be stopped
        self.stopping: set[int] = set()  # calls whose end the agent waits for
        self.interrupting = 0  # a call for which a signal is under way
        self.orphaned = False
        self.finished = False
        self.unacknowledged: deque[Outcome] = deque()
        # what calls that have not ended had waited for before they began
        self.phases: dict[int, tuple[Phase, ...]] = {1: attach.phases} if attach.phases else {}
        self._records: list[JobRecord] = []
        self._attempts: list[AttemptRecord] = []
        self._short: dict[str, list[float]] = {}  # function -> [count, first start, last end]

    def name_of(self, call: int, function: str) -> str:
        """The name by which a call of this lease is known everywhere."""
        return self.attach.job or call_name(function, self.id, call)

    def acknowledge(self, call: int) -> None:
        """Forget outcomes that the client has taken in."""
        while self.unacknowledged and self.unacknowledged[0].call <= call:
            self.unacknowledged.popleft()

    def record(self, outcome: Outcome, *, printed: bool) -> None:
        """Remember an ended call for the journal."""
        length = outcome.ended_at - outcome.started_at
        with self.lock:
            waited = self._waited(outcome.call) if self.phases else 0.0
            if outcome.ok and not printed and length < RECORDED_ALONE_SECONDS and not waited > TOLD_SECONDS:
                row = self._short.setdefault(outcome.function, [0, outcome.started_at, 0.0])
                row[0] += 1
                row[2] = outcome.ended_at
            else:
                self._records.append(self.to_record(outcome))
                if length + waited > TOLD_SECONDS:
                    self._attempts.append(self.to_attempt(outcome))
            self.phases.pop(outcome.call, None)

    def record_many(self, function: str, count: int, started_at: float) -> None:
        """Remember quick successes of a batch."""
        with self.lock:
            row = self._short.setdefault(function, [0, started_at, 0.0])
            row[0] += count
            row[2] = time.time()

    def take_records(self) -> tuple[tuple[JobRecord, ...], tuple[AttemptRecord, ...]]:
        """Return what is to be told to the journal, and forget it."""
        with self.lock:
            records, self._records = self._records, []
            attempts, self._attempts = self._attempts, []
            short, self._short = self._short, {}
        for function, (count, first, last) in short.items():
            records.append(
                JobRecord(
                    name=call_name(function, self.id, 0),
                    kind="array",
                    function=function,
                    state=JobState.SUCCEEDED,
                    created_at=first,
                    started_at=first,
                    ended_at=last,
                    count=int(count),
                )
            )
        return tuple(records), tuple(attempts)

    def to_attempt(self, outcome: Outcome) -> AttemptRecord:
        """Return the journal's row for the one try at a call."""
        return AttemptRecord(
            job=self.name_of(outcome.call, outcome.function),
            number=1,
            state=_state_of(outcome),
            cause=outcome.cause,
            worker_pid=os.getpid(),
            started_at=outcome.started_at,
            ended_at=outcome.ended_at,
            phases=self.phases.get(outcome.call, ()),
        )

    def to_record(self, outcome: Outcome) -> JobRecord:
        """Return the journal's row for an outcome."""
        return JobRecord(
            name=self.name_of(outcome.call, outcome.function),
            kind="call",
            function=outcome.function,
            state=_state_of(outcome),
            created_at=outcome.started_at - self._waited(outcome.call),
            started_at=outcome.started_at,
            ended_at=outcome.ended_at,
            cause=outcome.cause,
            summary=outcome.summary,
        )

    def _waited(self, call: int) -> float:
        return sum(phase.seconds for phase in self.phases.get(call, ()))

    def enter_folder(self) -> None:
        """Be where the caller was at the call."""
        if self.working_folder:
            with contextlib.suppress(OSError):  # it may be gone, and so may the one we are in
                if _here() != self.working_folder:
                    os.chdir(self.working_folder)


def _state_of(outcome: Outcome) -> JobState:
    if outcome.cause in (Cause.CANCELLED, Cause.INTERRUPTED):
        return JobState.CANCELLED
    return JobState.SUCCEEDED if outcome.ok else JobState.FAILED


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""


def call_name(function: str, lease: str, call: int) -> str:
    """Return the name of a call: ``train-0k3f9x2ab1c4-7``."""
    return f"{function}-{lease}-{call}"
