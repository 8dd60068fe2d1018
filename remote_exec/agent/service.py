"""The agent: hears clients, fork servers and workers, asks the state machines, and carries their instructions out.

Everything here runs in the reactor's thread. What may take long (building an environment, unpacking a bundle)
runs in a thread and comes back as an event. Decisions about pools are `pools`'; answers to questions are
`requests`'; durable jobs are `jobs`'.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..model.job import Cause, DeathCertificate
from ..model.layout import Layout
from ..model.pool import Asked
from ..wire import protocol
from ..worker.blobs import BlobStore
from ..worker.unpacked import place_of
from . import findings, mishaps, recovery
from . import pool_events as events
from .adoption import adopt, adopted_lease
from .arrivals import Arrivals
from .clients import Clients
from .deadlines import Deadlines
from .deaths import Deaths, certify, keep_rest, oom_kills
from .early import Spare
from .forking import FINDINGS_NAME, Forking
from .jobs import Job
from .journal import Journal
from .leases import Client, LeaseEntry
from .link import close_fds
from .pools import Pools
from .processes import Processes
from .provision import Provision
from .reactor import Reactor, Timer
from .running import RunningCalls
from .settings import Settings

if TYPE_CHECKING:
    from .environments import EnvironmentStore
    from .gpu_watch import GpuWatch
    from .housekeeping import Housekeeping

_log = logging.getLogger(__name__)

ADOPTION_SECONDS = 1.5
HOUSEKEEPING_SECONDS = 3.0  # from the start: the first call goes before
INTERRUPT_SECONDS = 1.0  # from the interrupt to SIGTERM
TERMINATE_SECONDS = 0.7  # from SIGTERM to SIGKILL
LOG_LIMIT_BYTES = 64 << 20
NEVER_BEGUN = DeathCertificate(cause=Cause.CANCELLED, message="it was cancelled before it had a worker")


class Agent:
    """See the module's docstring."""

    def __init__(
        self,
        layout: Layout,
        reactor: Reactor,
        *,
        runtime: str,
        digest: str,
        version: str,
        spare: Spare | None,
    ) -> None:
        from .devices import resources

        self.layout = layout
        self.reactor = reactor
        self.version, self.digest = version, digest
        self.started_at = time.time()
        self.host = resources()
        self.pools = Pools(
            events.Resources(self.host.cpus, self.host.memory_bytes, self.host.gpus),
            Deadlines.of(os.environ),
            findings.load(layout.home / FINDINGS_NAME),
        )
        self.forking = Forking(self)
        self.journal = Journal.open(layout.journal)
        self.blobs = BlobStore(layout.blobs)
        self.clients = Clients(self)
        self.arrivals = Arrivals(self)
        self.leases: dict[str, LeaseEntry] = {}
        self.running = RunningCalls(self)
        self.deaths = Deaths()
        self.ending: set[str] = set()  # jobs whose end is being written down
        self.recovered = False  # what a former agent left has been taken over
        self.stacks: dict[int, Callable[[str], None]] = {}
        self.processes = Processes(
            reactor,
            runtime=runtime,
            sockets=str(layout.sockets),
            log=str(layout.agent_log),
            on_message=self._heard,
            on_lost=self._fork_server_lost,
            spare=spare,
        )
        self.jobs: dict[str, Job] = {}
        self.job_waiters: dict[str, list[Callable[[], None]]] = {}
        self.settings = Settings().told({}, os.environ)
        self._timer: Timer | None = None
        self._idle_timer: Timer | None = None
        self.superseded = False
        self._housekeeps = False
        self._oom_kills = oom_kills()
        log = os.open(layout.agent_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.provision = Provision(self, log)
        self._do: dict[type, Callable[[Any], None]] = {
            events.PrepareEnvironment: self.provision.prepare,
            events.StartForkServer: self.provision.start,
            events.PreloadModules: lambda i: self.processes.tell_server(
                i.pool, protocol.Preload(i.modules, i.seconds)
            ),
            events.ForkWorker: self.forking.fork,
            events.AttachWorker: self._attach,
            events.StopWorker: self._stop_worker,
            events.KillWorker: lambda i: self._signal(i.pool, i.worker, signal.SIGKILL),
            events.StopForkServer: lambda i: self.processes.tell_server(i.pool, protocol.StopForkServer()),
            events.KillForkServer: lambda i: self.processes.kill(i.pool, i.reason),
            events.NoteFinding: self.forking.note,
            events.TellWaits: lambda i: self._tell_lease(
                i.lease, protocol.LeaseWaits(i.lease, i.phase, i.why)
            ),
            events.RecallLease: lambda i: self._tell_lease(i.lease, protocol.LeaseRecalled(i.lease)),
            events.RefuseLease: self._refuse,
            events.TellLost: self._tell_lost,
        }

    # What a first call does not need is imported when it is: an agent's start is what that call waits for.

    @cached_property
    def environments(self) -> EnvironmentStore:
        """The environments of this host."""
        from .environments import EnvironmentStore

        return EnvironmentStore(self.layout.environments, None, self.blobs.path, tools=self.layout.tools)

    @cached_property
    def housekeeping(self) -> Housekeeping:
        """What keeps caches and journal within their bounds."""
        from .housekeeping import Housekeeping

        return Housekeeping(self)

    @cached_property
    def gpu_watch(self) -> GpuWatch:
        """What looks at GPUs."""
        from .gpu_watch import GpuWatch

        return GpuWatch(self)

    # --- the shell around the state machine -------------------------------------------------------------------

    def happen(self, event: events.Event) -> None:
        """Let the pools take in an event, and carry out what they instruct."""
        try:
            instructions = self.pools.handle(event)
        except Exception as error:  # a mistake of ours
            instructions = mishaps.decided_wrong(event, error)
        for instruction in instructions:
            try:
                self._do[type(instruction)](instruction)
            except Exception as error:
                mishaps.not_carried_out(self, instruction, error)
        self._set_timer()

    def _set_timer(self) -> None:
        due = self.pools.next_due()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due is not None:
            delay = max(0.01, due - time.monotonic())
            self._timer = self.reactor.after(delay, lambda: self.happen(events.TimePassed(time.monotonic())))
        if self._housekeeps:
            self.housekeeping.watch()
        if self.host.gpus:
            self.gpu_watch.watch()
        self.settle()

    def settle(self) -> None:
        """End some time after there is nothing left to stay for."""
        working = any(not client.looks for client in self.clients.connected.values())
        busy = bool(working or self.leases or self.pools.pools or self.jobs)
        if busy and self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        if not busy and self._idle_timer is None:
            wait = 0.0 if self.superseded else self.settings.idle_seconds
            self._idle_timer = self.reactor.after(wait, self.reactor.stop)

    def recover(self) -> None:
        """Take over what a former agent left: fork servers that live on, jobs that have not ended."""
        self.reactor.after(HOUSEKEEPING_SECONDS, self._keep_house)
        adopted = adopt(self)
        # Workers say within moments which leases they serve; then it is clear which jobs run on.
        self.reactor.after(ADOPTION_SECONDS if adopted else 0.0, self._recover_jobs)
        self.settle()

    def _recover_jobs(self) -> None:
        self.recovered = True
        recovery.recover(self)

    def _keep_house(self) -> None:
        self._housekeeps = True
        self.processes.end_spare()  # the first pool, if it has come, was another
        self.housekeeping.start()
        self.housekeeping.watch()

    def drop_waiting(self, lease: str) -> None:
        """Withdraw a lease of the agent's own that has not been granted."""
        entry = self.leases.get(lease)
        if entry is not None:
            self.forget_lease(entry)
            self.happen(events.LeaseWithdrawn(time.monotonic(), lease))

    def stop(self) -> None:
        """End every fork server, and the loop."""
        self.processes.end_spare()
        for pool in list(self.processes.fork_servers):
            self.processes.tell_server(pool, protocol.StopForkServer())
        self.clients.say_goodbye()
        self.reactor.stop()

    # --- instructions -----------------------------------------------------------------------------------------

    def _attach(self, instruction: events.AttachWorker) -> None:
        entry = self.leases.get(instruction.lease)
        if entry is None:
            return
        if entry.open is not None:
            entry.fds = entry.open()
        entry.pool, entry.worker = instruction.pool, instruction.worker
        folder = str(place_of(instruction.bundle, self.layout.bundles)) if instruction.bundle else ""
        attach = protocol.Attach(
            entry.id,
            folder,
            entry.request.import_roots,
            str(self.layout.jobs),
            entry.request.log_limit_bytes or LOG_LIMIT_BYTES,
            len(entry.fds),
            job="" if entry.client is not None else entry.id.rpartition(".")[0],
            phases=instruction.phases,
            linger_seconds=entry.request.linger_seconds,
            instance=entry.request.instance,
        )
        self.processes.note_price(instruction.pool, instruction.worker, attach.instance.price)
        self.processes.tell_worker(instruction.pool, instruction.worker, attach, tuple(entry.fds))
        self.arrivals.hand_over(entry)
        close_fds(entry.fds)
        entry.fds = []
        server = self.processes.fork_servers.get(instruction.pool)
        entry.pid = server.pids.get(instruction.worker, 0) if server is not None else 0
        self._tell_lease(
            entry.id,
            protocol.LeaseGranted(
                entry.id, instruction.worker, entry.pid, instruction.phases, instruction.warm
            ),
        )

    def _stop_worker(self, instruction: events.StopWorker) -> None:
        self.processes.tell_worker(instruction.pool, instruction.worker, protocol.StopWorker())
        # Threads of user code can keep it from ending by itself.
        self.reactor.after(5.0, lambda: self._signal(instruction.pool, instruction.worker, signal.SIGKILL))

    def _signal(self, pool: str, worker: int, number: int) -> None:
        self.processes.tell_server(pool, protocol.Signal(worker, number))

    def _refuse(self, instruction: events.RefuseLease) -> None:
        entry = self.leases.get(instruction.lease)
        if entry is None:
            return
        self._tell_lease(
            entry.id,
            protocol.LeaseRefused(
                entry.id, instruction.error, instruction.text, instruction.output, instruction.hint
            ),
        )
        self.forget_lease(entry)

    def _tell_lost(self, instruction: events.TellLost) -> None:
        lease, entry = instruction.lease, self.leases.get(instruction.lease)
        rest = entry.rest if entry is not None else ("", "")
        lost = protocol.WorkerLost(lease, instruction.begun, instruction.item, instruction.certificate, rest)
        self.deaths.note(lost)
        if entry is None:
            return
        with mishaps.logged("the books of a dead worker"):
            self.running.lost(lease, instruction.certificate)
        client = entry.client
        if client is None:
            self._tell_lease(lease, lost)
        else:  # who hears of a death finds its record
            self.running.when_written(lambda: client.link.send(lost))
        self.forget_lease(entry)

    def _tell_lease(self, lease: str, message: object) -> None:
        entry = self.leases.get(lease)
        if entry is None:
            return
        if entry.client is not None:
            entry.client.link.send(message)
        elif entry.on_event is not None:
            entry.on_event(message)

    def forget_lease(self, entry: LeaseEntry) -> None:
        """A lease is over, or will not be."""
        close_fds(entry.fds)
        for timer in entry.stopping.values():
            timer.cancel()
        self.leases.pop(entry.id, None)
        self.arrivals.lease_ends(entry)

    # --- leases -----------------------------------------------------------------------------------------------

    def request_lease(
        self,
        request: protocol.RequestLease,
        fds: list[int],
        *,
        client: Client | None,
        on_event: Callable[[object], None] | None = None,
        opens: Callable[[], list[int]] | None = None,
    ) -> None:
        """Ask the pools for a worker on behalf of a client; or of a job, whose stream is opened when there is one."""
        if request.lease in self.leases:
            close_fds(fds)  # ids are unique: whoever repeats one is not our client
            return
        if request.uv:
            self.provision.uv = request.uv
        entry = LeaseEntry(request.lease, client, fds, request, on_event, opens)
        self.leases[request.lease] = entry
        self.arrivals.lease_begins(entry)
        self.happen(
            events.LeaseRequested(
                now=time.monotonic(),
                lease=request.lease,
                client=client.id if client is not None else 0,
                spec=request.pool,
                bundle=request.bundle,
                preload=request.preload,
                keep_alive_seconds=request.keep_alive_seconds,
                max_workers=request.max_workers,
                group=request.group,
                group_size=request.group_size,
                asked=Asked(
                    by=(request.asked_by,) if request.asked_by else (), instance_type=request.instance.type
                ),
            )
        )

    def withdraw(self, message: protocol.WithdrawCalls) -> None:
        """Have a worker not begin calls that its client wants back."""
        entry = self.leases.get(message.lease)
        if entry is not None and entry.worker:
            self.processes.tell_worker(entry.pool, entry.worker, message)

    def cancel(self, lease: str, call: int, reason: str = "cancelled") -> None:
        """Stop a call: interrupt now, terminate when it does not heed, kill when it does not heed that."""
        entry = self.leases.get(lease)
        if entry is None or call in entry.stopping:
            return
        if not entry.worker:
            self._tell_lease(lease, protocol.WorkerLost(lease, 0, 0, NEVER_BEGUN))
            self.drop_waiting(lease)
            return
        self.processes.tell_worker(entry.pool, entry.worker, protocol.Interrupt(lease, call, reason))

        def terminate() -> None:
            entry.killed_for = reason
            self._signal(entry.pool, entry.worker, signal.SIGTERM)
            entry.stopping[call] = self.reactor.after(TERMINATE_SECONDS, kill)

        def kill() -> None:
            self._signal(entry.pool, entry.worker, signal.SIGKILL)

        entry.stopping[call] = self.reactor.after(INTERRUPT_SECONDS, terminate)

    def _call_stopped(self, message: protocol.CallStopped) -> None:
        entry = self.leases.get(message.lease)
        timer = entry.stopping.pop(message.call, None) if entry is not None else None
        if timer is not None:
            timer.cancel()

    # --- fork servers and workers -------------------------------------------------------------------------------

    def _heard(self, pool: str, worker: int, message: Any, body: bytes) -> None:
        now = time.monotonic()
        match message:
            case protocol.ForkServerReady():
                self.forking.fork_server_ready(pool, message)
            case protocol.ImportStarted():
                self.happen(events.ImportStarted(now, pool, message.module))
            case protocol.Preloaded():
                self.forking.preloaded(pool, message)
            case protocol.Forked():
                server = self.processes.fork_servers[pool]
                server.pids[message.worker] = message.pid
                self.happen(events.WorkerForked(now, pool, message.worker, message.pid))
            case protocol.WorkerReady():
                self.processes.spoke(message.pid)
                if message.lease and message.lease not in self.leases:
                    entry = self.leases[message.lease] = adopted_lease(message, pool, worker)
                    self.arrivals.lease_begins(entry)
                self.happen(events.WorkerBecameReady(now, pool, worker, message.lease))
            case protocol.LeaseEnded():
                self._lease_ended(pool, worker, message.lease)
            case protocol.WorkerExited():
                self._worker_exited(pool, message)
            case protocol.CallRunning() | protocol.CallOrphaned():
                self.running.began(message)
            case protocol.CallsEnded():
                self.running.ended(message)
            case protocol.OrphanEnded():
                self.running.orphan_ended(message, body)
            case protocol.CallStopped():
                self._call_stopped(message)
            case protocol.Stack():
                told = self.stacks.pop(message.id, None)
                if told is not None:
                    told(message.text)
            case _:
                _log.warning("a %s from pool %s was not expected", type(message).__name__, pool)

    def _fork_server_lost(self, pool: str, reason: str, output: str) -> None:
        self.happen(events.ForkServerLost(time.monotonic(), pool, reason, output))
        self.journal.remove_fork_server(pool)

    def _lease_ended(self, pool: str, worker: int, lease: str) -> None:
        entry = self.leases.get(lease)
        if entry is not None:
            with mishaps.logged("the books of a lease"):
                self.running.forget_lease(lease)
                if entry.on_event is not None:
                    entry.on_event(protocol.LeaseEnded(lease))
            self.forget_lease(entry)
        self.happen(events.LeaseReturned(time.monotonic(), pool, worker, lease))

    def note_past_death(self, exited: protocol.WorkerExited) -> None:
        """Write down what died with a worker while there was no agent, or one that could not do so any longer."""
        if not exited.lease or self.deaths.find(exited.lease) is not None:
            return
        folder = self.layout.jobs / exited.lease
        certificate = certify(exited, killed_for="", oom_kills=0, log_folder=folder)
        rest = ("", "")
        if exited.running and not self.running.is_settled(exited):
            rest = keep_rest(exited, folder, limit_bytes=LOG_LIMIT_BYTES)
        lost = protocol.WorkerLost(exited.lease, exited.begun, exited.item, certificate, rest)
        self.deaths.note(lost)
        self.running.died(exited, certificate)

    def _worker_exited(self, pool: str, message: protocol.WorkerExited) -> None:
        self.processes.hear_out(pool, message.worker)
        entry = next((e for e in self.leases.values() if e.pool == pool and e.worker == message.worker), None)
        before, self._oom_kills = self._oom_kills, oom_kills()
        certificate = certify(
            message,
            killed_for=entry.killed_for if entry is not None else "",
            oom_kills=self._oom_kills - before,
            log_folder=self.layout.jobs / entry.id if entry is not None else None,
            peak_gpu_memory=self.gpu_watch.peak(message.lease) if self.host.gpus else 0,
            memory_bytes=self.host.memory_bytes,
        )
        if entry is None:
            _log.info("worker %d of pool %s ended: %s", message.worker, pool, certificate.message)
        self.processes.forget_worker(pool, message.worker)
        own = entry is not None and message.lease == entry.id
        with mishaps.logged("the books of a dead worker"):
            if entry is not None and own:
                limit = entry.request.log_limit_bytes or LOG_LIMIT_BYTES
                entry.rest = keep_rest(message, self.layout.jobs / entry.id, limit_bytes=limit)
                self.running.died(message, certificate)
            elif message.running:  # a former agent's, which has not said what it serves
                self.note_past_death(message)
        self.happen(
            events.WorkerDeparted(
                time.monotonic(),
                pool,
                message.worker,
                certificate,
                message.begun if own else 0,
                message.item if own else 0,
            )
        )
