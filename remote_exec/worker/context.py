"""What a running function can ask about itself, and how its log records and progress leave the worker."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ..model.record import record
from . import progress
from .lease import Lease

Send = Callable[[Lease, dict[str, Any]], None]


@record
class CurrentJob:
    """What `remote_exec.current_job()` returns inside a call."""

    name: str
    function: str
    attempt: int = 1


_lease: Lease | None = None
_send: Send | None = None


def enter(lease: Lease, send: Send) -> None:
    """From now on events belong to this lease."""
    global _lease, _send
    _lease, _send = lease, send
    progress.set_sink(lambda event: emit({"progress": event}))


def leave() -> None:
    """No lease is served."""
    global _lease, _send
    _lease = _send = None
    progress.set_sink(None)


def emit(event: dict[str, Any]) -> None:
    """Send an event of the running call; nothing happens outside of one."""
    lease, send = _lease, _send
    if lease is not None and send is not None and lease.running:
        send(lease, event)


def current_job() -> CurrentJob | None:
    """Return the running call's name and function, or None outside of one."""
    lease = _lease
    if lease is None or not lease.running:
        return None
    function = lease.running_function
    return CurrentJob(name=lease.name_of(lease.running, function), function=function)


class _Forward(logging.Handler):
    """Sends records home, where the logging set-up of the caller decides what becomes of them."""

    def emit(self, record: logging.LogRecord) -> None:
        row = {
            "name": record.name,
            "level": record.levelno,
            "message": record.getMessage(),
            "created": record.created,
            "file": record.pathname,
            "line": record.lineno,
            "function": record.funcName,
        }
        if record.exc_info:
            row["exception"] = logging.Formatter().formatException(record.exc_info)
        emit({"log": row})


_forward: _Forward | None = None


def set_log_level(level: int) -> None:
    """Forward log records from `level` upwards, the level at which the caller's own root logger stands."""
    global _forward
    root = logging.getLogger()
    if _forward is None:
        _forward = _Forward()
        root.addHandler(_forward)
    root.setLevel(level)
