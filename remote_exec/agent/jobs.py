"""Durable jobs: written down before they are acknowledged, run by the agent as a worker's client, ended once.

What may follow what is `job_states`' business; here its instructions are carried out. A job's call travels as the
very bytes of its call stream, which the client packed: the agent never unpickles.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..model.cost import Bill, Instance, Price
from ..model.errors import ALL as ERRORS
from ..model.errors import ConfigurationError, RemoteExecError, RuntimeEnvironmentError
from ..model.failure import Failure
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
from ..model.pool import PoolSpec
from ..wire import frames, protocol
from ..wire.messages import from_plain
from ..wire.stream import CallStream
from ..worker.keeping import INLINE_BYTES
from . import job_failures, job_variables
from .deaths import how_host_ended, when_told
from .uploads import error_of

if TYPE_CHECKING:
    from .leases import LeaseEntry
    from .service import Agent

_log = logging.getLogger(__name__)

RETRY_SECONDS = (1.0, 5.0, 30.0)
WRITE_AGAIN_SECONDS = 2.0
_LOST = frozenset({Cause.SIGNAL, Cause.EXITED, Cause.OUT_OF_MEMORY, Cause.HOST_LOST, Cause.EVICTED})


class Job:
    """One job that has not ended, and its current attempt."""

    def __init__(self, agent: Agent, record: JobRecord, spec: dict[str, Any]) -> None:
        self.agent = agent
        self.record = record
        self.spec = spec
        self.attempt = 0
        self.cancelled = False
        self.why = "it waits for the agent"
        self.phases: tuple[Phase, ...] = ()
        self.certificate: DeathCertificate | None = None
        self._pool: PoolSpec | None = None  # in place of what `spec` says of it, which may be long
        self._stream: CallStream | None = None
        self._started_at = 0.0

    @property
    def name(self) -> str:
        """The job's name."""
        return self.record.name

    @property
    def lease(self) -> str:
        """The id of the current attempt's lease, which names its log folder too."""
        return f"{self.name}.{self.attempt}"

    @property
    def goes_on(self) -> bool:
        """Whether its end has not been told."""
        return self.agent.jobs.get(self.name) is self and self.name not in self.agent.ending

    def start(self) -> None:
        """Begin an attempt: have its data laid out, then ask for a worker."""
        self.attempt += 1
        if self.spec.get("trees"):
            from .trees import mount_all

            mount_all(self.agent, self.spec["trees"], self._laid_out)
        else:
            self._laid_out(None)

    def _laid_out(self, error: RemoteExecError | None) -> None:
        if not self.cancelled:
            with self._or_fails():
                if error is not None:
                    raise error
                self._ask_for_worker()

    @contextlib.contextmanager
    def _or_fails(self) -> Generator[None]:
        """Have the job fail where what is done within does: it must not wait for ever."""
        try:
            yield
        except Exception as error:
            told = error_of(error)
            if told is not error:
                _log.exception("job %s cannot go on", self.name)
            self._close()
            self._fail(told, Cause.ENVIRONMENT)

    def _ask_for_worker(self) -> None:
        if self._pool is None:
            self._pool = job_variables.pool_spec(self.agent, self.name, self.spec["pool"])
            del self.spec["pool"]
        self.agent.request_lease(
            protocol.RequestLease(
                lease=self.lease,
                pool=self._pool,
                bundle=self.spec["bundle"],
                import_roots=tuple(self.spec["import_roots"]),
                preload=tuple(self.spec["preload"]),
                keep_alive_seconds=self.spec["keep_alive_seconds"],
                max_workers=self.spec["max_workers"],
                uv=self.spec["uv"],
                streams=1,
                log_limit_bytes=self.spec.get("log_limit_bytes", 0),
                instance=Instance(type=self.record.instance_type, price=_price(self.spec)),
                asked_by=self.spec.get("asked_by", self.record.function),
            ),
            [],
            client=None,
            on_event=self._on_lease,
            opens=self._open,
        )

    def _open(self) -> list[int]:
        """Make the call stream, and return its far end: a worker is there."""
        ours, theirs = socket.socketpair()
        self._stream = CallStream(ours)
        return [theirs.detach()]

    def cancel(self) -> None:
        """Stop it, wherever it stands."""
        self.cancelled = True
        entry = self.agent.leases.get(self.lease)
        if entry is not None and entry.worker:
            self.agent.cancel(self.lease, 1)
        else:
            self._close()
            self.agent.drop_waiting(self.lease)
            self._finish(JobState.CANCELLED, Cause.CANCELLED, Outcome(kind=OutcomeKind.FAILED), "cancelled")

    def _on_lease(self, message: object) -> None:
        if isinstance(message, protocol.LeaseWaits):
            self.why = message.why
        elif isinstance(message, protocol.LeaseGranted):
            self._granted(message)
        elif isinstance(message, protocol.LeaseRefused):
            cls = next((e for e in ERRORS if e.__name__ == message.error), RemoteExecError)
            error = cls(message.text, hint=message.hint)
            if isinstance(error, RuntimeEnvironmentError):
                error.output = message.output
            self._close()
            self._fail(error, Cause.ENVIRONMENT)
        elif isinstance(message, protocol.WorkerLost):
            self.certificate = message.certificate

    def _granted(self, granted: protocol.LeaseGranted) -> None:
        told: list[tuple[str, float]] = self.spec.get("phases", []) if self.attempt == 1 else []
        self.phases = (*[Phase(name=name, seconds=seconds) for name, seconds in told], *granted.phases)
        self._started_at = time.time()
        self.why = "it runs"
        record = replace(
            self.record, state=JobState.RUNNING, started_at=self._started_at, attempts=self.attempt
        )
        self.record = record
        self.agent.journal.transition(
            self.name,
            expected=(JobState.QUEUED, JobState.RUNNING),
            state=JobState.RUNNING,
            started_at=self._started_at,
            attempts=self.attempt,
        )
        self.agent.journal.start_attempt(
            AttemptRecord(
                job=self.name,
                number=self.attempt,
                state=JobState.RUNNING,
                worker_pid=granted.pid,
                started_at=self._started_at,
                phases=self.phases,
            )
        )
        self.agent.reactor.in_thread(self._converse, self._ended)

    def _converse(self) -> tuple[bool, bytes | str, int] | None:
        """In a thread: send the call, wait for its result; None when the worker died before it."""
        stream = self._stream
        assert stream is not None  # noqa: S101
        parts = self.agent.journal.payload(self.name)
        payload = [part if isinstance(part, bytes) else self.agent.blobs.read(part) for part in parts]
        try:
            while payload:
                stream.sock.sendall(payload.pop(0))
            while (frame := stream.receive()) is not None and frame.kind != frames.RESULT:
                pass
        except OSError:
            return None
        if frame is None:
            return None
        from ..serial import pickling

        whole = pickling.join(*stream.parts(frame))
        kept = whole if len(whole) <= INLINE_BYTES else self.agent.blobs.put(whole)
        return not frame.flags & frames.FAILED, kept, frame.flags

    def _ended(self, result: tuple[bool, bytes | str, int] | None, error: BaseException | None) -> None:
        with self._or_fails():
            if error is not None:
                raise error
            if result is None:
                when_told(self.agent, self.lease, self.lost)
            else:
                self._answered(*result)

    def _answered(self, ok: bool, kept: bytes | str, flags: int) -> None:
        if ok:
            self._finish(JobState.SUCCEEDED, Cause.NONE, Outcome(kind=OutcomeKind.OK, parts=(kept,)), "")
            return
        text = (kept if isinstance(kept, bytes) else self.agent.blobs.read(kept)).decode()
        from ..serial import failures_json

        failure = failures_json.from_json(text)
        cancelled = bool(flags & frames.CANCELLED)
        cause = Cause.CANCELLED if cancelled else job_failures.cause_of(failure.qualname)
        if not cancelled and self.tries_again(failure, cause):
            return
        self._finish(
            JobState.CANCELLED if cancelled else JobState.FAILED,
            cause,
            Outcome(kind=OutcomeKind.FAILED, failure=text),
            f"{failure.qualname}: {failure.message}"[: job_failures.SUMMARY_CHARS],
        )

    def expect(self, entry: LeaseEntry) -> None:
        """Its worker lives on after a former agent's death, and tells the outcome by itself."""
        self.why = "it runs"
        self._started_at = self.record.started_at or time.time()
        entry.on_event = self._on_adopted

    def _on_adopted(self, message: object) -> None:
        if isinstance(message, protocol.WorkerLost):
            self.certificate = message.certificate
            self.lost()
        elif isinstance(message, protocol.LeaseEnded) and self.goes_on:
            self.start_again()

    def start_again(self) -> None:
        """Begin the attempt once more: the agent that had begun it died before all of the call had gone."""
        if not self.cancelled:
            self.agent.journal.withdraw_attempt(self.name, self.attempt)
            self.attempt -= 1
            self.start()

    def lost(self) -> None:
        """Its worker is gone: try again, or fail."""
        self._close()
        certificate = self.certificate or how_host_ended(self.agent.layout.home, self._started_at)
        if self.cancelled or certificate.cause is Cause.CANCELLED:
            self._finish(JobState.CANCELLED, Cause.CANCELLED, Outcome(kind=OutcomeKind.FAILED), "cancelled")
        elif certificate.cause in _LOST and self._retries_left():
            self._end_attempt(JobState.FAILED, certificate.cause)
            self._retry()
        else:
            self._fail(job_failures.death(self.record.function, certificate), certificate.cause)

    def tries_again(self, failure: Failure, cause: Cause) -> bool:
        """Begin another attempt after a failure, if that may help and one is left; return whether it does."""
        if self.cancelled or not (failure.retryable and self._retries_left()):
            return False
        entry = self.agent.leases.get(self.lease)
        if entry is not None:
            entry.on_event = None  # what becomes of that lease is its worker's business
        self._say_goodbye()
        self._end_attempt(JobState.FAILED, cause)
        self._retry()
        return True

    def _retries_left(self) -> bool:
        return self.attempt <= int(self.spec["max_retry_attempts"])

    def _retry(self) -> None:
        delay = RETRY_SECONDS[min(self.attempt - 1, len(RETRY_SECONDS) - 1)]
        self.why = (
            f"attempt {self.attempt} of {1 + int(self.spec['max_retry_attempts'])} failed; the next is due"
        )
        self.certificate = None
        self.agent.reactor.after(delay, self._restart)

    def _restart(self) -> None:
        if not self.cancelled:
            self.start()

    def _fail(self, error: RemoteExecError, cause: Cause) -> None:
        outcome = Outcome(kind=OutcomeKind.FAILED, failure=job_failures.as_text(error))
        self._finish(JobState.FAILED, cause, outcome, job_failures.summary(error))

    def _end_attempt(self, state: JobState, cause: Cause) -> None:
        self.agent.journal.end_attempt(
            AttemptRecord(
                job=self.name,
                number=self.attempt,
                state=state,
                cause=cause,
                started_at=self._started_at or None,
                ended_at=time.time(),
                certificate=self.certificate,
                phases=self.phases,
            )
        )

    def _finish(self, state: JobState, cause: Cause, outcome: Outcome, summary: str) -> None:
        self._end_attempt(state, cause)
        finish(
            self.agent,
            self.name,
            state=state,
            cause=cause,
            outcome=outcome,
            summary=summary,
            then=self._say_goodbye,
        )

    def _say_goodbye(self) -> None:
        """Tell the worker that its outcome is kept: if this agent dies before, the worker tells the next one."""
        if self._stream is not None:
            with contextlib.suppress(OSError):
                self._stream.send(frames.pack(frames.BYE, ack=1))
        self._close()

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def submit(agent: Agent, arguments: dict[str, Any], body: bytes, reply: Callable[[str, str], None]) -> None:
    """Make a job durable, acknowledge it, start it; `reply(error class, text)`."""
    try:
        _submit(agent, arguments, body, reply)
    except Exception as error:
        told = error_of(error)
        reply(type(told).__name__, told.message)


