"""The metrics that calls have logged, as their host's agent has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..model.errors import JobNotFound
from ..model.metric import MetricPoint
from .connections import connections

if TYPE_CHECKING:
    from .calls import Call

Metrics = dict[str, list[MetricPoint]]


def points_of(ask: Callable[[int], Any]) -> Iterator[list[Any]]:
    """Yield all points that there are now, as rows ``[name, time, step, value]``.

    Args:
        ask: asks for those from an offset on.
    """
    offset, before = 0, -1
    while offset != before:
        piece = ask(offset)
        yield from piece["points"]
        before, offset = offset, piece["offset"]


def by_name(points: Iterator[list[Any]]) -> Metrics:
    """Return points by the names of their metrics, each in the order in which they were logged."""
    found: Metrics = {}
    for name, at, step, value in points:
        found.setdefault(name, []).append(MetricPoint(at, step, value))
    return found


def metrics_of(call: Call) -> Metrics:
    """Return what a call has logged so far that its caller waits for, or has waited for."""
    channel = call.channel
    if channel is None:
        return {}

    def ask(offset: int) -> Any:
        question = {"name": call.name, "offset": offset}
        return connections.with_agent(channel.session.host, lambda session: session.ask("metrics", question))

    try:
        return by_name(points_of(ask))
    except JobNotFound:  # one that has logged nothing may have been summed up with its like
        return {}
