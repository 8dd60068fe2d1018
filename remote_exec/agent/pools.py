"""Pools, workers and leases as a pure state machine: `handle(event)` returns instructions; nothing here waits.

Every change of state happens in this file and in `grants`, and each event carries the time. What an instruction's
success or failure was comes back as another event; one that names a pool or a worker that is gone is passed over. A
log of events replays to the same instructions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from ..model.job import Cause, DeathCertificate
from ..model.pool import Asked, PoolInfo, PoolSpec, WorkerState
from .capacity import Capacity
from .deadlines import Deadlines
from .findings import Finding, Findings
from .grants import Grants, refuse
from .pool_events import (
    EVERY_CALL,
    ClientLeft,
    EnvironmentFailed,
    EnvironmentReady,
    Event,
    ForkFailed,
    ForkServerLost,
    ForkServerStarted,
    GpusTaken,
    ImportStarted,
    Instruction,
    KeepAsked,
    KillForkServer,
    KillWorker,
    LeaseRequested,
    LeaseReturned,
    LeaseWithdrawn,
    MemoryRanLow,
    ModulesPreloaded,
    NoteFinding,
    PrepareEnvironment,
    QuotasSet,
    ReleaseAsked,
    Resources,
    StartForkServer,
    StopForkServer,
    TellLost,
    TimePassed,
    WorkerBecameReady,
    WorkerDeparted,
    WorkerForked,
)
from .pool_state import UNKNOWN, Pool, PoolState, Waiting, Worker

FORK_SERVER_KEEP_SECONDS = 60.0  # beyond the last worker
FORK_SERVER_STOP_SECONDS = 10.0  # one that was told to end and has not by then is forgotten
IMPORT_TOLD_SECONDS = 0.5  # an import that takes longer is named to those who wait
IMPORT_GRACE_SECONDS = (
    10.0  # a fork server gives a slow import up by itself; if it has not by then, it is ended
)


class Pools:
    """All pools of one agent.

    Args:
        resources: what the host has to give.
        deadlines: how long fork servers and workers may be silent.
        findings: what former agents have found out about forking.

    Example::

        pools = Pools(Resources(cpus=8, memory_bytes=16 << 30))
        for instruction in pools.handle(LeaseRequested(...)):
            carry_out(instruction)
    """

    def __init__(
        self, resources: Resources, deadlines: Deadlines | None = None, findings: Iterable[Finding] = ()
    ) -> None:
        self.pools: dict[str, Pool] = {}
        self._deadlines = deadlines or Deadlines()
        self._capacity = Capacity(resources)
        self._findings = Findings(findings)
        self._grants = Grants(
            self.pools, self._capacity, self._findings, import_seconds=self._deadlines.import_seconds
        )
        self._handlers: dict[type, Callable[[Any], list[Instruction]]] = {
            LeaseRequested: self._lease_requested,
            LeaseWithdrawn: self._lease_withdrawn,
            ClientLeft: self._client_left,
            EnvironmentReady: self._of_pool(self._environment_ready),
            EnvironmentFailed: self._of_pool(self._environment_failed),
            ForkServerStarted: self._of_pool(self._fork_server_started),
            ForkServerLost: self._of_pool(self._fork_server_lost),
            ImportStarted: self._of_pool(self._import_started),
            ModulesPreloaded: self._of_pool(self._modules_preloaded),
            WorkerForked: self._of_worker(self._worker_forked),
            GpusTaken: self._of_worker(self._gpus_taken),
            ForkFailed: self._of_worker(self._fork_failed),
            WorkerBecameReady: self._of_worker(self._worker_ready),
            LeaseReturned: self._of_worker(self._lease_returned),
            WorkerDeparted: self._of_worker(self._worker_departed),
            QuotasSet: self._quotas_set,
            MemoryRanLow: self._memory_ran_low,
            ReleaseAsked: self._release_asked,
            KeepAsked: self._keep_asked,
            TimePassed: self._time_passed,
        }

    def handle(self, event: Event) -> list[Instruction]:
        """Take in what happened; return what is to be done, in order."""
        return self._handlers[type(event)](event)

    def adopt(
        self, key: str, spec: PoolSpec, *, python: str, keep_alive_seconds: float, asked: Asked, now: float
    ) -> None:
        """Expect a fork server that a former agent left; `ForkServerStarted` tells of its workers."""
        pool = Pool(key, spec, PoolState.ADOPTING, now, python=python, keep_alive_seconds=keep_alive_seconds)
        pool.asked, self.pools[key] = asked, pool

    def next_due(self) -> float | None:
        """Return when `TimePassed` should come next, or None."""
        due: list[float | None] = [self._capacity.next_try()]
        for pool in self.pools.values():
            for worker in pool.workers.values():
                if worker.idle and worker.id not in pool.promised:
                    due.append(worker.since + worker.keep_alive_seconds)
                elif worker.coming and pool.state is PoolState.READY:
                    due.append(worker.since + self._patience(worker))
            due.append(self._fork_server_due(pool))
        return min((when for when in due if when is not None), default=None)

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
        refusal = self._capacity.refusal(event.lease, event.spec, event.group_size)
        if refusal is not None:
            return [refusal]
        key = event.spec.key
        pool = self.pools.get(key)
        instructions: list[Instruction] = []
        if pool is None:
            pool = self.pools[key] = Pool(key, event.spec, PoolState.BUILDING, event.now)
            instructions.append(PrepareEnvironment(key, event.spec))
        pool.asked = event.asked.after(pool.asked)
        pool.spec = event.spec  # an adopted pool's is without its variables
        pool.max_workers = max(pool.max_workers, event.max_workers)
        pool.keep_alive_seconds = max(pool.keep_alive_seconds, event.keep_alive_seconds)
        pool.queue.append(
            Waiting(
                event.lease,
                event.client,
                event.bundle,
                event.preload,
                event.keep_alive_seconds,
                event.now,
                event.group,
                event.group_size,
            )
        )
        return instructions + self._grants.assign(pool, event.now)

    def _client_left(self, event: ClientLeft) -> list[Instruction]:
        return self._keep_waiting(event.now, lambda waiting: waiting.client != event.client)

    def _lease_withdrawn(self, event: LeaseWithdrawn) -> list[Instruction]:
        return self._keep_waiting(event.now, lambda waiting: waiting.lease != event.lease)

    def _keep_waiting(self, now: float, wanted: Callable[[Waiting], bool]) -> list[Instruction]:
        instructions: list[Instruction] = []
        freed = False
        for pool in self.pools.values():
            staying = deque(waiting for waiting in pool.queue if wanted(waiting))
            if len(staying) != len(pool.queue):
                # what a group kept, or would have had, is for others
                freed = freed or any(waiting.size > 1 for waiting in pool.queue)
                pool.queue = staying
                instructions += self._grants.assign(pool, now)
        return instructions + (self._grants.assign_all(now) if freed else [])

    def _lease_returned(self, pool: Pool, worker: Worker, event: LeaseReturned) -> list[Instruction]:
        if worker.state is not WorkerState.IN_USE or worker.lease != event.lease:
            return []
        worker.lease = ""
        worker.reuses += 1
        return self._now_idle(pool, worker, event.now)

    def _now_idle(self, pool: Pool, worker: Worker, now: float) -> list[Instruction]:
        if worker.adopted:  # no lease fits it, and what it holds may be wanted
            return [self._grants.stop(pool, worker, now)]
        worker.state, worker.since = WorkerState.AVAILABLE, now
        instructions = self._grants.assign(pool, now) + self._grants.assign_all(now)
        if worker.idle and not worker.keep_alive_seconds and worker.id not in pool.promised:
            instructions.append(self._grants.stop(pool, worker, now))
        return instructions

    # --- environments and fork servers ------------------------------------------------------------------------

    def _environment_ready(self, pool: Pool, event: EnvironmentReady) -> list[Instruction]:
        if pool.state is not PoolState.BUILDING:
            return []
        pool.state, pool.since, pool.python = PoolState.STARTING, event.now, event.python
        return [StartForkServer(pool.key, pool.spec, event.python), *self._grants.tell_waits(pool, event.now)]

    def _environment_failed(self, pool: Pool, event: EnvironmentFailed) -> list[Instruction]:
        if pool.state is not PoolState.BUILDING:
            return []
        del self.pools[pool.key]
        return refuse(pool.queue, event.text, error=event.error, output=event.output, hint=event.hint)

    def _fork_server_started(self, pool: Pool, event: ForkServerStarted) -> list[Instruction]:
        if pool.state not in (PoolState.STARTING, PoolState.ADOPTING):
            return []
        pool.state, pool.since, pool.empty_since = PoolState.READY, event.now, event.now
        for number, pid, gpus in event.workers:
            pool.workers[number] = Worker(
                number, WorkerState.STARTING, event.now, pid=pid, bundle=UNKNOWN, gpus=gpus
            )
            self._grants.seen(number)
        return self._grants.assign(pool, event.now)

    def _fork_server_lost(self, pool: Pool, event: ForkServerLost) -> list[Instruction]:
        """Its workers die with it; their leases are told, and those who wait get a new one, once."""
        del self.pools[pool.key]
        certificate = DeathCertificate(cause=Cause.HOST_LOST, message=f"the fork server died: {event.reason}")
        instructions: list[Instruction] = [
            TellLost(worker.lease, certificate, EVERY_CALL, 0)
            for worker in pool.workers.values()
            if worker.lease
        ]
        if pool.preloading:
            reason = f"the fork server died importing {pool.importing or 'its modules'}: {event.reason}"
            instructions.append(self._import_failed(pool, reason, lasting=False))
        if pool.state is PoolState.STARTING:
            text = f"the environment's Python could not start a fork server: {event.reason}"
            instructions += refuse(pool.queue, text, output=event.output)
        elif pool.losses and pool.state is PoolState.READY and not pool.importing:
            text = f"fork servers of this environment die before a worker is ready: {event.reason}"
            instructions += refuse(pool.queue, text, output=event.output)
        elif pool.queue:
            instructions += self._renew(pool, event.now)
        return instructions + self._grants.assign_all(event.now)

    def _renew(self, lost: Pool, now: float) -> list[Instruction]:
        pool = Pool(lost.key, lost.spec, PoolState.BUILDING, now, max_workers=lost.max_workers)
        pool.queue, pool.keep_alive_seconds = lost.queue, lost.keep_alive_seconds
        pool.fresh, pool.note, pool.left_out = lost.fresh, lost.note, lost.left_out
        if lost.state is PoolState.READY:
            pool.losses = 1
        self.pools[pool.key] = pool
        return [PrepareEnvironment(pool.key, pool.spec), *self._grants.tell_waits(pool, now)]

    def _kill_fork_server(self, pool: Pool, reason: str, now: float) -> KillForkServer:
        pool.state, pool.since, pool.preloading = PoolState.STOPPING, now, False
        return KillForkServer(pool.key, reason)

    def _fork_server_due(self, pool: Pool) -> float | None:
        """Return when its fork server has been idle, or silent, for too long; None: never, as it is."""
        if pool.unused:
            return pool.empty_since + FORK_SERVER_KEEP_SECONDS
        if pool.state is PoolState.STOPPING:
            return pool.since + FORK_SERVER_STOP_SECONDS
        if pool.state is PoolState.STARTING:
            return pool.since + self._deadlines.start_seconds
        if pool.state is PoolState.ADOPTING:  # a former agent may have had it import something
            return pool.since + self._deadlines.start_seconds + self._import_patience
        if pool.preloading and pool.importing and not pool.importing_long:
            return pool.importing_since + IMPORT_TOLD_SECONDS
        if pool.preloading and (pool.queue or not pool.leased):
            return pool.importing_since + self._import_patience
        return None

    def _fork_server_overdue(self, pool: Pool, now: float) -> list[Instruction]:
        """Do what is due when `_fork_server_due` says."""
        if pool.unused:
            pool.state, pool.since = PoolState.STOPPING, now
            return [StopForkServer(pool.key)]
        if pool.state is PoolState.STOPPING:
            lost = ForkServerLost(now, pool.key, "it did not end when it was told to")
            return self._fork_server_lost(pool, lost)
        if pool.state is PoolState.STARTING:
            text = f"the environment's Python has not started within {self._deadlines.start_seconds:g} s"
            refused = self._refuse_all(pool, text)
            return [*refused, self._kill_fork_server(pool, "it has not started in time", now)]
        if pool.state is PoolState.ADOPTING:
            return [self._kill_fork_server(pool, "it does not speak to its new agent", now)]
        pool.importing_long = True
        if now - pool.importing_since < self._import_patience:
            return self._grants.tell_waits(pool, now)
        what = f"the import of {pool.importing or 'its modules'} hangs"
        if pool.leased:  # what runs is not ended because somebody else's import hangs
            return self._refuse_all(pool, f"{what} in the fork server of this environment")
        reason = f"{what}: it took over {self._deadlines.import_seconds:g} s"
        return [self._import_failed(pool, reason), self._kill_fork_server(pool, what, now)]

    # --- imports ----------------------------------------------------------------------------------------------

    @property
    def _import_patience(self) -> float:
        return self._deadlines.import_seconds + IMPORT_GRACE_SECONDS

    def _import_started(self, pool: Pool, event: ImportStarted) -> list[Instruction]:
        told, pool.importing_long = pool.importing_long, False
        pool.importing, pool.importing_since = event.module, event.now
        return self._grants.tell_waits(pool, event.now) if told else []

    def _modules_preloaded(self, pool: Pool, event: ModulesPreloaded) -> list[Instruction]:
        instructions: list[Instruction] = []
        pool.preloading, pool.importing, pool.importing_long = False, "", False
        seconds = f"{self._deadlines.import_seconds:g} s"
        for name in event.hung:
            reason = f"the import of {name} was given up after {seconds}"
            instructions.append(self._found(pool, {name}, reason, forks=True))
        if event.threads:
            reason = f"imports started threads, which a fork would lose: {', '.join(event.threads)}"
            instructions.append(self._found(pool, pool.preloaded, reason, forks=False))
        return instructions + self._grants.assign(pool, event.now)

    def _import_failed(self, pool: Pool, reason: str, *, lasting: bool = True) -> NoteFinding:
        """An import was the end of the fork server: the next one leaves it out, or all where it is not known which."""
        modules = {pool.importing} if pool.importing else pool.preloaded
        return self._found(pool, modules, reason, forks=bool(pool.importing), lasting=lasting)

    def _found(
        self, pool: Pool, modules: Iterable[str], reason: str, *, forks: bool, lasting: bool = True
    ) -> NoteFinding:
        finding = Finding(
            environment=pool.spec.environment.digest,
            modules=tuple(sorted(modules)),
            forks=forks,
            reason=reason,
        )
        if lasting:
            self._findings.add(finding)
        if forks:
            pool.left_out |= frozenset(finding.modules)
        else:
            pool.start_afresh(reason)
        return NoteFinding(pool.key, finding, lasting)

    # --- workers ----------------------------------------------------------------------------------------------

    def _worker_forked(self, pool: Pool, worker: Worker, event: WorkerForked) -> list[Instruction]:
        worker.pid = event.pid
        if worker.gpus and self._capacity.taken_why:
            self._capacity.gpus_granted()
            return self._grants.tell_waits(pool, event.now)
        return []

    def _gpus_taken(self, pool: Pool, worker: Worker, event: GpusTaken) -> list[Instruction]:
        del pool.workers[worker.id]
        pool.empty_since = event.now
        self._capacity.gpus_taken(event)
        return self._grants.assign_all(event.now)

    def _fork_failed(self, pool: Pool, worker: Worker, event: ForkFailed) -> list[Instruction]:
        """It is not the environment's fault, so others will be forked for those who come."""
        del pool.workers[worker.id]
        pool.empty_since = event.now
        refused = self._refuse_all(pool, f"no worker could be started: {event.why}")
        return refused + self._grants.assign_all(event.now)

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
            instructions += self._refuse_all(pool, text, output="\n".join(certificate.last_lines))
        elif not pool.fresh:
            reason = f"a forked one ended before it was ready ({certificate.message})"
            instructions.append(self._found(pool, pool.preloaded, reason, forks=False, lasting=False))
        return instructions + self._grants.assign_all(event.now)

    def _patience(self, worker: Worker) -> float:
        return self._deadlines.start_seconds if worker.fresh else self._deadlines.ready_seconds

    def _worker_silent(self, pool: Pool, worker: Worker, now: float) -> list[Instruction]:
        """It has not spoken in time; where it has no process either, it is its fork server that hangs."""
        instructions: list[Instruction] = []
        if not pool.fresh:
            reason = f"a forked one was not ready within {self._deadlines.ready_seconds:g} s"
            instructions.append(self._found(pool, pool.preloaded, reason, forks=False))
        if worker.pid:
            worker.state, worker.since = WorkerState.TERMINATING, now
            return [*instructions, KillWorker(pool.key, worker.id)]
        if worker.fresh:
            instructions += self._refuse_all(pool, "the fork server of this environment starts no workers")
        return [*instructions, self._kill_fork_server(pool, "it does not fork", now)]

    def _refuse_all(self, pool: Pool, text: str, *, output: str = "") -> list[Instruction]:
        refused = refuse(pool.queue, text, output=output)
        pool.queue.clear()
        return refused

    # --- the host -----------------------------------------------------------------------------------------------

    def _quotas_set(self, event: QuotasSet) -> list[Instruction]:
        """What waits and cannot be had any longer is refused; what fits now need not wait."""
        self._capacity.quotas = event.quotas
        instructions: list[Instruction] = []
        for pool in self.pools.values():
            for waiting in list(pool.queue):
                refusal = self._capacity.refusal(waiting.lease, pool.spec, waiting.size)
                if refusal is not None:
                    pool.queue.remove(waiting)
                    instructions.append(refusal)
        return instructions + self._grants.assign_all(event.now)

    def _memory_ran_low(self, event: MemoryRanLow) -> list[Instruction]:
        """Give up the worker that has been idle for longest."""
        idle = self._grants.longest_idle(self.pools.values())
        return [self._grants.stop(*idle[0], event.now)] if idle else []

    def _release_asked(self, event: ReleaseAsked) -> list[Instruction]:
        instructions: list[Instruction] = []
        for pool in self.pools.values():
            if event.pool in ("", pool.key):
                instructions += [
                    self._grants.stop(pool, w, event.now) for _, w in self._grants.longest_idle([pool])
                ]
                pool.keep_alive_seconds = 0.0
                for worker in pool.workers.values():  # those at work go when it is done
                    worker.keep_alive_seconds = 0.0
                for waiting in pool.queue:
                    waiting.keep_alive_seconds = 0.0
        return instructions

    def _keep_asked(self, event: KeepAsked) -> list[Instruction]:
        pool = self.pools.get(event.pool)
        for worker in pool.workers.values() if pool is not None else ():
            age = event.now - worker.since if worker.idle else 0.0
            worker.keep_alive_seconds = max(worker.keep_alive_seconds, age + event.seconds)
        return []

    def _time_passed(self, event: TimePassed) -> list[Instruction]:
        instructions: list[Instruction] = []
        for pool in list(self.pools.values()):
            for worker in pool.workers.values():
                age = event.now - worker.since
                if worker.idle and age >= worker.keep_alive_seconds and worker.id not in pool.promised:
                    instructions.append(self._grants.stop(pool, worker, event.now))
                elif worker.coming and age >= self._patience(worker) and pool.state is PoolState.READY:
                    instructions += self._worker_silent(pool, worker, event.now)
            due = self._fork_server_due(pool)
            if due is not None and event.now >= due:
                instructions += self._fork_server_overdue(pool, event.now)
        if self._capacity.try_again(event.now):
            instructions += self._grants.assign_all(event.now)
        return instructions
