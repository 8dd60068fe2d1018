"""One lease as its worker sees it: call stream, functions, what runs now, what is not acknowledged.

Main thread and attendant share it. Fields that both touch are single attributes (assignments are atomic) or are
guarded by `lock`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any, NamedTuple

from ..model.errors import ProtocolError
from ..model.group import Group
from ..model.job import AttemptRecord, Cause, JobRecord, JobState, Phase
from ..model.record import record
from ..wire.frames import FUNCTIONS_KEPT
from ..wire.protocol import Attach, CallOrphaned, CallRunning, StreamArrived
from ..wire.stream import CallStream
from .about import About
from .metric_log import MetricLog

if TYPE_CHECKING:
    from .batches import Batch

SUMMED = 0  # the number in the name of a lease's array of calls that have no record of their own
RECORDED_ALONE_SECONDS = 0.05  # a silent success shorter than this is summed up with its like
FAILURE_CHARS = 4 << 20  # of failures that the journal gets at once from one lease, ...
FAILURE_CHARS_PER_SECOND = 64 << 10  # ... and in the long run
TOLD_SECONDS = 0.5  # a call that took longer is recorded with the phases of its way


@record(frozen=False)
class Function:
    """What a DEFINE frame made: the function, or why it could not be loaded."""

    about: About = field(default_factory=About)
    call: Callable[..., Any] | None = None
    failure: str = ""
    max_runtime_seconds: float = 0.0
    pre_execution: tuple[str, ...] = ()
    group: Group | None = None  # whose member runs it here
    returns: bool = True  # whether anybody wants what this member returns
    launch: dict[str, Any] | None = None  # what starts its processes, where a launcher does

    @property
    def name(self) -> str:
        """The first part of its calls' names."""
        return self.about.name


class Outcome(NamedTuple):
    """What a call came to; kept until the client has acknowledged it."""

    call: int
    about: About
    started_at: float
    ended_at: float
    ok: bool
    stream: list[Any]  # the pickle in chunks, or the failure's JSON
    buffers: Sequence[Any] = ()
    cause: Cause = Cause.NONE
    summary: str = ""
    failure: str = ""  # what the journal is to have of it
    items: int = 1  # of a batch: how many items, and how many of them failed
    failed: int = 0
    trees: tuple[str, ...] = ()  # digests of the folders that the value names

    def as_told(self) -> Outcome:
        """Return what is told of it: where the call has said that it failed, that."""
        about = self.about
        if not self.ok or about.cause is Cause.NONE:
            return self
        return self._replace(
            ok=False,
            stream=[about.failure.encode()],
            buffers=(),
            cause=about.cause,
            summary=about.summary,
            failure=about.failure,
        )


@record(frozen=False)
class _Short:
    """Short calls of one function, which share a row."""

    about: About
    started_at: float
    ended_at: float = 0.0
    seconds: float = 0.0
    count: int = 0


