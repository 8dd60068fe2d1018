"""Metrics as charts need them: of each a few hundred samples, however much was logged. Pure.

As a series grows, a sample comes to stand for two points, then for four, and so on; none is forgotten in it: the least,
the most and what is not finite are kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from .messages import Metrics, MetricSeries, Sample

MOST_SAMPLES = 400
MOST_SERIES = 200


class Series:
    """One metric.

    Args:
        name: of the metric.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.samples: list[Sample] = []
        self.count = self.odd = 0
        self._each = 1  # how many points a sample stands for
        self._last: float | str = ""
        self._changed = 0  # the first sample that is otherwise than when it was told

    def add(self, time: float, step: int | None, value: float) -> None:
        """Take in the next point."""
        text = _odd(value)
        self._last = text or value
        self.odd += bool(text)
        finite = None if text else value
        sample: Sample = (time, step, finite, finite, finite, text)
        if self.count % self._each:
            self.samples[-1] = _joined(self.samples[-1], sample)
        else:
            self.samples.append(sample)
        self.count += 1
        self._changed = min(self._changed, len(self.samples) - 1)
        if len(self.samples) > MOST_SAMPLES:
            self._thin()

    def _thin(self) -> None:
        before = self.samples
        self.samples = [_joined(*before[at : at + 2]) for at in range(0, len(before), 2)]
        self._each *= 2
        self._changed = 0

    def changes(self) -> MetricSeries | None:
        """Return how it has gone on since the last time; None: it has not."""
        first, self._changed = self._changed, len(self.samples)
        if first == len(self.samples):
            return None
        return MetricSeries(self.name, first, self.samples[first:], self.count, self.odd, self._last)


class AllSeries:
    """The metrics of one job.

    Attributes:
        offset: where the job's metrics are to be read on.
    """

    def __init__(self) -> None:
        self.offset = 0
        self._series: dict[str, Series] = {}
        self._left_out: set[str] = set()

    def add(self, points: Iterable[Sequence[Any]]) -> None:
        """Take in points: name, time, step, value."""
        for name, time, step, value in points:
            series = self._series.get(name)
            if series is None:
                if len(self._series) >= MOST_SERIES:
                    self._left_out.add(name)
                    continue
                series = self._series[name] = Series(name)
            series.add(time, step, value)

    def changes(self, *, end: bool) -> Metrics:
        """Return what is otherwise than the last time: at first, all."""
        changed = [change for one in self._series.values() if (change := one.changes()) is not None]
        return Metrics(changed, len(self._left_out), end)


def _joined(one: Sample, other: Sample | None = None) -> Sample:
    if other is None:
        return one
    _, _, value, least, most, odd = one
    time, step, next_value, next_least, next_most, next_odd = other
    return (
        time,
        step,
        value if next_value is None else next_value,
        min((each for each in (least, next_least) if each is not None), default=None),
        max((each for each in (most, next_most) if each is not None), default=None),
        next_odd or odd,
    )


def _odd(value: float) -> str:
    """Return how JavaScript says a value that is not finite; empty for all others."""
    if math.isfinite(value):
        return ""
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
