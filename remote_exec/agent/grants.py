"""Who waits gets which worker: a part of the pools' state machine, as pure as the rest.

A lease is granted to a worker that is idle and fits; else workers are forked where pool and host have room for them,
idle ones of no use are ended to make room, and leases are asked back. Whatever waits on is told what it waits for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable

from ..model.pool import PoolSpec, WorkerState
from .capacity import Capacity, Held
from .findings import Findings
from .pool_events import (
    AttachWorker,
    ForkWorker,
    Instruction,
    PreloadModules,
    RecallLease,
    StopWorker,
    TellWaits,
)
from .pool_state import Pool, PoolState, Waiting, Worker, place

WARM_SECONDS = 0.001  # a lease that waited for less was granted by the event that asked for it


class Grants:
    """Decides for all pools of one agent.

    Args:
        pools: the pools, by key; `Pools` adds and removes them.
        capacity: what the host has to give.
        findings: what is known about forking.
        import_seconds: how long a fork server may import one module.
    """

    def __init__(
        self, pools: dict[str, Pool], capacity: Capacity, findings: Findings, *, import_seconds: float
    ) -> None:
        self._pools = pools
        self._capacity = capacity
        self._findings = findings
        self._import_seconds = import_seconds
        self._next_worker = 1

    def seen(self, worker: int) -> None:
        """Never use this number of a worker, or a lower one, again."""
        self._next_worker = max(self._next_worker, worker + 1)

    def assign_all(self, now: float) -> list[Instruction]:
        """Do for every pool what `assign` does for one."""
        instructions: list[Instruction] = []
        for pool in list(self._pools.values()):
            instructions += self.assign(pool, now)
        return instructions

    def assign(self, pool: Pool, now: float) -> list[Instruction]:
        """Give waiting leases to workers that are there; see to it that more come where that is allowed."""
        if not pool.queue:
            return []
        instructions: list[Instruction] = []
        if pool.state is PoolState.READY:
            instructions += self._grant_idle(pool, now)
            if pool.queue:
                instructions += self._grow(pool, now)
        return instructions + self.tell_waits(pool, now)

    def stop(self, pool: Pool, worker: Worker, now: float) -> StopWorker:
        """Have an idle worker end."""
        worker.state, worker.since = WorkerState.TERMINATING, now
        return StopWorker(pool.key, worker.id)

    def longest_idle(self, pools: Iterable[Pool]) -> list[tuple[Pool, Worker]]:
        """Return the idle workers of these pools, longest idle first."""
        idle = [(pool, worker) for pool in pools for worker in pool.workers.values() if worker.idle]
        return sorted(idle, key=lambda row: row[1].since)

    def tell_waits(self, pool: Pool, now: float) -> list[Instruction]:
        """Say to each lease what it waits for, if that has changed."""
        common = pool.waits_together()
        starting = sum(1 for worker in pool.workers.values() if worker.coming)
        if pool.spec.shape.gpus and self._capacity.taken_why:
            starting = 0  # those that are to start have yet to get their GPUs
        instructions: list[Instruction] = []
        for position, waiting in enumerate(pool.queue, 1):
            if common is not None:
                phase, why = common
            elif position <= starting:
                phase, why = "start", "a worker is starting"
            else:
                phase, why = "queue", f"{self._shortage(pool)}; {place(position)}"
            if waiting.phase != phase:
                waiting.enter(phase, now)
            if waiting.told != why:
                waiting.told = why
                instructions.append(TellWaits(waiting.lease, phase, why))
        return instructions

    def _shortage(self, pool: Pool) -> str:
        if pool.spec.shape.gpus and self._capacity.taken_why:
            return self._capacity.taken_why
        if len(pool.workers) >= pool.max_workers:
            return f"all {pool.max_workers} workers of its pool are in use"
        return f"the host's {self._capacity.lacking(pool.spec, self._held()) or 'workers'} are in use"

    def _grant_idle(self, pool: Pool, now: float) -> list[Instruction]:
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
        return instructions

    def _grow(self, pool: Pool, now: float) -> list[Instruction]:
        if pool.preloading:
            return []
        wanted = self._modules_to_import(pool)
        if wanted:
            pool.preloading, pool.importing, pool.importing_long = True, "", False
            pool.importing_since = now
            pool.preloaded |= frozenset(wanted)
            return [PreloadModules(pool.key, wanted, self._import_seconds)]
        instructions: list[Instruction] = []
        short = len(pool.queue) - sum(1 for worker in pool.workers.values() if worker.coming)
        while short > 0 and len(pool.workers) < pool.max_workers:
            gpus = self._capacity.room(pool.spec, self._held())
            if gpus is None:
                return instructions + self._make_room(pool.spec, short, now)
            instructions.append(self._fork(pool, gpus, now))
            short -= 1
        # The pool is full: workers that are idle have other local code loaded than anyone here waits for.
        leaving = sum(1 for worker in pool.workers.values() if worker.state is WorkerState.TERMINATING)
        stales = self.longest_idle([pool])[: max(0, short - leaving)]
        for _, stale in stales:
            instructions.append(self.stop(pool, stale, now))
        return instructions + _recall([pool], short - leaving - len(stales))

    def _modules_to_import(self, pool: Pool) -> tuple[str, ...]:
        """Return what the fork server is to import before it forks; where forking is known to fail, it does not."""
        environment = pool.spec.environment.digest
        left_out = pool.left_out | self._findings.left_out(environment) | pool.preloaded
        asked = (name for waiting in pool.queue for name in waiting.preload)
        wanted = tuple(dict.fromkeys(name for name in asked if name not in left_out))
        reason = self._findings.unsound(environment, pool.preloaded | frozenset(wanted))
        if reason and not pool.fresh:
            pool.start_afresh(reason)
        return () if pool.fresh else wanted

    def _make_room(self, spec: PoolSpec, short: int, now: float) -> list[Instruction]:
        """Have idle workers of any pool end, longest idle first, if that lets one more of this pool in.

        Else ask for leases back that hold what it needs.
        """
        staying = [held for held in self._held() if held[1].state is not WorkerState.TERMINATING]
        going: list[tuple[Pool, Worker]] = []
        for pool, worker in self.longest_idle(self._pools.values()):
            if not self._capacity.lacking(spec, staying):
                break
            staying.remove((pool.spec.shape, worker))
            going.append((pool, worker))
        if self._capacity.lacking(spec, staying):
            rivals = [pool for pool in self._pools.values() if pool.spec.shape.vies_with(spec.shape)]
            return _recall(rivals, short)
        instructions: list[Instruction] = []
        for pool, worker in going:
            held = (pool.spec.shape, worker)
            if self._capacity.lacking(spec, [*staying, held]):
                instructions.append(self.stop(pool, worker, now))
            else:
                staying.append(held)  # its going would not help
        return instructions

    def _fork(self, pool: Pool, gpus: tuple[str, ...], now: float) -> ForkWorker:
        worker = Worker(self._next_worker, WorkerState.STARTING, now, gpus=gpus, fresh=pool.fresh)
        self._next_worker += 1
        pool.workers[worker.id] = worker
        return ForkWorker(pool.key, worker.id, gpus, pool.fresh)

    def _held(self) -> list[Held]:
        return [
            (pool.spec.shape, worker) for pool in self._pools.values() for worker in pool.workers.values()
        ]


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
    waiting.enter("", now)
    worker.state, worker.since, worker.lease = WorkerState.IN_USE, now, waiting.lease
    worker.recalled = False
    worker.keep_alive_seconds = waiting.keep_alive_seconds
    worker.bundle = waiting.bundle or worker.bundle
    warm = waited < WARM_SECONDS
    return AttachWorker(pool.key, worker.id, waiting.lease, waiting.bundle, warm, waiting.phases)
