"""How a job that has failed is told of: errors from certificates, failures as text, one line for lists."""

from __future__ import annotations

from ..model.errors import MaxRuntimeExceeded, RemoteExecError, WorkerDied
from ..model.job import Cause, DeathCertificate

SUMMARY_CHARS = 300
_CAUSES = {"MaxRuntimeExceeded": Cause.TIMED_OUT, "RuntimeEnvironmentError": Cause.ENVIRONMENT}


def death(function: str, certificate: DeathCertificate) -> RemoteExecError:
    """Return what to raise for a job whose worker died."""
    if certificate.cause is Cause.TIMED_OUT:
        return MaxRuntimeExceeded(f"{function}: {certificate.message}")
    return WorkerDied(f"the worker that ran {function} died: {certificate.message}", certificate=certificate)


def summary(error: RemoteExecError) -> str:
    """Return one line for lists."""
    return f"{type(error).__name__}: {error.message}"[:SUMMARY_CHARS]


def as_text(error: RemoteExecError) -> str:
    """Return an error as what `Outcome.failure` holds."""
    # Imported when needed: an agent's start is what a first call waits for.
    from ..serial import failures, failures_json, pickling

    return failures_json.to_json(failures.capture(error, dumps=pickling.dump_bytes))


def cause_of(qualname: str) -> Cause:
    """Return why a job ended whose function raised an exception of this class."""
    return _CAUSES.get(qualname, Cause.USER_ERROR)