class Ended(NamedTuple):
    """What the journal is to be told."""

    records: tuple[JobRecord, ...]
    attempts: tuple[AttemptRecord, ...]  # of those that took a while
    failures: dict[str, str]  # by the name of the call
    summed: tuple[str, ...]  # calls that were listed while they ran, and have no record of their own
    # what is told of records, see `About.told`, with their names
    abouts: tuple[tuple[str, tuple[str, ...]], ...]


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
        self.about = About()  # of the call that runs, or ran last
        self.note_about: Callable[[About], None] = lambda about: None  # for who finds this process dead
        self.loading = 0  # the call that is the next, while its function is loaded
        self.ended = 0  # the last that has
        self.started_at = 0.0
        self.reported = 0  # the last call that the agent has been told to be running
        self.interrupted: dict[int, str] = {}  # call number -> reason, for calls to be stopped
        self.stopping: set[int] = set()  # calls whose end the agent waits for
        self.interrupting = 0  # a call for which a signal is under way
        self.hung_up_at = 0.0  # monotonic: when the connection of a client on another machine broke
        self.orphaned = False
        self.finished = False
        self.unacknowledged: deque[Outcome] = deque()
        # what calls that have not ended had waited for before they began
        self.phases: dict[int, tuple[Phase, ...]] = {1: attach.phases} if attach.phases else {}
        self.batch: Batch | None = None  # that runs
        self.metrics = MetricLog(self.folder)
        self._begun = 0
        self._withdrawn = 0
        self._records: list[JobRecord] = []
        self._failures: dict[str, str] = {}
        self._failure_chars = float(FAILURE_CHARS)  # how much may be kept of failures now
        self._failed_at = time.monotonic()
        self._summed: list[str] = []
        self._attempts: list[AttemptRecord] = []
        self._short: dict[str, _Short] = {}  # by function
        self._told: list[tuple[str, About]] = []  # of the records

    @property
    def folder(self) -> str:
        """Where its log is, and what else is kept of it; made when it is needed."""
        return os.path.join(self.attach.jobs_folder, self.id)

    def resume(self, sock: socket.socket, arrived: StreamArrived) -> None:
        """Go on over another connection of a client on another machine, in a thread: much may have to be sent again."""
        from ..wire.resumable import ResumableStream

        stream = self.stream
        if not isinstance(stream, ResumableStream):
            sock.close()
            return

        def attach() -> None:
            try:
                stream.attach(sock, arrived.received, answer=arrived.answer)
                self.hung_up_at = 0.0
            except ProtocolError:  # it is no end of this stream
                sock.close()

        threading.Thread(target=attach, name="remote_exec-resume", daemon=True).start()

    def is_given_up(self, now: float) -> bool:
        """Whether the connection of a client on another machine has been broken for too long."""
        if not self.attach.linger_seconds or self.orphaned:
            return False
        since = self.stream.cut_at or self.hung_up_at
        return since > 0.0 and now - since > self.attach.linger_seconds

    @property
    def is_idle_and_cut(self) -> bool:
        """Whether nothing runs or is on its way back, and the connection of a client on another machine is broken."""
        busy = self.loading or self._begun != self.ended or self.stream.is_sending
        return not busy and bool(self.stream.cut_at or self.hung_up_at)

    def give_up(self) -> None:
        """The client is gone: end the stream."""
        self.stream.give_up()

    def begin(self, call: int) -> bool:
        """Take note that a call begins; False when its client has withdrawn it."""
        with self.lock:
            if call <= self._withdrawn:
                return False
            self._begun = call
            return True

    @property
    def printing(self) -> int:
        """The call that what is printed is of, from its beginning until its outcome has gone; 0: none."""
        call = self._begun
        return call if call != self.ended else 0

    def ends_yet(self, call: int) -> bool:
        """Whether a call's end is still to come: it has begun, or its function is loaded for it."""
        return call == self.loading or (call == self._begun and call != self.ended)

    def withdraw(self, upto: int) -> tuple[int, int]:
        """Let no call up to this number begin any more, and no item of the batch that runs but the one that does.

        Returns:
            the last call that has begun; if it is a batch, the first of its items that will not begin, else 0.
        """
        with self.lock:
            self._withdrawn = max(upto, self._withdrawn)
            batch = self.batch
            cut = batch.hand_back() if batch is not None and batch.number == self._begun <= upto else 0
            return self._begun, cut

    def name_of(self, call: int, function: str) -> str:
        """The name by which a call of this lease is known everywhere."""
        return self.attach.job or call_name(function, self.id, call)

    def describe(self, about: About) -> None:
        """Take in what the running call tells of itself."""
        self.about = about
        self.note_about(about)

    def acknowledge(self, call: int) -> None:
        """Forget outcomes that the client has taken in."""
        while self.unacknowledged and self.unacknowledged[0].call <= call:
            self.unacknowledged.popleft()

    def know(self, number: int, function: Function) -> None:
        """Take in a function; the client has forgotten the one that was defined so many functions ago."""
        self.functions[number] = function
        self.functions.pop(number - FUNCTIONS_KEPT, None)

    def record(self, outcome: Outcome, *, printed: bool) -> bool:
        """Remember an ended call for the journal; return whether it should be told soon."""
        length = outcome.ended_at - outcome.started_at
        about = outcome.about
        with self.lock:
            if not about.listed:  # no call of the user's: what it has waited for, the next one has
                self._hand_on_phases(outcome.call)
                if self.reported == outcome.call:
                    self._summed.append(self.name_of(outcome.call, about.name))
                return False
            if about.own:  # it has a row of its own, however short
                outcome, printed = outcome.as_told(), True
            printed = printed or self.metrics.call == outcome.call
            if outcome.ok and not printed and not self.phases and length < RECORDED_ALONE_SECONDS:
                self._sum(about, outcome.call, 1, outcome.started_at, outcome.ended_at)
                return False
            waited = self._waited(outcome.call) if self.phases else 0.0
            if outcome.ok and not printed and length < RECORDED_ALONE_SECONDS and not waited > TOLD_SECONDS:
                self._sum(about, outcome.call, 1, outcome.started_at, outcome.ended_at)
            else:
                record = self.to_record(outcome)
                self._records.append(record)
                self._told.append((record.name, about))
                if length + waited > TOLD_SECONDS:
                    self._attempts.append(self.to_attempt(outcome))
                if outcome.failure and self._may_keep(len(outcome.failure)):
                    self._failures[record.name] = outcome.failure
            self.phases.pop(outcome.call, None)
        return not outcome.ok or about.own

    def record_many(self, about: About, call: int, count: int, started_at: float) -> None:
        """Remember a batch that succeeded."""
        with self.lock:
            self.phases.pop(call, None)
            self._sum(about, call, count, started_at, time.time())

    def _hand_on_phases(self, call: int) -> None:
        if phases := self.phases.pop(call, ()):
            self.phases[call + 1] = phases + self.phases.get(call + 1, ())

    def _sum(self, about: About, call: int, count: int, started_at: float, ended_at: float) -> None:
        row = self._short.get(about.name)
        if row is None:
            row = self._short[about.name] = _Short(about, started_at)
        row.count += count
        row.ended_at = ended_at
        row.seconds += ended_at - started_at
        if self.reported == call:
            self._summed.append(self.name_of(call, about.name))

    def _may_keep(self, chars: int) -> bool:
        """Whether the journal can take so much of a failure: a function may fail thousands of times a second."""
        now = time.monotonic()
        allowed = self._failure_chars + (now - self._failed_at) * FAILURE_CHARS_PER_SECOND
        self._failure_chars, self._failed_at = min(allowed, FAILURE_CHARS), now
        if self._failure_chars < chars:
            return False
        self._failure_chars -= chars
        return True

    def take_ended(self) -> Ended | None:
        """Return what is to be told to the journal, and forget it; None when there is nothing."""
        with self.lock:
            if not self._records and not self._short and not self._summed:
                return None
            records, self._records = self._records, []
            attempts, self._attempts = self._attempts, []
            short, self._short = self._short, {}
            told, self._told = self._told, []
            failures, self._failures = self._failures, {}
            summed, self._summed = self._summed, []
        instance = self.attach.instance
        for name, row in short.items():
            records.append(
                JobRecord(
                    name=call_name(name, self.id, SUMMED),
                    kind="array",
                    function=row.about.function,
                    state=JobState.SUCCEEDED,
                    created_at=row.started_at,
                    started_at=row.started_at,
                    ended_at=row.ended_at,
                    instance_type=instance.type,
                    count=row.count,
                    tags=row.about.tags,
                    bill=instance.bill(seconds=max(0.0, row.seconds)),
                )
            )
            told.append((records[-1].name, row.about))
        return Ended(tuple(records), tuple(attempts), failures, tuple(summed), _texts(told))

    def as_running(self, call: int, message: type[CallRunning | CallOrphaned]) -> CallRunning | CallOrphaned:
        """Return what tells the agent of the call that runs."""
        about = self.about
        return message(
            self.id,
            call,
            self.name_of(call, about.name),
            about.function,
            self.started_at,
            self.phases.get(call, ()),
            self.attach.instance,
            about.tags,
            "" if self.attach.job else about.told(),
        )

    def to_attempt(self, outcome: Outcome) -> AttemptRecord:
        """Return the journal's row for the one try at a call, or for a job's attempt, whose phases the agent knows."""
        of_job = bool(self.attach.job)
        return AttemptRecord(
            job=self.name_of(outcome.call, outcome.about.name),
            number=int(self.id.rpartition(".")[2]) if of_job else 1,
            state=_state_of(outcome),
            cause=outcome.cause,
            worker_pid=os.getpid(),
            started_at=outcome.started_at,
            ended_at=outcome.ended_at,
            phases=() if of_job else self.phases.get(outcome.call, ()),
        )

    def to_record(self, outcome: Outcome) -> JobRecord:
        """Return the journal's row for an outcome."""
        return JobRecord(
            name=self.name_of(outcome.call, outcome.about.name),
            kind="array" if outcome.items > 1 else "call",
            function=outcome.about.function,
            state=_state_of(outcome),
            created_at=outcome.started_at - self._waited(outcome.call),
            started_at=outcome.started_at,
            ended_at=outcome.ended_at,
            cause=outcome.cause,
            summary=outcome.summary,
            instance_type=self.attach.instance.type,
            count=outcome.items,
            failed=outcome.failed,
            tags=outcome.about.tags,
            bill=self.attach.instance.bill(seconds=max(0.0, outcome.ended_at - outcome.started_at)),
        )

    def _waited(self, call: int) -> float:
        return sum(phase.seconds for phase in self.phases.get(call, ()))

    def enter_folder(self) -> None:
        """Be where the caller was at the call."""
        if self.working_folder:
            with contextlib.suppress(OSError):  # it may be gone, and so may the one we are in
                if _here() != self.working_folder:
                    os.chdir(self.working_folder)


def _texts(told: list[tuple[str, About]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return what is told of records, each text once, with the records' names."""
    found: dict[str, list[str]] = {}
    for name, about in told:
        found.setdefault(about.told(), []).append(name)
    return tuple((text, tuple(names)) for text, names in found.items())


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
