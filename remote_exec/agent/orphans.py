"""What ends without whoever began it: calls whose client is gone, jobs whose agent has died, workers that have."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from ..model.cost import Bill
from ..model.job import (
    AttemptRecord,
    Cause,
    DeathCertificate,
    JobRecord,
    JobState,
    Outcome,
    OutcomeKind,
    Phase,
)
from ..serial import failures_json
from ..wire import protocol
from . import job_failures
from .jobs import finish, taken_over

if TYPE_CHECKING:
    from .service import Agent


def promote(agent: Agent, record: JobRecord, attempt: AttemptRecord | None) -> None:
    """A call whose client is gone becomes a job; what it costs is counted by its attempt."""
    bill = Bill(price=record.bill.price) if record.bill is not None else None
    agent.journal.create_job(replace(record, kind="job", bill=bill), spec_json="{}")
    if attempt is not None:
        agent.journal.start_attempt(attempt)


def finish_orphan(agent: Agent, message: protocol.OrphanEnded, body: bytes) -> None:
    """Take in the outcome of a call that no client took, or of a job whose agent died."""
    record = message.record
    known = agent.journal.get(record.name)
    if known is not None and not message.ok and record.state is not JobState.CANCELLED:
        job = agent.jobs.get(record.name) or taken_over(agent, known)
        if job is not None and job.tries_again(failures_json.from_json(body.decode()), record.cause):
            return
    if known is None:
        begun = message.attempt and replace(
            message.attempt, state=JobState.RUNNING, cause=Cause.NONE, ended_at=None
        )
        promote(agent, replace(record, state=JobState.RUNNING, ended_at=None), begun)
    if message.attempt is not None:
        agent.journal.end_attempt(message.attempt)
    if message.ok:
        outcome = Outcome(kind=OutcomeKind.OK, parts=(message.blob or body,))
    else:
        outcome = Outcome(kind=OutcomeKind.FAILED, failure=body.decode(errors="replace"))
    finish(
        agent, record.name, state=record.state, cause=record.cause, outcome=outcome, summary=record.summary
    )


def finish_dead(
    agent: Agent, record: JobRecord, certificate: DeathCertificate, *, phases: tuple[Phase, ...] = ()
) -> None:
    """Write down how a call ended whose worker died: once, with the certificate as its one attempt's."""
    known = agent.journal.get(record.name)
    if known is not None and known.state.final:
        agent.running.forget(record.name)
        return
    if known is None:
        agent.journal.create_job(record, spec_json="{}")
    cancelled = certificate.cause is Cause.CANCELLED
    state = JobState.CANCELLED if cancelled else JobState.FAILED
    attempt = AttemptRecord(
        job=record.name,
        number=1,
        state=JobState.RUNNING,
        worker_pid=certificate.pid,
        started_at=record.started_at,
        phases=phases,
    )
    agent.journal.start_attempt(attempt)  # unless it was when the call became a job
    agent.journal.end_attempt(
        replace(attempt, state=state, cause=certificate.cause, ended_at=time.time(), certificate=certificate)
    )
    error = job_failures.death(record.name.rsplit("-", 2)[0], certificate)
    finish(
        agent,
        record.name,
        state=state,
        cause=certificate.cause,
        outcome=Outcome(kind=OutcomeKind.FAILED, failure=None if cancelled else job_failures.as_text(error)),
        summary="cancelled" if cancelled else job_failures.summary(error),
    )
