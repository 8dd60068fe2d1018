"""One value of a metric that a function has logged."""

from __future__ import annotations

from typing import NamedTuple


class MetricPoint(NamedTuple):
    """One value of a metric: what `RemoteFuture.metrics` returns lists of.

    Attributes:
        time: when it was logged: UTC, seconds since the epoch.
        step: what `log_metrics` was told; None where it was told none.
        value: may be infinite, or not a number.
    """

    time: float
    step: int | None
    value: float
