"""The calls that run now, as far as they have run for long enough to be listed, and what becomes of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..model.errors import WorkerDied
from ..model.job import Cause, DeathCertificate, JobRecord, JobState, Outcome, OutcomeKind
from ..wire import protocol
from ..worker.begun import ENDED
from ..worker.lease import call_name
from . import jobs
from .pool_events import EVERY_CALL, TellLost

if TYPE_CHECKING:
    from .leases import LeaseEntry
    from .service import Agent


class RunningCalls:
    """Calls of clients, by name; durable jobs are in the journal. Owned by the loop's thread."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.records: dict[str, JobRecord] = {}
        self._orphans: set[str] = set()
        self.leases: dict[str, tuple[str, int]] = {}  # name -> lease, number of the call on it

    def began(self, message: protocol.CallRunning | protocol.CallOrphaned) -> None:
        """A call has run for a while, or its client is gone: then it is a job from now on."""
        record = JobRecord(
            name=message.name,
            kind="call",
            function=message.function,
            state=JobState.RUNNING,
            created_at=message.started_at,
            started_at=message.started_at,
        )
        self.records[message.name] = record
        self.leases[message.name] = (message.lease, message.call)
        if isinstance(message, protocol.CallOrphaned):
            self._orphans.add(message.name)
            jobs.promote(self._agent, record)

    def ended(self, records: tuple[JobRecord, ...]) -> None:
        """Calls have ended; their clients have the outcomes."""
        for record in records:
            self.forget(record.name)
        self._agent.journal.record_calls(records)

    def orphan_ended(self, message: protocol.OrphanEnded, body: bytes) -> None:
        """A call has ended that no client waits for; its outcome is kept."""
        name = message.record.name
        # It is listed until it is written down.
        jobs.finish_orphan(self._agent, message, body, written=lambda: self.forget(name))

    def lost(self, lease: LeaseEntry, told: TellLost) -> None:
        """A worker has died: what it ran is recorded, and who waits for a call without a client hears of it."""
        names = {
            name
            for name, (owner, number) in self.leases.items()
            if owner == lease.id and (number >= told.begun or told.begun == EVERY_CALL)
        }
        if lease.function and told.begun and told.item != ENDED:
            names.add(call_name(lease.function, lease.id, told.begun))
        if lease.on_event is None:  # else it is a job's, which sees to itself
            for name in names:
                self._died(name, lease.function, told.certificate)
        self.forget_lease(lease.id)

    def _died(self, name: str, function: str, certificate: DeathCertificate) -> None:
        known, now = self.records.get(name) or self._agent.journal.get(name), time.time()
        state = JobState.CANCELLED if certificate.cause is Cause.CANCELLED else JobState.FAILED
        function = known.function if known is not None else function
        began = known.created_at if known is not None else now
        record = JobRecord(
            name=name,
            kind="call",
            function=function,
            state=state,
            created_at=began,
            started_at=began,
            ended_at=now,
            cause=certificate.cause,
            summary=f"WorkerDied: {certificate.message}",
        )
        if name not in self._orphans and (known is None or known.kind == "call"):
            self._agent.journal.record_calls((record,))
            return
        error = WorkerDied(f"the worker that ran {function} died: {certificate.message}", certificate=certificate)
        outcome = Outcome(kind=OutcomeKind.FAILED, failure=jobs.failure_text(error))
        jobs.finish(
            self._agent, name, state=state, cause=record.cause, outcome=outcome, summary=record.summary
        )

    def forget(self, name: str) -> None:
        """A call does not run any longer."""
        self.records.pop(name, None)
        self.leases.pop(name, None)
        self._orphans.discard(name)

    def forget_lease(self, lease: str) -> None:
        """Nothing of a lease runs any longer."""
        for name, (owner, _) in list(self.leases.items()):
            if owner == lease:
                self.forget(name)