def _submit(agent: Agent, arguments: dict[str, Any], body: bytes, reply: Callable[[str, str], None]) -> None:
    spec = {key: value for key, value in arguments.items() if key != "variables"}
    price = _price(spec)
    record = JobRecord(
        name=arguments["name"],
        kind="job",
        function=arguments["function"],
        state=JobState.QUEUED,
        created_at=time.time(),
        instance_type=arguments["instance_type"],
        attempts=0,
        tags=tuple((key, value) for key, value in arguments["tags"]),
        bill=Bill(price=price) if price is not None else None,
    )
    if agent.journal.get(record.name) is not None:
        reply("ConfigurationError", f"name={record.name!r}: a job of that name exists on this host")
        return
    most = agent.settings.queued_jobs
    queued = sum(1 for job in agent.jobs.values() if job.record.state is JobState.QUEUED)
    if most is not None and queued >= most:
        reply(
            "ResourceLimitExceeded",
            f"{queued} jobs are queued on this host, and the option quotas allows {most}; "
            f"name={record.name!r} was not taken",
        )
        return
    job_variables.keep(agent, record.name, arguments["variables"])
    payload: list[bytes | str] = list(arguments["payload_blobs"])
    if body:
        payload.append(body if len(body) <= INLINE_BYTES else agent.blobs.put(body))
    future = agent.journal.create_job(record, spec_json=json.dumps(spec), payload=payload)

    def created(_: Any) -> None:
        error = future.exception()
        if error is not None:
            name = type(error).__name__ if isinstance(error, ConfigurationError) else "RemoteExecError"
            reply(name, str(error))
            return
        reply("", "")
        job = agent.jobs[record.name] = Job(agent, record, spec)
        job.start()

    future.add_done_callback(lambda done: agent.reactor.call_from_thread(lambda: created(done)))


