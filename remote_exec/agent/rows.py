"""The journal's rows as nouns, and back. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from ..model.cost import Bill, Price
from ..model.job import AttemptRecord, Cause, DeathCertificate, JobRecord, JobState, Phase
from .database import Row

# five times faster than calling the class, and lists are long
_STATES = {state.value: state for state in JobState}
_CAUSES = {cause.value: cause for cause in Cause}


def part_rows(
    job_id: int, role: Literal["payload", "outcome"], parts: Sequence[bytes | str]
) -> list[tuple[Any, ...]]:
    return [
        (job_id, role, position, None, part)
        if isinstance(part, str)
        else (job_id, role, position, part, None)
        for position, part in enumerate(parts)
    ]


def job_row(record: JobRecord) -> tuple[Any, ...]:
    bill = record.bill
    return (
        record.name,
        record.kind,
        record.function,
        record.state.value,
        record.created_at,
        record.started_at,
        record.ended_at,
        record.cause.value,
        record.summary,
        record.instance_type,
        record.attempts,
        record.count,
        record.failed,
        json.dumps(record.tags) if record.tags else "[]",
        *((None, None, None, None) if bill is None else _bill_row(bill)),
    )


def _bill_row(bill: Bill) -> tuple[Any, ...]:
    return (bill.price.per_hour, bill.price.currency, bill.seconds, bill.since)


def job_of(row: Row) -> JobRecord:
    (name, kind, function, state, created_at, started_at, ended_at, cause, summary, instance_type) = row[:10]
    attempts, count, failed, tags, per_hour, currency, held_seconds, held_since = row[10:]
    return JobRecord(
        name=name,
        kind=kind,
        function=function,
        state=_STATES[state],
        created_at=created_at,
        started_at=started_at,
        ended_at=ended_at,
        cause=_CAUSES[cause],
        summary=summary,
        instance_type=instance_type,
        attempts=attempts,
        count=count,
        failed=failed,
        tags=() if tags == "[]" else tuple((key, value) for key, value in json.loads(tags)),
        bill=None
        if per_hour is None
        else Bill(price=Price(per_hour=per_hour, currency=currency), seconds=held_seconds, since=held_since),
    )


def attempt_facts(attempt: AttemptRecord) -> dict[str, Any]:
    certificate = attempt.certificate
    return {
        "job": attempt.job,
        "number": attempt.number,
        "state": attempt.state.value,
        "cause": attempt.cause.value,
        "worker_pid": attempt.worker_pid,
        "started_at": attempt.started_at,
        "ended_at": attempt.ended_at,
        "certificate": None if certificate is None else json.dumps(asdict(certificate)),
        "phases": json.dumps([(phase.name, phase.seconds, phase.detail) for phase in attempt.phases]),
    }


def attempt_of(job: str, row: Row) -> AttemptRecord:
    number, state, cause, worker_pid, started_at, ended_at, certificate, phases = row
    return AttemptRecord(
        job=job,
        number=number,
        state=JobState(state),
        cause=Cause(cause),
        worker_pid=worker_pid,
        started_at=started_at,
        ended_at=ended_at,
        certificate=certificate_of(json.loads(certificate)) if certificate else None,
        phases=tuple(Phase(name=n, seconds=s, detail=d) for n, s, d in json.loads(phases)),
    )


def certificate_of(fields: dict[str, Any]) -> DeathCertificate:
    cause, last_lines = Cause(fields.pop("cause")), tuple(fields.pop("last_lines"))
    return DeathCertificate(**fields, cause=cause, last_lines=last_lines)
