"""The answer to who asks for the metrics of a job or call."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..worker.metric_log import METRICS_NAME
from . import requests

if TYPE_CHECKING:
    from .service import Agent


def tell_metrics(agent: Agent, arguments: dict[str, Any], send: Callable[..., None]) -> None:
    """Tell the points that were logged from an offset on, and where to go on; none where that is the same.

    A point is a row ``[name, time, step, value]``. Those of a job are those of its attempts, one after the other.
    """
    name, offset = arguments["name"], int(arguments.get("offset", 0))
    # a call that has just ended, or just begun, may have metrics before it has a record
    attempts = 1
    if requests._known(agent, name) is not None or not _has_metrics(agent, name):
        record = requests._find(agent, name)
        name, attempts = requests._one_cell(record, name), record.attempts
    rows, offset = requests._read_log(agent, name, attempts, offset, METRICS_NAME)
    points = [point for *_, event in rows if event is not None for point in event.get("metrics", ())]
    send({"points": points, "offset": offset})


def _has_metrics(agent: Agent, name: str) -> bool:
    folders = requests._log_folders(agent, name, 1) if "/" not in name else []
    return any((folder / METRICS_NAME).exists() for _, folder, _ in folders)
