"""Jobs, attempts and how they end. Enum values are what the journal stores."""

from __future__ import annotations

from enum import Enum

from .cost import Bill
from .record import record


class JobState(str, Enum):
    """Where a job or call stands. The last three are final."""

    QUEUED = "queued"  # waits for a worker, a quota or its environment
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing can follow this state."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class Cause(str, Enum):
    """Why an attempt ended; a death certificate's headline."""

    NONE = "none"  # it returned
    USER_ERROR = "user_error"  # the function raised
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    SIGNAL = "signal"
    EXITED = "exited"  # the process ended itself (os._exit)
    EVICTED = "evicted"
    INTERRUPTED = "interrupted"
    HOST_LOST = "host_lost"
    ENVIRONMENT = "environment"  # the environment, or a pre-execution command, failed
    SERIALIZATION = "serialization"


@record(kw_only=True)
class DeathCertificate:
    """How a worker died."""

    cause: Cause
    # one sentence
    message: str
    pid: int = 0
    # exactly one of the two is set, or neither where the fork server was lost too
    signal: int | None = None
    exit_code: int | None = None
    # peak resident set, bytes; 0 where unknown
    peak_memory: int = 0
    # the most that was seen in use on its GPUs, by whomever, bytes; looked at every few seconds
    peak_gpu_memory: int = 0
    # the kernel's own words, or the cgroup's counter, where there is evidence of an OOM kill
    oom_evidence: str = ""
    # the last lines that the worker wrote
    last_lines: tuple[str, ...] = ()


@record(kw_only=True)
class Phase:
    """One named span of a call's way, with its length."""

    name: str
    seconds: float
    detail: str = ""


@record(kw_only=True)
class AttemptRecord:
    """One try at running a job, as the journal keeps it."""

    job: str
    number: int
    state: JobState
    cause: Cause = Cause.NONE
    worker_pid: int = 0
    started_at: float | None = None  # UTC, seconds since the epoch
    ended_at: float | None = None
    certificate: DeathCertificate | None = None
    phases: tuple[Phase, ...] = ()


@record(kw_only=True)
class JobRecord:
    """One job or recorded call, as the journal keeps it and lists it."""

    name: str
    # "job": durable before it was acknowledged; "call": recorded after the fact; "array": many calls in one row
    kind: str
    function: str
    state: JobState
    created_at: float  # UTC, seconds since the epoch
    started_at: float | None = None
    ended_at: float | None = None
    cause: Cause = Cause.NONE
    # one line for lists: the exception's type and message, or empty
    summary: str = ""
    instance_type: str = "local"
    attempts: int = 1
    # for arrays: how many calls, and how many of them failed
    count: int = 1
    failed: int = 0
    tags: tuple[tuple[str, str], ...] = ()
    # where its instance type had a price when it was sent
    bill: Bill | None = None


class OutcomeKind(str, Enum):
    """Whether the function returned."""

    OK = "ok"
    FAILED = "failed"


@record(kw_only=True)
class Outcome:
    """How a job ended: at most one for each job, and final."""

    kind: OutcomeKind
    # the pickled result (or the pickled exception), in order: bytes inline, or a blob's "sha256:…" digest
    parts: tuple[bytes | str, ...] = ()
    # for a failure: the `Failure` as JSON
    failure: str | None = None


@record(kw_only=True)
class ForkServerRecord:
    """A fork server that may outlive its agent, as the next agent finds it."""

    id: str
    pid: int
    socket: str
    # the pool's key as JSON
    pool_key: str
    started_at: float  # UTC, seconds since the epoch
