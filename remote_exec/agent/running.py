"""The calls that run now, as far as they have run for long enough to be listed, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..model.cost import Instance
from ..model.job import AttemptRecord, DeathCertificate, JobRecord, JobState
from ..session.cell_text import CELL_NAME
from ..wire import protocol
from ..worker.lease import call_name
from . import abouts, jobs, orphans

if TYPE_CHECKING:
    from .service import Agent


class RunningCalls:
    """Calls of clients, by name; durable jobs are in the journal. Owned by the loop's thread."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.records: dict[str, JobRecord] = {}
        self.attempts: dict[str, AttemptRecord] = {}
        self.leases: dict[str, tuple[str, int]] = {}  # name -> lease, number of the call on it
        self.abouts: dict[str, abouts.About] = {}  # what is told of those in `records`

    def began(self, message: protocol.CallRunning | protocol.CallOrphaned) -> None:
        """A call has run for a while, or its client is gone: then it is a job from now on."""
        record = JobRecord(
            name=message.name,
            kind="call",
            function=message.function,
            state=JobState.RUNNING,
            created_at=message.started_at - sum(phase.seconds for phase in message.phases),
            started_at=message.started_at,
            instance_type=message.instance.type,
            tags=message.tags,
            bill=message.instance.bill(since=message.started_at),
        )
        if not jobs.job_of(message.lease):
            self.abouts[message.name] = self._about(message.lease, message.about)
        entry = self._agent.leases.get(message.lease)
        attempt = AttemptRecord(
            job=message.name,
            number=1,
            state=JobState.RUNNING,
            worker_pid=entry.pid if entry is not None else 0,
            started_at=message.started_at,
            phases=message.phases,
        )
        self.records[message.name], self.attempts[message.name] = record, attempt
        self.leases[message.name] = (message.lease, message.call)
        if isinstance(message, protocol.CallOrphaned):
            orphans.promote(self._agent, record, attempt)
            self._put(message.name)

    def ended(self, message: protocol.CallsEnded) -> None:
        """Calls have ended; their clients have the outcomes. A name is found all the time: here until it is there."""
        names = (*(record.name for record in message.records), *message.summed)
        self._agent.journal.record_calls(message.records, message.attempts, failures=message.failures)
        told = [(self._about(_lease_of(names[0]), text), names) for text, names in message.abouts]
        abouts.put(self._agent.journal, told)
        self._forget_when_written([name for name in names if self._is_known(name)])

    def orphan_ended(self, message: protocol.OrphanEnded, body: bytes) -> None:
        """A call has ended that no client waits for; its outcome is kept."""
        self.leases.pop(message.record.name, None)
        orphans.finish_orphan(self._agent, message, body)
        if not jobs.job_of(message.lease):
            self.abouts[message.record.name] = self._about(message.lease, message.about)
            self._put(message.record.name)

    def died(self, exited: protocol.WorkerExited, certificate: DeathCertificate) -> None:
        """A worker has died, perhaps in the midst of a client's call."""
        if exited.running and not jobs.job_of(exited.lease):
            name = call_name(exited.function, exited.lease, exited.begun)
            if name not in self.abouts:
                self.abouts[name] = self._about(exited.lease, abouts.noted(exited.about).about)
            self._died(
                name, exited.lease, exited.function, exited.started_at, certificate, noted=exited.about
            )

    def is_settled(self, exited: protocol.WorkerExited) -> bool:
        """Whether it is in the journal already what became of the call or job that a dead worker ran."""
        name = jobs.job_of(exited.lease) or call_name(exited.function, exited.lease, exited.begun)
        known = self._agent.journal.get(name)
        return known is not None and known.state.final

    def lost(self, lease: str, certificate: DeathCertificate) -> None:
        """The worker of a lease is gone: what was listed of it has died, if that has not been told yet."""
        for name, (owner, _) in list(self.leases.items()):
            if owner == lease and not jobs.job_of(lease):
                record = self.records[name]
                self._died(name, lease, record.function, record.started_at or record.created_at, certificate)
        self.forget_lease(lease)

    def _died(
        self,
        name: str,
        lease: str,
        function: str,
        started_at: float,
        certificate: DeathCertificate,
        *,
        noted: str = "",
    ) -> None:
        self.leases.pop(name, None)
        entry = self._agent.leases.get(lease)
        instance = entry.request.instance if entry is not None else Instance()
        told = abouts.noted(noted)
        record = self.records.get(name) or JobRecord(
            name=name,
            kind="call",
            function=told.function or function,
            state=JobState.RUNNING,
            created_at=started_at,
            started_at=started_at,
            instance_type=instance.type,
            tags=told.tags,
            bill=instance.bill(since=started_at),
        )
        self.records[name] = record  # until it is in the journal
        attempt = self.attempts.get(name)
        orphans.finish_dead(
            self._agent, record, certificate, phases=attempt.phases if attempt is not None else ()
        )
        self._put(name)

    def cell_named(self, name: str) -> JobRecord | None:
        """Return the newest cell that was given this name, or None; as many may be as it was run times."""
        prefix, tag = f"{name}-", (CELL_NAME, name)
        found = [r for r in self.records.values() if r.name.startswith(prefix) and tag in r.tags]
        kept = abouts.newest_tagged(self._agent.journal, prefix, tag)
        return max([*found, *([kept] if kept is not None else [])], key=_created_at, default=None)

    def about(self, name: str) -> abouts.About:
        """Return what is told of a call beside its record."""
        return self.abouts.get(name) or abouts.get(self._agent.journal, name)

    def _about(self, lease: str, text: str) -> abouts.About:
        entry = self._agent.leases.get(lease)
        return abouts.about_of(text, entry.request.pool if entry is not None else None)

    def _put(self, name: str) -> None:
        abouts.put(self._agent.journal, [(self.abouts.get(name, {}), [name])])

    def forget(self, name: str) -> None:
        """The journal has what became of a call: tell those who wait for it."""
        self.abouts.pop(name, None)
        self.records.pop(name, None)
        self.attempts.pop(name, None)
        self.leases.pop(name, None)
        known = self._agent.journal.get(name)
        if known is not None and not known.state.final:
            return  # an attempt's end is not the job's
        for waiter in self._agent.job_waiters.pop(name, []):
            waiter()

    def forget_lease(self, lease: str) -> None:
        """Nothing of a lease runs any longer."""
        names = [name for name, (owner, _) in self.leases.items() if owner == lease]
        for name in names:
            del self.leases[name]
        self._forget_when_written(names)

    def _is_known(self, name: str) -> bool:
        return name in self.records or name in self._agent.job_waiters

    def when_written(self, then: Callable[[], None]) -> None:
        """Do something when the journal has all that it was told until now."""
        written = self._agent.journal.written()
        written.add_done_callback(lambda _: self._agent.reactor.call_from_thread(then))

    def _forget_when_written(self, names: list[str]) -> None:
        def forget() -> None:
            for name in names:
                self.forget(name)

        if names:
            self.when_written(forget)


def _created_at(record: JobRecord) -> float:
    return record.created_at


def _lease_of(name: str) -> str:
    """Return the lease that a call's name ends in, before its number."""
    return name.rpartition("-")[0].rpartition("-")[2]
