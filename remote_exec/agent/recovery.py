"""After a former agent's death: wait for what still runs, start anew what does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model.job import Cause, DeathCertificate, JobRecord, JobState
from .jobs import Job, taken_over
from .orphans import finish_dead

if TYPE_CHECKING:
    from .service import Agent

AGAIN_SECONDS = 1.0  # a worker whose code lets nothing else run tells late what it serves


def recover(agent: Agent) -> None:
    """Take over what has not ended, and is not about to."""
    for record in agent.journal.unfinished():
        if record.name in agent.jobs or record.name in agent.ending:
            continue  # this agent's own, or told of by its worker just now
        job = taken_over(agent, record)
        if job is None:
            _recover_call(agent, record)
        elif record.state is JobState.QUEUED:
            job.start()
        else:
            _find(agent, job)


def _find(agent: Agent, job: Job) -> None:
    """See what has become of a job that had a worker."""
    if not job.goes_on:
        return
    entry, died = agent.leases.get(job.lease), agent.deaths.find(job.lease)
    if entry is not None:
        job.expect(entry)
        return
    if died is None:
        attempts = agent.journal.attempts(job.name)
        worker = attempts[-1].worker_pid if attempts else 0
        if agent.processes.has_spoken(worker):
            job.start_again()
            return
        if agent.processes.is_silent(worker):
            job.why = "its worker has not told yet whether it runs"
            agent.reactor.after(AGAIN_SECONDS, lambda: _find(agent, job))
            return
    job.certificate = died.certificate if died is not None else None
    job.lost()


def _recover_call(agent: Agent, record: JobRecord) -> None:
    """A call that outlived its client: its worker tells how it ends, if it is there."""
    lease = record.name.rpartition("-")[0].rpartition("-")[2]
    if lease not in agent.leases:
        unknown = DeathCertificate(
            cause=Cause.HOST_LOST, message="its fork server is gone too; how is unknown"
        )
        finish_dead(agent, record, unknown)
