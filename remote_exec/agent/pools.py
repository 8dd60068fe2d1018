"""Pools, workers and leases as a pure state machine: `handle(event)` returns instructions; nothing here waits.

Every change of state happens in this file, and each event carries the time. What an instruction's success or
failure was comes back as another event; one that names a pool or a worker that is gone is passed over. A log of
events replays to the same instructions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Any

from ..model.job import Cause, DeathCertificate, Phase
from ..model.pool import PoolInfo, PoolSpec, Shape, WorkerState
from .capacity import Capacity, Held
from .pool_events import (
    EVERY_CALL,
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
    RecallLease,
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
from .pool_state import UNKNOWN, Pool, PoolState, Waiting, Worker, place

READY_DEADLINE_SECONDS = 20.0  # a forked child that has not spoken by then is killed, its pool forks no more
FORK_SERVER_KEEP_SECONDS = 60.0  # beyond the last worker
FORK_SERVER_STOP_SECONDS = 10.0  # one that was told to end and has not by then is forgotten
WARM_SECONDS = 0.001  # a lease that waited for less was granted by the event that asked for it


class Pools:
    """All pools of one agent.

    Args:
        resources: what the host has to give.

    Example::

        pools = Pools(Resources(cpus=8, memory_bytes=16 << 30))
        for instruction in pools.handle(LeaseRequested(...)):
            carry_out(instruction)
    """

    def __init__(self, resources: Resources) -> None:
        self.pools: dict[str, Pool] = {}
        self._capacity = Capacity(resources)
        self._next_worker = 1
        self._handlers: dict[type, Callable[[Any], list[Instruction]]] = {
            LeaseRequested: self._lease_requested,
            LeaseWithdrawn: self._lease_withdrawn,
            ClientLeft: self._client_left,
            EnvironmentReady: self._of_pool(self._environment_ready),
            EnvironmentFailed: self._of_pool(self._environment_failed),
            ForkServerStarted: self._of_pool(self._fork_server_started),
            ForkServerLost: self._of_pool(self._fork_server_lost),
            ModulesPreloaded: self._of_pool(self._modules_preloaded),
            WorkerForked: self._of_worker(self._worker_forked),
            WorkerBecameReady: self._of_worker(self._worker_ready),
            LeaseReturned: self._of_worker(self._lease_returned),
            WorkerDeparted: self._of_worker(self._worker_departed),
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
            key, spec, PoolState.ADOPTING, now, python=python, keep_alive_seconds=keep_alive_seconds
        )

    def next_due(self) -> float | None:
        """Return when `TimePassed` should come next, or None."""
        due: list[float] = []
        for pool in self.pools.values():
            for worker in pool.workers.values():
                if worker.idle:
                    due.append(worker.since + worker.keep_alive_seconds)
                elif worker.coming:
                    due.append(worker.since + READY_DEADLINE_SECONDS)
            if pool.unused:
                due.append(pool.empty_since + FORK_SERVER_KEEP_SECONDS)
            elif pool.state is PoolState.STOPPING:
                due.append(pool.since + FORK_SERVER_STOP_SECONDS)
        return min(due, default=None)

    def infos(self, now: float) -> tuple[PoolInfo, ...]:
        """Return what lists show."""
        return tuple(pool.info(now) for pool in self.pools.values())

    def _of_pool(
        self, handler: Callable[[Pool, Any], list[Instruction]]
    ) -> Callable[[Any], list[Instruction]]:
        def found(event: Any) -> list[Instruction]:
            pool = self.pools.get(event.pool)
            return handler(pool, event) if pool is not None else []

        return found

    def _of_worker(
        self, handler: Callable[[Pool, Worker, Any], list[Instruction]]
    ) -> Callable[[Any], list[Instruction]]:
        def found(pool: Pool, event: Any) -> list[Instruction]:
            worker = pool.workers.get(event.worker)
            return handler(pool, worker, event) if worker is not None else []

        return self._of_pool(found)

    # --- leases ---------------------------------------------------------------------------------------------

    def _lease_requested(self, event: LeaseRequested) -> list[Instruction]:
        refusal = self._capacity.refusal(event.lease, event.spec.shape)
        if refusal is not None:
            return [refusal]
        key = event.spec.key
        pool = self.pools.get(key)
        instructions: list[Instruction] = []
        if pool is None:
            pool = self.pools[key] = Pool(key, event.spec, PoolState.BUILDING, event.now)
            instructions.append(PrepareEnvironment(key, event.spec))
        pool.spec = event.spec  # an adopted pool's is without its variables
        pool.max_workers = max(pool.max_workers, event.max_workers)
        pool.keep_alive_seconds = max(pool.keep_alive_seconds, event.keep_alive_seconds)
        pool.queue.append(
            Waiting(
                event.lease, event.client, event.bundle, event.preload, event.keep_alive_seconds, event.now
            )
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

    def _lease_returned(self, pool: Pool, worker: Worker, event: LeaseReturned) -> list[Instruction]:
        if worker.state is not WorkerState.IN_USE or worker.lease != event.lease:
            return []
        worker.lease = ""
        worker.reuses += 1
        return self._now_idle(pool, worker, event.now)

    def _now_idle(self, pool: Pool, worker: Worker, now: float) -> list[Instruction]:
        if worker.adopted:  # no lease fits it, and what it holds may be wanted
            return [self._stop(pool, worker, now)]
        worker.state, worker.since = WorkerState.AVAILABLE, now
        return self._assign(pool, now) + self._assign_all(now)

    # --- environments and fork servers ------------------------------------------------------------------------

    def _environment_ready(self, pool: Pool, event: EnvironmentReady) -> list[Instruction]:
        if pool.state is not PoolState.BUILDING:
            return []
        pool.phases.append(Phase(name="environment", seconds=event.now - pool.since))
        pool.state, pool.since, pool.python = PoolState.STARTING, event.now, event.python
        return [StartForkServer(pool.key, pool.spec, event.python), *self._tell_waits(pool)]

    def _environment_failed(self, pool: Pool, event: EnvironmentFailed) -> list[Instruction]:
        if pool.state is not PoolState.BUILDING:
            return []
        del self.pools[pool.key]
        return _refuse(pool.queue, event.text, error=event.error, output=event.output, hint=event.hint)

    def _fork_server_started(self, pool: Pool, event: ForkServerStarted) -> list[Instruction]:
        if pool.state not in (PoolState.STARTING, PoolState.ADOPTING):
            return []
        if pool.state is PoolState.STARTING:
            pool.phases.append(Phase(name="start", seconds=event.now - pool.since))
        pool.state, pool.since, pool.empty_since = PoolState.READY, event.now, event.now
        gpus = None if pool.spec.shape.gpus else ()
        for number, pid in event.workers:
            pool.workers[number] = Worker(
                number, WorkerState.STARTING, event.now, pid=pid, bundle=UNKNOWN, gpus=gpus
            )
            self._next_worker = max(self._next_worker, number + 1)
        return self._assign(pool, event.now)

    def _fork_server_lost(self, pool: Pool, event: ForkServerLost) -> list[Instruction]:
        """Its workers die with it; their leases are told, and those who wait get a new one, once."""
        del self.pools[pool.key]
        certificate = DeathCertificate(cause=Cause.HOST_LOST, message=f"the fork server died: {event.reason}")
        instructions: list[Instruction] = [
            TellLost(worker.lease, certificate, EVERY_CALL, 0)
            for worker in pool.workers.values()
            if worker.lease
        ]
        if pool.state is PoolState.STARTING:
            text = f"the environment's Python could not start a fork server: {event.reason}"
            instructions += _refuse(pool.queue, text)
        elif pool.losses and pool.state is PoolState.READY:
            text = f"fork servers of this environment die before a worker is ready: {event.reason}"
            instructions += _refuse(pool.queue, text)
        elif pool.queue:
            instructions += self._renew(pool, event.now)
        return instructions + self._assign_all(event.now)

    def _renew(self, lost: Pool, now: float) -> list[Instruction]:
        pool = Pool(lost.key, lost.spec, PoolState.BUILDING, now, max_workers=lost.max_workers)
        pool.queue, pool.keep_alive_seconds = lost.queue, lost.keep_alive_seconds
        pool.fresh, pool.note = lost.fresh, lost.note
        if lost.state is PoolState.READY:
            pool.losses = 1
        if lost.preloading:
            pool.fresh = True
            pool.note = "workers are started afresh: the fork server died of their imports"
        self.pools[pool.key] = pool
        return [PrepareEnvironment(pool.key, pool.spec), *self._tell_waits(pool)]

    def _modules_preloaded(self, pool: Pool, event: ModulesPreloaded) -> list[Instruction]:
        pool.preloading = False
        return self._assign(pool, event.now)

    # --- workers ----------------------------------------------------------------------------------------------

    def _worker_forked(self, pool: Pool, worker: Worker, event: WorkerForked) -> list[Instruction]:
        worker.pid = event.pid
        return []

    def _worker_ready(self, pool: Pool, worker: Worker, event: WorkerBecameReady) -> list[Instruction]:
        if worker.state is not WorkerState.STARTING:
            return []
        worker.spoke, pool.losses = True, 0
        if event.lease:
            worker.state, worker.since, worker.lease = WorkerState.IN_USE, event.now, event.lease
            return []
        worker.keep_alive_seconds = pool.keep_alive_seconds
        return self._now_idle(pool, worker, event.now)

    def _worker_departed(self, pool: Pool, worker: Worker, event: WorkerDeparted) -> list[Instruction]:
        del pool.workers[worker.id]
        pool.empty_since = event.now
        instructions: list[Instruction] = []
        certificate = event.certificate
        if worker.lease:
            instructions.append(TellLost(worker.lease, certificate, event.begun, event.item))
        elif worker.spoke or worker.adopted:
            pass
        elif worker.fresh:
            text = f"a worker of this environment does not start: {certificate.message}"
            instructions += _refuse(pool.queue, text, output="\n".join(certificate.last_lines))
            pool.queue.clear()
        else:
            pool.fresh = True
            reason = f"a forked one ended before it was ready ({certificate.message})"
            pool.note = f"workers are started afresh: {reason}"
        return instructions + self._assign_all(event.now)

    # --- the host -----------------------------------------------------------------------------------------------

    def _quotas_set(self, event: QuotasSet) -> list[Instruction]:
        """What waits and cannot be had any longer is refused; what fits now need not wait."""
        self._capacity.quotas = event.quotas
        instructions: list[Instruction] = []
        for pool in self.pools.values():
            for waiting in list(pool.queue):
                refusal = self._capacity.refusal(waiting.lease, pool.spec.shape)
                if refusal is not None:
                    pool.queue.remove(waiting)
                    instructions.append(refusal)
        return instructions + self._assign_all(event.now)

    def _memory_ran_low(self, event: MemoryRanLow) -> list[Instruction]:
        """Give up the worker that has been idle for longest."""
        idle = self._longest_idle(self.pools.values())
        return [self._stop(*idle[0], event.now)] if idle else []

    def _release_asked(self, event: ReleaseAsked) -> list[Instruction]:
        instructions: list[Instruction] = []
        for pool in self.pools.values():
            if event.pool in ("", pool.key):
                instructions += [self._stop(pool, w, event.now) for _, w in self._longest_idle([pool])]
                pool.keep_alive_seconds = 0.0
        return instructions

    def _time_passed(self, event: TimePassed) -> list[Instruction]:
        instructions: list[Instruction] = []
        for pool in list(self.pools.values()):
            for worker in pool.workers.values():
                age = event.now - worker.since
                if worker.idle and age >= worker.keep_alive_seconds:
                    instructions.append(self._stop(pool, worker, event.now))
                elif worker.coming and age >= READY_DEADLINE_SECONDS:
                    worker.state, worker.since = WorkerState.TERMINATING, event.now
                    instructions.append(KillWorker(pool.key, worker.id))
            if pool.unused and event.now - pool.empty_since >= FORK_SERVER_KEEP_SECONDS:
                pool.state, pool.since = PoolState.STOPPING, event.now
                instructions.append(StopForkServer(pool.key))
            elif pool.state is PoolState.STOPPING and event.now - pool.since >= FORK_SERVER_STOP_SECONDS:
                lost = ForkServerLost(event.now, pool.key, "it did not end when it was told to")
                instructions += self._fork_server_lost(pool, lost)
        return instructions

    # --- decisions --------------------------------------------------------------------------------------------

    def _assign_all(self, now: float) -> list[Instruction]:
        instructions: list[Instruction] = []
        for pool in list(self.pools.values()):
            instructions += self._assign(pool, now)
        return instructions

    def _assign(self, pool: Pool, now: float) -> list[Instruction]:
        """Give waiting leases to workers that are there; see to it that more come where that is allowed."""
        if not pool.queue:
            return []
        instructions: list[Instruction] = []
        idle = [worker for worker in pool.workers.values() if worker.idle]
        if idle:
            still: deque[Waiting] = deque()
            for waiting in pool.queue:
                worker = _fitting(idle, waiting)
                if worker is None:
                    still.append(waiting)
                else:
                    idle.remove(worker)
                    instructions.append(_grant(pool, worker, waiting, now))
            pool.queue = still
        if pool.queue and pool.state is PoolState.READY:
            instructions += self._grow(pool, now)
        return instructions + self._tell_waits(pool)

    def _grow(self, pool: Pool, now: float) -> list[Instruction]:
        if pool.preloading:
            return []
        wanted = [name for waiting in pool.queue for name in waiting.preload if name not in pool.preloaded]
        if wanted and not pool.fresh:
            pool.preloading = True
            pool.preloaded |= frozenset(wanted)
            return [PreloadModules(pool.key, tuple(dict.fromkeys(wanted)))]
        instructions: list[Instruction] = []
        short = len(pool.queue) - sum(1 for worker in pool.workers.values() if worker.coming)
        while short > 0 and len(pool.workers) < pool.max_workers:
            gpus = self._capacity.room(pool.spec.shape, self._held())
            if gpus is None:
                return instructions + self._make_room(pool.spec.shape, short, now)
            instructions.append(self._fork(pool, gpus, now))
            short -= 1
        # The pool is full: workers that are idle have other local code loaded than anyone here waits for.
        leaving = sum(1 for worker in pool.workers.values() if worker.state is WorkerState.TERMINATING)
        stales = self._longest_idle([pool])[: max(0, short - leaving)]
        for _, stale in stales:
            instructions.append(self._stop(pool, stale, now))
        return instructions + _recall([pool], short - leaving - len(stales))

    def _make_room(self, shape: Shape, short: int, now: float) -> list[Instruction]:
        """Have idle workers of any pool end, longest idle first, if that lets a worker of this shape in.

        Else ask for leases back that hold what it needs.
        """
        staying = [held for held in self._held() if held[1].state is not WorkerState.TERMINATING]
        going: list[tuple[Pool, Worker]] = []
        for pool, worker in self._longest_idle(self.pools.values()):
            if self._capacity.room(shape, staying) is not None:
                break
            staying.remove((pool.spec.shape, worker))
            going.append((pool, worker))
        if self._capacity.room(shape, staying) is None:
            return _recall([pool for pool in self.pools.values() if pool.spec.shape.vies_with(shape)], short)
        instructions: list[Instruction] = []
        for pool, worker in going:
            held = (pool.spec.shape, worker)
            if self._capacity.room(shape, [*staying, held]) is None:
                instructions.append(self._stop(pool, worker, now))
            else:
                staying.append(held)  # its going would not help
        return instructions

    def _fork(self, pool: Pool, gpus: tuple[int, ...], now: float) -> ForkWorker:
        worker = Worker(self._next_worker, WorkerState.STARTING, now, gpus=gpus, fresh=pool.fresh)
        self._next_worker += 1
        pool.workers[worker.id] = worker
        variables: dict[str, str] = {}
        if self._capacity.resources.gpus:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(str(index) for index in gpus)
        return ForkWorker(pool.key, worker.id, variables, pool.fresh)

    def _stop(self, pool: Pool, worker: Worker, now: float) -> StopWorker:
        worker.state, worker.since = WorkerState.TERMINATING, now
        return StopWorker(pool.key, worker.id)

    def _held(self) -> list[Held]:
        return [(pool.spec.shape, worker) for pool in self.pools.values() for worker in pool.workers.values()]

    def _longest_idle(self, pools: Iterable[Pool]) -> list[tuple[Pool, Worker]]:
        idle = [(pool, worker) for pool in pools for worker in pool.workers.values() if worker.idle]
        return sorted(idle, key=lambda row: row[1].since)

    def _tell_waits(self, pool: Pool) -> list[Instruction]:
        """Say to each lease what it waits for, if that has changed."""
        common = pool.waits_together()
        starting = sum(1 for worker in pool.workers.values() if worker.coming)
        full = len(pool.workers) >= pool.max_workers
        instructions: list[Instruction] = []
        for position, waiting in enumerate(pool.queue, 1):
            if common is not None:
                phase, why = common
            elif position <= starting:
                phase, why = "start", "a worker is starting"
            elif full:
                who = f"all {pool.max_workers} workers of its pool are in use"
                phase, why = "queue", f"{who}; {place(position)}"
            else:
                phase, why = "queue", f"the host's cpus, memory or gpus are in use; {place(position)}"
            if waiting.told != why:
                waiting.told = why
                instructions.append(TellWaits(waiting.lease, phase, why))
        return instructions


def _fitting(idle: list[Worker], waiting: Waiting) -> Worker | None:
    """Return an idle worker that has this very local code loaded, else one that has none."""
    for bundle in (waiting.bundle, None):
        for worker in idle:
            if worker.bundle == bundle:
                return worker
    return None


def _recall(pools: Collection[Pool], count: int) -> list[Instruction]:
    """Ask for leases back, longest held first: a client gives one back as soon as nothing of it runs."""
    asked = sum(1 for pool in pools for worker in pool.workers.values() if worker.lease and worker.recalled)
    held = [w for pool in pools for w in pool.workers.values() if w.lease and not w.recalled]
    instructions: list[Instruction] = []
    for worker in sorted(held, key=lambda worker: worker.since)[: max(0, count - asked)]:
        worker.recalled = True
        instructions.append(RecallLease(worker.lease))
    return instructions


def _grant(pool: Pool, worker: Worker, waiting: Waiting, now: float) -> AttachWorker:
    waited = now - waiting.since
    cold = sum(phase.seconds for phase in pool.phases)
    phases = (*pool.phases, Phase(name="queue", seconds=max(0.0, waited - cold)))
    pool.phases = []
    worker.state, worker.since, worker.lease = WorkerState.IN_USE, now, waiting.lease
    worker.recalled = False
    worker.keep_alive_seconds = waiting.keep_alive_seconds
    worker.bundle = waiting.bundle or worker.bundle
    return AttachWorker(pool.key, worker.id, waiting.lease, waiting.bundle, waited < WARM_SECONDS, phases)


def _refuse(
    queue: Iterable[Waiting],
    text: str,
    *,
    error: str = "RuntimeEnvironmentError",
    output: str = "",
    hint: str = "",
) -> list[Instruction]:
    return [RefuseLease(waiting.lease, error, text, output, hint) for waiting in queue]
