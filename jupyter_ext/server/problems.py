"""What went wrong, as HTTP tells it."""

from __future__ import annotations

from concurrent.futures import TimeoutError as Unanswered  # the same, but for Python 3.10

from tornado.web import HTTPError

from remote_exec.errors import (
    ConfigurationError,
    HostUnavailable,
    JobNotFound,
    ProtocolError,
    RemoteExecError,
    ResourceLimitExceeded,
    SizeLimitExceeded,
)

from .messages import Problem

STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (JobNotFound, 404),
    (ResourceLimitExceeded, 429),
    (SizeLimitExceeded, 413),
    (HostUnavailable, 503),
    (ProtocolError, 502),
    (ConfigurationError, 400),
    (TimeoutError, 504),
    (Unanswered, 504),
)


class NotPossible(RemoteExecError):  # noqa: N818 - named as the others are
    """What is asked for cannot be done with this job: it has ended, or not all is kept of it that that needs."""


def problem_of(error: BaseException) -> Problem:
    """Return what is told of an error: its message and hint, and the HTTP status that it means.

    An error of no known kind is a mistake of ours: its text is for the server's log only.
    """
    if isinstance(error, HTTPError):
        told = error.log_message % error.args if error.log_message and error.args else error.log_message
        return Problem(told or error.reason or "the request was refused", "", error.status_code)
    if isinstance(error, NotPossible):
        return Problem(error.message, error.hint, 409)
    status = next((status for kind, status in STATUSES if isinstance(error, kind)), 500)
    if isinstance(error, RemoteExecError):
        return Problem(error.message or type(error).__name__, error.hint, status)
    if status == 500:
        return Problem("the server made a mistake; its log says more", "", status)
    return Problem(str(error) or "it took too long", "", status)
