"""The calls that run now, as far as they have run for long enough to be listed, and what becomes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model.job import AttemptRecord, JobRecord, JobState
from ..wire import protocol
from . import jobs

if TYPE_CHECKING:
    from .service import Agent


class RunningCalls:
    """Calls of clients, by name; durable jobs are in the journal. Owned by the loop's thread."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.records: dict[str, JobRecord] = {}
        self.attempts: dict[str, AttemptRecord] = {}
        self.leases: dict[str, tuple[str, int]] = {}  # name -> lease, number of the call on it

    def began(self, message: protocol.CallRunning | protocol.CallOrphaned) -> None:
        """A call has run for a while, or its client is gone: then it is a job from now on."""
        record = JobRecord(
            name=message.name,
            kind="call",
            function=message.function,
            state=JobState.RUNNING,
            created_at=message.started_at - sum(phase.seconds for phase in message.phases),
            started_at=message.started_at,
        )
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
            jobs.promote(self._agent, record, attempt)

    def ended(self, records: tuple[JobRecord, ...], attempts: tuple[AttemptRecord, ...] = ()) -> None:
        """Calls have ended; their clients have the outcomes."""
        for record in records:
            self.forget(record.name)
        self._agent.journal.record_calls(records, attempts)

    def orphan_ended(self, message: protocol.OrphanEnded, body: bytes) -> None:
        """A call has ended that no client waits for; its outcome is kept."""
        self.forget(message.record.name)
        jobs.finish_orphan(self._agent, message, body)

    def forget(self, name: str) -> None:
        """A call does not run any longer."""
        self.records.pop(name, None)
        self.attempts.pop(name, None)
        self.leases.pop(name, None)

    def forget_lease(self, lease: str) -> None:
        """Nothing of a lease runs any longer."""
        for name, (owner, _) in list(self.leases.items()):
            if owner == lease:
                self.forget(name)
