"""What the pools' state machine knows: pools, their workers, who waits. Changed by `pools` alone."""

from __future__ import annotations

from collections import deque
from dataclasses import field
from enum import Enum

from ..model.job import Phase
from ..model.pool import Asked, PoolInfo, PoolSpec, WorkerInfo, WorkerState
from ..model.record import record

UNKNOWN = "unknown"  # the local code of an adopted worker: no lease fits it again


class PoolState(str, Enum):
    """How far a pool is on its way to forking workers, and from there to its end."""

    BUILDING = "building"  # its environment is
    STARTING = "starting"  # its fork server is
    ADOPTING = "adopting"  # its fork server is a former agent's, and has not spoken yet
    READY = "ready"
    STOPPING = "stopping"  # its fork server has been told to end; until then no other may take its place


def _no_seconds() -> dict[str, float]:
    return {}


@record(frozen=False)
class Waiting:
    """A lease that has been asked for and not granted."""

    lease: str
    client: int
    bundle: str
    preload: tuple[str, ...]
    keep_alive_seconds: float
    since: float
    group: str = ""  # leases of one group are granted together, ...
    size: int = 1  # ... once so many have been asked for
    told: str = ""
    phase: str = "queue"
    phase_since: float = 0.0
    passed: dict[str, float] = field(default_factory=_no_seconds)  # phase -> seconds, in order

    def enter(self, phase: str, now: float) -> None:
        """Wait for something else from now on."""
        seconds = now - max(self.since, self.phase_since)
        if seconds > 0.0:
            self.passed[self.phase] = self.passed.get(self.phase, 0.0) + seconds
        self.phase, self.phase_since = phase, now

    @property
    def phases(self) -> tuple[Phase, ...]:
        """What it has waited for, each with its time."""
        return tuple(Phase(name=name, seconds=seconds) for name, seconds in self.passed.items())


@record(frozen=False)
class Worker:
    """One worker of a pool."""

    id: int
    state: WorkerState
    since: float  # when it took this state
    pid: int = 0
    bundle: str | None = None  # None: no local code has been loaded yet
    lease: str = ""
    recalled: bool = False  # its client has been asked for it
    reuses: int = 0
    keep_alive_seconds: float = 0.0
    gpus: tuple[str, ...] = ()  # UUIDs
    fresh: bool = False  # started as an interpreter of its own, not forked
    spoke: bool = False  # it has been ready once

    @property
    def idle(self) -> bool:
        """Whether a lease could have it."""
        return self.state is WorkerState.AVAILABLE

    @property
    def adopted(self) -> bool:
        """Whether a former agent made it: it is never leased again."""
        return self.bundle == UNKNOWN

    @property
    def coming(self) -> bool:
        """Whether it will be there for someone who waits."""
        return self.state is WorkerState.STARTING and not self.adopted


def _no_workers() -> dict[int, Worker]:
    return {}


def _no_queue() -> deque[Waiting]:
    return deque()


@record(frozen=False)
class Pool:
    """The warm workers that share a key, and who waits for one."""

    key: str
    spec: PoolSpec
    state: PoolState
    since: float
    max_workers: int = 1
    python: str = ""
    asked: Asked = Asked()
    workers: dict[int, Worker] = field(default_factory=_no_workers)
    queue: deque[Waiting] = field(default_factory=_no_queue)
    preloaded: frozenset[str] = frozenset()
    preloading: bool = False
    importing: str = ""  # the module that its fork server imports now
    importing_since: float = 0.0
    importing_long: bool = False  # for long enough to be told
    left_out: frozenset[str] = frozenset()  # modules that its fork server is not to import
    fresh: bool = False  # forks of this pool's fork server are not sound
    losses: int = 0  # fork servers lost since a worker was last ready
    note: str = ""
    empty_since: float = 0.0
    keep_alive_seconds: float = 0.0
    promised: frozenset[int] = frozenset()  # idle, and kept for the group at the queue's head

    def start_afresh(self, reason: str) -> None:
        """Fork no more: each worker is an interpreter of its own from now on."""
        self.fresh, self.note = True, f"workers are started afresh: {reason}"

    @property
    def unused(self) -> bool:
        """Whether nothing but its fork server is there, and nobody wants more."""
        return not self.workers and not self.queue and self.state is PoolState.READY

    @property
    def parties(self) -> list[list[Waiting]]:
        """Those who wait, each with those whom it is granted together with; without groups that are not whole yet."""
        found: dict[str, list[Waiting]] = {}
        for waiting in self.queue:
            found.setdefault(waiting.group or waiting.lease, []).append(waiting)
        return [party for party in found.values() if len(party) >= party[0].size]

    @property
    def first(self) -> Waiting | None:
        """Who has waited for longest; None where nobody waits, or nobody but for the rest of a group."""
        if self.queue and self.queue[0].size == 1:
            return self.queue[0]
        return next((party[0] for party in self.parties), None)

    @property
    def short(self) -> int:
        """How many workers are missing that nobody has seen to."""
        coming = sum(1 for worker in self.workers.values() if worker.coming)
        return sum(map(len, self.parties)) - len(self.promised) - coming

    def waits_together(self) -> tuple[str, str] | None:
        """Return what all who wait for this pool wait for, phase and words; None: each has its own reason."""
        if self.state is PoolState.BUILDING:
            return "environment", "its environment is being prepared"
        if self.state is PoolState.STOPPING:
            return "start", "its environment's former Python is ending"
        if self.state is not PoolState.READY:
            return "start", "its environment's Python is starting"
        if self.preloading:
            what = (
                f"{self.importing} is being imported"
                if self.importing_long
                else "its imports are being loaded"
            )
            return "imports", what
        return None

    @property
    def leased(self) -> bool:
        """Whether something runs in it that would be lost with its fork server."""
        return any(worker.lease or worker.adopted for worker in self.workers.values())

    def info(self, now: float) -> PoolInfo:
        """Return what lists show."""
        return PoolInfo(
            key=self.key,
            asked_by=self.asked.by,
            instance_type=self.asked.instance_type,
            environment=self.spec.environment.kind.value,
            python=self.python,
            python_version=self.spec.environment.python,
            keep_alive_seconds=self.keep_alive_seconds,
            max_workers=self.max_workers,
            queued=len(self.queue),
            shape=self.spec.shape,
            workers=tuple(_worker_info(worker, now) for worker in self.workers.values()),
            note=self.note,
        )


def _worker_info(worker: Worker, now: float) -> WorkerInfo:
    return WorkerInfo(
        id=worker.id,
        pid=worker.pid,
        state=worker.state,
        reuses=worker.reuses,
        idle_seconds=now - worker.since,
        bundle=worker.bundle or "",
        gpus=worker.gpus,
        keep_alive_seconds=worker.keep_alive_seconds,
    )


def place(position: int) -> str:
    """Say a position, roughly where it is far back: else each grant would be news for all who wait.

    >>> place(3), place(45), place(1234)
    ('position 3', 'position over 40', 'position over 1200')
    """
    step = 1 if position <= 20 else 10 if position <= 200 else 100
    return f"position {position}" if step == 1 else f"position over {(position - 1) // step * step}"
