"""Pools, workers and leases as a pure state machine: `handle(event)` returns instructions; nothing here waits.

Every change of state happens in this file, and each event carries the time. What an instruction's success or
failure was comes back as another event. A log of events replays to the same instructions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ..model.job import Cause, DeathCertificate, Phase
from ..model.pool import PoolInfo, PoolSpec, Shape, WorkerInfo, WorkerState
from .pool_events import (
    NO_QUOTAS,
    AttachWorker,
    ClientLeft,
    EnvironmentFailed,
    EnvironmentReady,
    Event,
    ForkServerLost,
    ForkServerStarted,
    ForkWorker,
    Instruction,
    KillWorker,
    LeaseRequested,
    LeaseReturned,
    LeaseWithdrawn,
    MemoryRanLow,
    ModulesPreloaded,
    PreloadModules,
    PrepareEnvironment,
    QuotasSet,
    RefuseLease,
    ReleaseAsked,
    Resources,
    StartForkServer,
    StopForkServer,
    StopWorker,
    TellLost,
    TellWaits,
    TimePassed,
    WorkerBecameReady,
    WorkerDeparted,
    WorkerForked,
)

READY_DEADLINE_SECONDS = 20.0  # a forked child that has not spoken by then is killed, its pool forks no more
UNKNOWN = "unknown"  # the local code of an adopted worker: no lease fits it again
FORK_SERVER_KEEP_SECONDS = 60.0  # beyond the last worker's keep-alive


# --- state --------------------------------------------------------------------------------------------------


class PoolState(str, Enum):
    """How far a pool is on its way to forking workers."""

    BUILDING = "building"
    STARTING = "starting"
    READY = "ready"


@dataclass
class Waiting:
    """A lease that has been asked for and not granted."""

    lease: str
    client: int
    bundle: str
    preload: tuple[str, ...]
    keep_alive_seconds: float
    since: float
    told: str = ""


@dataclass
class Worker:
    """One worker of a pool."""

    id: int
    state: WorkerState
    since: float  # when it took this state
    pid: int = 0
    bundle: str | None = None  # None: no local code has been loaded yet
    lease: str = ""
    reuses: int = 0
    keep_alive_seconds: float = 0.0
    gpus: tuple[int, ...] = ()


@dataclass
class Pool:
    """The warm workers that share a key, and who waits for one."""

    key: str
    spec: PoolSpec
    state: PoolState
    since: float
    max_workers: int = 1
    python: str = ""
    workers: dict[int, Worker] = field(default_factory=dict)
    queue: deque[Waiting] = field(default_factory=deque)
    preloaded: set[str] = field(default_factory=set)
    preloading: bool = False
    fresh: bool = False  # forks of this pool's fork server are not sound
    note: str = ""
    empty_since: float = 0.0
    keep_alive_seconds: float = 0.0
    phases: list[Phase] = field(default_factory=list)


class Pools:
    """All pools of one agent."""

    def __init__(self, resources: Resources) -> None:
        self.pools: dict[str, Pool] = {}
        self._resources = resources
        self._quotas = NO_QUOTAS
        self._next_worker = 1
        self._handlers: dict[type, Callable[[Any], list[Instruction]]] = {
            LeaseRequested: self._lease_requested,
            LeaseWithdrawn: self._lease_withdrawn,
            ClientLeft: self._client_left,
            EnvironmentReady: self._environment_ready,
            EnvironmentFailed: self._environment_failed,
            ForkServerStarted: self._fork_server_started,
            ForkServerLost: self._fork_server_lost,
            ModulesPreloaded: self._modules_preloaded,
            WorkerForked: self._worker_forked,
            WorkerBecameReady: self._worker_ready,
            LeaseReturned: self._lease_returned,
            WorkerDeparted: self._worker_departed,
            QuotasSet: self._quotas_set,
            MemoryRanLow: self._memory_ran_low,
            ReleaseAsked: self._release_asked,
            TimePassed: self._time_passed,
        }

    def handle(self, event: Event) -> list[Instruction]:
        """Take in what happened; return what is to be done, in order."""
        return self._handlers[type(event)](event)

    def adopt(self, key: str, spec: PoolSpec, *, python: str, keep_alive_seconds: float, now: float) -> None:
        """Expect a fork server that a former agent left; `ForkServerStarted` tells of its workers."""
        self.pools[key] = Pool(
            key, spec, PoolState.STARTING, now, python=python, keep_alive_seconds=keep_alive_seconds
        )

    def next_due(self) -> float | None:
        """Return when `TimePassed` should come next, or None."""
        due: list[float] = []
        for pool in self.pools.values():
            for worker in pool.workers.values():
                if worker.state is WorkerState.AVAILABLE:
                    due.append(worker.since + worker.keep_alive_seconds)
                elif worker.state is WorkerState.STARTING:
                    due.append(worker.since + READY_DEADLINE_SECONDS)
            if not pool.workers and not pool.queue and pool.state is PoolState.READY:
                due.append(pool.empty_since + FORK_SERVER_KEEP_SECONDS)
        return min(due, default=None)

    def infos(self, now: float) -> tuple[PoolInfo, ...]:
        """Return what lists show."""
        return tuple(_info(pool, now) for pool in self.pools.values())

    # --- events ---------------------------------------------------------------------------------------------

    def _lease_requested(self, event: LeaseRequested) -> list[Instruction]:
        refusal = self._never_satisfiable(event.lease, event.spec.shape)
        if refusal is not None:
            return [refusal]
        key = event.spec.key
        pool = self.pools.get(key)
        instructions: list[Instruction] = []
        if pool is None:
            pool = Pool(key, event.spec, PoolState.BUILDING, event.now)
            self.pools[key] = pool
            instructions.append(PrepareEnvironment(key, event.spec))
        pool.spec = event.spec  # an adopted pool's is without its variables
        pool.max_workers = max(pool.max_workers, event.max_workers)
        pool.keep_alive_seconds = max(pool.keep_alive_seconds, event.keep_alive_seconds)
        pool.queue.append(
            Waiting(event.lease, event.client, event.bundle, event.preload, event.keep_alive_seconds, event.now)
        )
        return instructions + self._assign(pool, event.now)

    def _client_left(self, event: ClientLeft) -> list[Instruction]:
        return self._keep_waiting(event.now, lambda waiting: waiting.client != event.client)

    def _lease_withdrawn(self, event: LeaseWithdrawn) -> list[Instruction]:
        return self._keep_waiting(event.now, lambda waiting: waiting.lease != event.lease)

    def _keep_waiting(self, now: float, wanted: Callable[[Waiting], bool]) -> list[Instruction]:
        instructions: list[Instruction] = []
        for pool in self.pools.values():
            staying = deque(waiting for waiting in pool.queue if wanted(waiting))
            if len(staying) != len(pool.queue):
                pool.queue = staying
                instructions += self._assign(pool, now)
        return instructions

    def _environment_ready(self, event: EnvironmentReady) -> list[Instruction]:
        pool = self.pools[event.pool]
        pool.phases.append(Phase(name="environment", seconds=event.now - pool.since))
        pool.state, pool.since, pool.python = PoolState.STARTING, event.now, event.python
        return [StartForkServer(pool.key, pool.spec, event.python)]

    def _environment_failed(self, event: EnvironmentFailed) -> list[Instruction]:
        pool = self.pools.pop(event.pool)
        return [
            RefuseLease(waiting.lease, event.error, event.text, event.output, event.hint) for waiting in pool.queue
        ]

    def _fork_server_started(self, event: ForkServerStarted) -> list[Instruction]:
        pool = self.pools[event.pool]
        if pool.state is PoolState.STARTING:
            pool.phases.append(Phase(name="start", seconds=event.now - pool.since))
        pool.state, pool.since, pool.empty_since = PoolState.READY, event.now, event.now
        for number, pid in event.workers:
            if number not in pool.workers:
                pool.workers[number] = Worker(number, WorkerState.STARTING, event.now, pid=pid, bundle=UNKNOWN)
                self._next_worker = max(self._next_worker, number + 1)
        return self._assign(pool, event.now)

    def _fork_server_lost(self, event: ForkServerLost) -> list[Instruction]:
        """Its workers die with it; their leases are told, and those who wait get a new fork server."""
        pool = self.pools.pop(event.pool, None)
        if pool is None:
            return []
        certificate = DeathCertificate(cause=Cause.HOST_LOST, message=f"the fork server died: {event.reason}")
        instructions: list[Instruction] = [
            TellLost(worker.lease, certificate, 0, 0) for worker in pool.workers.values() if worker.lease
        ]
        if pool.state is not PoolState.READY:
            text = f"the environment's Python could not start a fork server: {event.reason}"
            return instructions + [
                RefuseLease(waiting.lease, "RuntimeEnvironmentError", text) for waiting in pool.queue
            ]
        if pool.queue:
            renewed = Pool(pool.key, pool.spec, PoolState.BUILDING, event.now, max_workers=pool.max_workers)
            renewed.queue, renewed.keep_alive_seconds = pool.queue, pool.keep_alive_seconds
            self.pools[pool.key] = renewed
            instructions.append(PrepareEnvironment(pool.key, pool.spec))
        return instructions

    def _modules_preloaded(self, event: ModulesPreloaded) -> list[Instruction]:
        pool = self.pools[event.pool]
        pool.preloading = False
        return self._assign(pool, event.now)

    def _worker_forked(self, event: WorkerForked) -> list[Instruction]:
        worker = self.pools[event.pool].workers.get(event.worker)
        if worker is not None:
            worker.pid = event.pid
        return []

    def _worker_ready(self, event: WorkerBecameReady) -> list[Instruction]:
        pool = self.pools[event.pool]
        worker = pool.workers.get(event.worker)
        if worker is None or worker.state is not WorkerState.STARTING:
            return []
        if event.lease:
            worker.state, worker.since, worker.lease = WorkerState.IN_USE, event.now, event.lease
            return []
        worker.state, worker.since = WorkerState.AVAILABLE, event.now
        worker.keep_alive_seconds = pool.keep_alive_seconds
        return self._assign(pool, event.now)

    def _lease_returned(self, event: LeaseReturned) -> list[Instruction]:
        pool = self.pools[event.pool]
        worker = pool.workers.get(event.worker)
        if worker is None or worker.lease != event.lease:
            return []
        worker.lease, worker.since = "", event.now
        worker.reuses += 1
        if worker.state is WorkerState.IN_USE:
            worker.state = WorkerState.AVAILABLE
        return self._assign(pool, event.now)

    def _worker_departed(self, event: WorkerDeparted) -> list[Instruction]:
        pool = self.pools.get(event.pool)
        worker = pool.workers.pop(event.worker, None) if pool is not None else None
        if pool is None or worker is None:
            return []
        pool.empty_since = event.now
        instructions: list[Instruction] = []
        if worker.lease:
            instructions.append(TellLost(worker.lease, event.certificate, event.begun, event.item))
        elif worker.state is WorkerState.STARTING and not pool.fresh:
            pool.fresh = True
            pool.note = f"workers are started afresh: a forked one ended before it was ready ({event.certificate.message})"
        elif worker.state is WorkerState.STARTING:
            text = f"a worker of this environment does not start: {event.certificate.message}"
            instructions += [
                RefuseLease(w.lease, "RuntimeEnvironmentError", text, "\n".join(event.certificate.last_lines))
                for w in pool.queue
            ]
            pool.queue.clear()
        return instructions + self._assign_all(event.now)

    def _quotas_set(self, event: QuotasSet) -> list[Instruction]:
        """What waits and cannot be had any longer is refused; what fits now need not wait."""
        self._quotas = event.quotas
        instructions: list[Instruction] = []
        for pool in self.pools.values():
            for waiting in list(pool.queue):
                refusal = self._never_satisfiable(waiting.lease, pool.spec.shape)
                if refusal is not None:
                    pool.queue.remove(waiting)
                    instructions.append(refusal)
        return instructions + self._assign_all(event.now)

    def _memory_ran_low(self, event: MemoryRanLow) -> list[Instruction]:
        """Give up the worker that has been idle for longest."""
        idle = [(w.since, p, w) for p in self.pools.values() for w in p.workers.values() if _idle(w)]
        if not idle:
            return []
        _, pool, worker = min(idle, key=lambda row: row[0])
        return [self._stop(pool, worker, event.now)]

    def _release_asked(self, event: ReleaseAsked) -> list[Instruction]:
        instructions: list[Instruction] = []
        for pool in self.pools.values():
            if event.pool in ("", pool.key):
                instructions += [self._stop(pool, w, event.now) for w in list(pool.workers.values()) if _idle(w)]
                pool.keep_alive_seconds = 0.0
        return instructions

    def _time_passed(self, event: TimePassed) -> list[Instruction]:
        instructions: list[Instruction] = []
        for pool in list(self.pools.values()):
            for worker in list(pool.workers.values()):
                age = event.now - worker.since
                if _idle(worker) and age >= worker.keep_alive_seconds:
                    instructions.append(self._stop(pool, worker, event.now))
                elif worker.state is WorkerState.STARTING and age >= READY_DEADLINE_SECONDS:
                    instructions.append(KillWorker(pool.key, worker.id))
            idle = not pool.workers and not pool.queue and pool.state is PoolState.READY
            if idle and event.now - pool.empty_since >= FORK_SERVER_KEEP_SECONDS:
                del self.pools[pool.key]
                instructions.append(StopForkServer(pool.key))
        return instructions

    # --- decisions ------------------------------------------------------------------------------------------

    def _assign_all(self, now: float) -> list[Instruction]:
        instructions: list[Instruction] = []
        for pool in list(self.pools.values()):
            instructions += self._assign(pool, now)
        return instructions

    def _assign(self, pool: Pool, now: float) -> list[Instruction]:
        """Give waiting leases to workers that are there, and see to it that more come where that is allowed."""
        instructions: list[Instruction] = []
        still: deque[Waiting] = deque()
        for waiting in pool.queue:
            worker = self._fitting(pool, waiting)
            if worker is None:
                still.append(waiting)
            else:
                instructions.append(_grant(pool, worker, waiting, now))
        pool.queue = still
        if pool.queue and pool.state is PoolState.READY:
            instructions += self._grow(pool, now)
        for position, waiting in enumerate(pool.queue):
            phase, why = self._why(pool, position)
            if waiting.told != why:
                waiting.told = why
                instructions.append(TellWaits(waiting.lease, phase, why))
        return instructions

    def _fitting(self, pool: Pool, waiting: Waiting) -> Worker | None:
        """Return an idle worker that has this very local code loaded, else one that has none."""
        idle = [worker for worker in pool.workers.values() if _idle(worker)]
        for bundle in (waiting.bundle, None):
            for worker in idle:
                if worker.bundle == bundle:
                    return worker
        return None

    def _grow(self, pool: Pool, now: float) -> list[Instruction]:
        wanted = [name for waiting in pool.queue for name in waiting.preload if name not in pool.preloaded]
        if wanted and not pool.fresh and not pool.preloading:
            pool.preloading = True
            pool.preloaded.update(wanted)
            return [PreloadModules(pool.key, tuple(dict.fromkeys(wanted)))]
        if pool.preloading:
            return []
        instructions: list[Instruction] = []
        starting = sum(1 for worker in pool.workers.values() if worker.state is WorkerState.STARTING)
        for _ in range(len(pool.queue) - starting):
            if len(pool.workers) >= pool.max_workers:
                stale = next((worker for worker in pool.workers.values() if _idle(worker)), None)
                if stale is not None:
                    instructions.append(self._stop(pool, stale, now))
                break
            gpus = self._free_gpus(pool.spec.shape)
            if gpus is None or not self._fits(pool.spec.shape):
                break
            instructions.append(self._fork(pool, gpus, now))
        return instructions

    def _fork(self, pool: Pool, gpus: tuple[int, ...], now: float) -> ForkWorker:
        worker = Worker(self._next_worker, WorkerState.STARTING, now, gpus=gpus)
        self._next_worker += 1
        pool.workers[worker.id] = worker
        variables: dict[str, str] = {}
        if self._resources.gpus:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(str(index) for index in gpus)
        return ForkWorker(pool.key, worker.id, variables, pool.fresh)

    def _stop(self, pool: Pool, worker: Worker, now: float) -> StopWorker:
        worker.state, worker.since = WorkerState.TERMINATING, now
        return StopWorker(pool.key, worker.id)

    def _workers(self) -> list[tuple[Shape, Worker]]:
        return [(pool.spec.shape, worker) for pool in self.pools.values() for worker in pool.workers.values()]

    def _fits(self, shape: Shape) -> bool:
        cpus = sum(taken.cpus for taken, _ in self._workers())
        memory = sum(taken.memory_bytes for taken, _ in self._workers())
        host, quotas = self._resources, self._quotas
        return (not shape.cpus or cpus + shape.cpus <= _lower(host.cpus, quotas.cpus)) and (
            not shape.memory_bytes or memory + shape.memory_bytes <= _lower(host.memory_bytes, quotas.memory_bytes)
        )

    def _free_gpus(self, shape: Shape) -> tuple[int, ...] | None:
        taken = {index for _, worker in self._workers() for index in worker.gpus}
        free = [index for index in self._of_type(shape.gpu_type) if index not in taken]
        left = _lower(len(self._resources.gpus), self._quotas.gpus) - len(taken)
        return tuple(free[: shape.gpus]) if shape.gpus <= min(len(free), max(0, left)) else None

    def _of_type(self, gpu_type: str) -> list[int]:
        return [i for i, name in enumerate(self._resources.gpus) if gpu_type.lower() in name.lower()]

    def _never_satisfiable(self, lease: str, shape: Shape) -> RefuseLease | None:
        host, quotas, hint = self._resources, self._quotas, "ask for less, or use another instance_type"
        text = ""
        if shape.cpus > host.cpus:
            text = f"cpus={shape.cpus:g} was asked for; this host has {host.cpus:g}"
        elif shape.memory_bytes > host.memory_bytes:
            text = f"memory={shape.memory_bytes:,} bytes was asked for; this host has {host.memory_bytes:,}"
        elif shape.gpus > len(self._of_type(shape.gpu_type)):
            what = f" of type {shape.gpu_type!r}" if shape.gpu_type else ""
            text = f"gpus={shape.gpus}{what} was asked for; this host has {len(self._of_type(shape.gpu_type))}"
        else:
            hint = "ask for less, or raise the quota in the configuration"
            for name, asked, quota in (
                ("cpus", shape.cpus, quotas.cpus),
                ("memory", shape.memory_bytes, quotas.memory_bytes),
                ("gpus", shape.gpus, quotas.gpus),
            ):
                if quota is not None and asked > quota:
                    text = f"{name}={asked:,} was asked for; the option quotas allows {quota:,.12g} on this host"
        return RefuseLease(lease, "ResourceLimitExceeded", text, hint=hint) if text else None

    def _why(self, pool: Pool, position: int) -> tuple[str, str]:
        if pool.state is PoolState.BUILDING:
            return "environment", "its environment is being prepared"
        if pool.state is PoolState.STARTING:
            return "start", "its environment's Python is starting"
        if pool.preloading:
            return "start", "its imports are being loaded"
        if len(pool.workers) >= pool.max_workers:
            return "queue", f"all {pool.max_workers} workers of its pool are in use; position {position + 1}"
        if any(worker.state is WorkerState.STARTING for worker in pool.workers.values()):
            return "start", "a worker is starting"
        return "queue", f"the host's cpus, memory or gpus are in use; position {position + 1}"


def _lower(host: float, quota: float | None) -> float:
    return host if quota is None else min(host, quota)


def _idle(worker: Worker) -> bool:
    return worker.state is WorkerState.AVAILABLE


def _grant(pool: Pool, worker: Worker, waiting: Waiting, now: float) -> AttachWorker:
    warm = now - waiting.since < 0.001
    phases = (Phase(name="queue", seconds=now - waiting.since), *pool.phases)
    pool.phases = []
    worker.state, worker.since, worker.lease = WorkerState.IN_USE, now, waiting.lease
    worker.keep_alive_seconds = waiting.keep_alive_seconds
    if waiting.bundle or worker.bundle is None:
        worker.bundle = waiting.bundle or None
    return AttachWorker(pool.key, worker.id, waiting.lease, waiting.bundle, warm, phases)


def _info(pool: Pool, now: float) -> PoolInfo:
    return PoolInfo(
        key=pool.key,
        environment=pool.spec.environment.kind.value,
        python=pool.python,
        keep_alive_seconds=pool.keep_alive_seconds,
        max_workers=pool.max_workers,
        queued=len(pool.queue),
        shape=pool.spec.shape,
        workers=tuple(
            WorkerInfo(
                id=w.id, pid=w.pid, state=w.state, reuses=w.reuses, idle_seconds=now - w.since, bundle=w.bundle or ""
            )
            for w in pool.workers.values()
        ),
        note=pool.note,
    )