def finish(
    agent: Agent,
    name: str,
    *,
    state: JobState,
    cause: Cause,
    outcome: Outcome,
    summary: str,
    then: Callable[[], None] = lambda: None,
) -> None:
    """Write down how a job ended; once that is durable, tell who waits, and do what comes then."""
    agent.ending.add(name)
    future = agent.journal.finish(
        name, state=state, ended_at=time.time(), outcome=outcome, cause=cause, summary=summary
    )

    def again() -> None:
        finish(agent, name, state=state, cause=cause, outcome=outcome, summary=summary, then=then)

    def written() -> None:
        if (failure := future.exception()) is not None:  # a full disk: an outcome is not lost for that
            _log.error("the end of job %s could not be written down: %s", name, failure)
            if (job := agent.jobs.get(name)) is not None:
                job.why = f"it has ended, which cannot be written down: {failure}"
            agent.reactor.after(WRITE_AGAIN_SECONDS, again)
            return
        agent.ending.discard(name)
        agent.jobs.pop(name, None)
        then()
        job_variables.forget(agent, name)
        agent.running.forget(name)
        agent.settle()

    future.add_done_callback(lambda _: agent.reactor.call_from_thread(written))


def _price(spec: dict[str, Any]) -> Price | None:
    """Return what its client's configuration said that its worker costs."""
    return from_plain(Price, spec["price"]) if spec.get("price") else None


def job_of(lease: str) -> str:
    """Return the job that a lease is for; empty where it is a client's."""
    return lease.rpartition(".")[0]


def taken_over(agent: Agent, record: JobRecord) -> Job | None:
    """Return a former agent's job, which is this one's from now on; None for a call, which nobody can begin again."""
    text = agent.journal.spec(record.name)
    spec: dict[str, Any] = json.loads(text) if text else {}
    if not spec:
        return None
    job = agent.jobs[record.name] = Job(agent, record, spec)
    job.attempt = record.attempts
    return job
