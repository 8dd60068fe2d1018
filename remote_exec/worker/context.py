"""What a running function can ask about itself, and how its log records and progress leave the worker."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ..model.group import Group
from ..model.record import record
from . import metrics, progress
from .about import About
from .lease import Lease

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

Send = Callable[[Lease, dict[str, Any]], None]


@record
class CurrentJob:
    """What `remote_exec.current_job()` returns inside a call; `group` is its place where several run it together."""

    name: str
    function: str
    attempt: int = 1
    group: Group | None = None


_lease: Lease | None = None
_send: Send | None = None
_group: Group | None = None
_launched: CurrentJob | None = None  # where a launcher has started this process, and no lease is served


def enter(lease: Lease, send: Send) -> None:
    """From now on events belong to this lease."""
    global _lease, _send
    _lease, _send = lease, send
    progress.set_sink(_emit_progress)
    metrics.set_sink(_emit_metrics)


def leave() -> None:
    """No lease is served."""
    global _lease, _send
    _lease = _send = None
    progress.set_sink(None)
    metrics.set_sink(None)


def emit(event: dict[str, Any]) -> bool:
    """Send an event of the running call; False outside of one."""
    lease, send = _lease, _send
    if lease is None or send is None or not lease.running:
        return False
    send(lease, event)
    return True


def log_shown(text: str) -> None:
    """Have the running call's log say what it shows in another way than by printing it."""
    emit({"shown": f"{text}\n"})


def tell_result(words: dict[str, str]) -> None:
    """Say what the running job has come to: for whoever looks at it and does not load its value.

    Args:
        words: the value's "type", and its "text" where that is short.
    """
    emit({"result": words})


def _emit_progress(bar: dict[str, Any]) -> None:
    emit({"progress": bar})


def _emit_metrics(rows: list[metrics.Row]) -> None:
    emit({"metrics": of_rank(rows)})


def of_rank(rows: list[metrics.Row]) -> list[metrics.Row]:
    """Return points of metrics under the names that tell this rank's from those of others."""
    number = rank()
    return [[metrics.told_apart(name, number), *rest] for name, *rest in rows] if number else rows


def rank() -> int:
    """Return which of a group this process is; 0 where there is none."""
    group = _group or (_launched.group if _launched is not None else None)
    return group.rank if group is not None else 0


def jobs_folder() -> str:
    """Return the host's folder of jobs; empty where no lease is served."""
    return _lease.attach.jobs_folder if _lease is not None else ""


def lease_folder() -> str:
    """Return the folder of the lease that is served, if it has one: its log is there, and it goes with that."""
    folder = _lease.folder if _lease is not None else ""
    return folder if os.path.isdir(folder) else ""


def current_job() -> CurrentJob | None:
    """Return the running call's name and function, or None outside of one."""
    lease = _lease
    if lease is None or not lease.running:
        return _launched
    function = lease.about.name
    name = lease.name_of(lease.running, function)
    if _group is not None:  # whose members are told apart by it
        function = function.removesuffix(f".rank{_group.rank}")
    return CurrentJob(name=name, function=function, group=_group)


def describe(*, name: str = "", function: str, code: str, tags: tuple[tuple[str, str], ...]) -> About | None:
    """Say what the running call is, in place of what is told of its function; what it returns can say more.

    Args:
        name: the first part of its name, in place of its function's.
        function: as lists show it.
        code: that it runs.
        tags: of this call.

    Returns:
        None outside of a call, and for a job: it is known what that is.
    """
    lease = _lease
    if lease is None or not lease.running or lease.attach.job:
        return None
    about = lease.about.of_call(name=name, function=function, code=code, tags=tags)
    lease.describe(about)
    return about


def set_group(group: Group | None) -> None:
    """Say which of a group the running call is."""
    global _group
    _group = group


def set_launched(job: CurrentJob) -> None:
    """Say what this process, which a launcher has started, runs."""
    global _launched
    _launched = job


def log_levels() -> dict[str, int]:
    """Return the levels that `set_log_levels` was given last."""
    return dict(_levels)


class _Forward(logging.Handler):
    """Sends records home, where the logging set-up of the caller decides what becomes of them."""

    def emit(self, record: logging.LogRecord) -> None:
        text = f"{self.format(record)}\n"
        row: dict[str, Any] = {
            "name": record.name,
            "level": record.levelno,
            "message": record.getMessage(),
            "created": record.created,
            "file": record.pathname,
            "line": record.lineno,
            "function": record.funcName,
            "text": text,
        }
        if record.exc_info:
            row["exception"] = record.exc_text
        if not emit({"log": row}) and sys.stderr is not None:
            sys.stderr.write(text)


_forward: _Forward | None = None
_levels: dict[str, int] = {}


def set_log_levels(levels: Mapping[str, int]) -> None:
    """Have loggers stand at the levels of the caller's; "" is the root."""
    global _forward
    if _forward is None:
        _forward = _Forward()
        _forward.setFormatter(logging.Formatter(LOG_FORMAT))
        logging.getLogger().addHandler(_forward)
    for name in _levels.keys() - levels.keys():
        logging.getLogger(name).setLevel(logging.NOTSET)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    _levels.clear()
    _levels.update(levels)
