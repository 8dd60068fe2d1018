"""Who waits gets which worker: a part of the pools' state machine, as pure as the rest.

A lease is granted to a worker that is idle and fits; else workers are forked where pool and host have room for them,
idle ones of no use are ended to make room, and leases are asked back. Whatever waits on is told what it waits for.

The leases of a group are granted in one step. Until there are workers for all of it, those that are idle are promised
to the group at the head of its pool's queue: nobody behind it gets them, and only who has waited for longer may have
them ended to make room. Where groups are waited for, room goes to who has waited for longest, in whichever pool. So two
groups never wait for each other's workers, nor take them from each other in turn.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ..model.pool import WorkerState
from .capacity import Capacity, Held
from .findings import Findings
from .pool_events import (
    AttachWorker,
    ForkWorker,
    Instruction,
    PreloadModules,
    RecallLease,
    RefuseLease,
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
        for pool in sorted(self._pools.values(), key=_waits_since):
            instructions += self.assign(pool, now)
        return instructions

    def assign(self, pool: Pool, now: float) -> list[Instruction]:
        """Give waiting leases to workers that are there; see to it that more come where that is allowed."""
        if not pool.queue:
            pool.promised = frozenset()
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
                if waiting.size > 1:
                    why += f"; its group takes {waiting.size} workers at once"
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
        pool.promised = frozenset()
        waits = False  # whether somebody before does
        for party in pool.parties if idle else ():
            if not idle:
                break
            found = _fitting_all(idle, party)
            if len(found) == len(party):
                for worker, waiting in zip(found, party):  # noqa: B905 - they are as many
                    idle.remove(worker)
                    pool.queue.remove(waiting)
                    instructions.append(_grant(pool, worker, waiting, now))
            elif not waits:
                waits = True
                pool.promised = frozenset(worker.id for worker in found)
                idle = [worker for worker in idle if worker.id not in pool.promised]
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
        short = pool.short
        if short > 0 and self._gives_way(pool):
            return []
        while short > 0 and len(pool.workers) < pool.max_workers:
            gpus = self._capacity.room(pool.spec, self._held())
            if gpus is None:
                return instructions + self._make_room(pool, short, now)
            instructions.append(self._fork(pool, gpus, now))
            short -= 1
        # The pool is full: workers that are idle have other local code loaded than anyone here waits for.
        leaving = sum(1 for worker in pool.workers.values() if worker.state is WorkerState.TERMINATING)
        stales = [row for row in self.longest_idle([pool]) if row[1].id not in pool.promised]
        stales = stales[: max(0, short - leaving)]
        for _, stale in stales:
            instructions.append(self.stop(pool, stale, now))
        return instructions + _recall([pool], short - leaving - len(stales))

    def _gives_way(self, pool: Pool) -> bool:
        """Whether what room there is, or will be, is for another pool, where somebody has waited for longer.

        Between groups, and others and groups: one that takes a worker and has to give it back before it has all that
        it needs gets nowhere, and neither does the other.
        """
        own = pool.first
        for other in self._pools.values():
            first = other.first if other.state is PoolState.READY and not other.preloading else None
            if own is None or first is None or other is pool or own.size == first.size == 1:
                continue
            goes_before = (first.since, other.key) < (own.since, pool.key)
            if goes_before and other.spec.shape.vies_with(pool.spec.shape) and self._lacks_room(other):
                return True
        return False

    def _lacks_room(self, pool: Pool) -> bool:
        wants_more = pool.short > 0 and len(pool.workers) < pool.max_workers
        return wants_more and bool(self._capacity.lacking(pool.spec, self._held()))

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

    def _make_room(self, pool_in_need: Pool, short: int, now: float) -> list[Instruction]:
        """Have idle workers of any pool end, longest idle first, if that lets one more of this pool in.

        Else ask for leases back that hold what it needs.
        """
        spec = pool_in_need.spec
        staying = [held for held in self._held() if held[1].state is not WorkerState.TERMINATING]
        going: list[tuple[Pool, Worker]] = []
        for pool, worker in self.longest_idle(self._pools.values()):
            if not self._capacity.lacking(spec, staying):
                break
            if worker.id in pool.promised and _keeps_promise(pool, pool_in_need):
                continue
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


def refuse(
    queue: Iterable[Waiting],
    text: str,
    *,
    error: str = "RuntimeEnvironmentError",
    output: str = "",
    hint: str = "",
) -> list[Instruction]:
    """Refuse their leases to those who wait."""
    return [RefuseLease(waiting.lease, error, text, output, hint) for waiting in queue]


def _fitting(idle: list[Worker], waiting: Waiting) -> Worker | None:
    """Return an idle worker that has this very local code loaded, else one that has none."""
    for bundle in (waiting.bundle, None):
        for worker in idle:
            if worker.bundle == bundle:
                return worker
    return None


def _fitting_all(idle: list[Worker], party: list[Waiting]) -> list[Worker]:
    """Return idle workers for as many of those who wait together as there are."""
    left = list(idle) if len(party) > 1 else idle
    found: list[Worker] = []
    for waiting in party:
        worker = _fitting(left, waiting)
        if worker is not None:
            found.append(worker)
            if left is not idle:
                left.remove(worker)
    return found


def _waits_since(pool: Pool) -> tuple[float, str]:
    first = pool.first
    return (first.since if first is not None else 0.0, pool.key)


def _keeps_promise(pool: Pool, other: Pool) -> bool:
    """Whether what a pool keeps for its group stays, though another is in need: who waits for longer goes first."""
    return pool is other or _waits_since(pool) < _waits_since(other)


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
