"""Numbers that a running function logs: checked here, bounded, and given to whoever listens; in a worker, its log.

A point is a row ``[name, time, step, value]``. Without a sink nothing becomes of it. The sink is the state of this
module, one a process; several threads may log at once.
"""

from __future__ import annotations

import contextlib
import operator
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, SupportsFloat, SupportsIndex, cast

from ..model.errors import ConfigurationError

KEPT_POINTS = 20_000  # of all metrics of one call together: so many are kept one by one
MOST_METRICS = 1_000  # of one call
NAME_CHARS = 200
STEP_LIMIT = 1 << 53  # beyond it, numbers in JSON are not exact

Row = list[Any]
Sink = Callable[[list[Row]], None]

_sink: Sink | None = None


def set_sink(sink: Sink | None) -> None:
    """Say who gets the points from now on, or None for nobody; it is called in the thread that logs them."""
    global _sink
    _sink = sink


def log_metrics(metrics: Mapping[str, SupportsFloat], step: SupportsIndex | None = None) -> None:
    """Log values of metrics from within a remote function, as a loss and an accuracy: for charts that are live.

    They are kept with the job, whatever becomes of it: `RemoteFuture.metrics`, ``remote-exec metrics`` and the job's
    page in JupyterLab show them, while it runs and later. In a group each rank may log; what another rank than 0 logs
    is called ``loss (rank 1)``. Of very many points of one metric (some thousands) those are left out that stand
    closest together; the last is always kept.

    Outside of a remote function, as in one that is called by `.local`, it checks what it is given and does nothing.

    Args:
        metrics: values by name. A value is whatever `float` takes but a text: NumPy's scalars, tensors of one element.
        step: which step of the training it is of; without one, the time tells it.

    Raises:
        ConfigurationError: `metrics` or `step` is none of that; the message names the parameter.

    Example:
        >>> for epoch in range(3):
        ...     log_metrics({"loss": 1 / (epoch + 1), "accuracy": 0.9}, step=epoch)
    """
    rows = _rows(metrics, step)
    if _sink is not None and rows:
        _sink(rows)


def _rows(metrics: Mapping[str, SupportsFloat], step: SupportsIndex | None) -> list[Row]:
    if not isinstance(metrics, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise _wrong(
            "metrics", f"must map names to numbers, not be {_told(metrics)}", 'log_metrics({"loss": 0.3})'
        )
    number: int | None = None
    if step is not None:
        try:
            number = operator.index(step)
        except TypeError:
            raise _wrong("step", f"must be a whole number, not {_told(step)}") from None
        if not -STEP_LIMIT < number < STEP_LIMIT:
            raise _wrong("step", "must be less than 2**53")
    now = round(time.time(), 6)
    return [[_name(name), now, number, _value(name, value)] for name, value in metrics.items()]


def _name(name: object) -> str:
    if not isinstance(name, str) or not name or len(name) > NAME_CHARS or not name.isprintable():
        text = f"has the name {_told(name)}; a name is a printable text of 1 to {NAME_CHARS} characters"
        raise _wrong("metrics", text)
    return str(name)  # NumPy has a class of its own for texts


def _value(name: str, value: object) -> float:
    if not isinstance(value, (str, bytes, bytearray)):
        with contextlib.suppress(Exception):  # whatever libraries raise of what is not one number
            return float(cast("SupportsFloat", value))
    raise _wrong("metrics", f"has {_told(value)} as {name!r}, which is not one number")


def _wrong(parameter: str, text: str, hint: str = "") -> ConfigurationError:
    return ConfigurationError(f"log_metrics: {parameter} {text}", option=parameter, hint=hint)


def _told(value: object) -> str:
    try:
        text = " ".join(repr(value).split())
    except Exception:
        text = "it"
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def told_apart(name: str, rank: int) -> str:
    """Return what a metric is called that a rank of a group has logged."""
    return f"{name} (rank {rank})" if rank else name


class _Metric:
    """What of one metric has been let through."""

    __slots__ = ("count", "first", "last", "rest")

    def __init__(self, at: float) -> None:
        self.count = 0
        self.first = self.last = at
        self.rest: Row | None = None  # the newest, while it is held back

    def takes(self, at: float, share: int) -> bool:
        # Later ones stand the farther apart the longer it runs, so that their number grows by the logarithm of the
        # time alone; where the clock has been set back, it begins anew.
        return self.count < share or not self.last <= at < self.last + (at - self.first) / share


class Thinning:
    """Lets through so many points of one call as can be kept for ever.

    Of each metric all are let through at first, later those that stand some part of its age apart. The newest is held
    back until its time has come, or the end.

    Args:
        put: gets what is let through; called by one thread at a time.
    """

    def __init__(self, put: Sink) -> None:
        self._put = put
        self._metrics: dict[str, _Metric] = {}
        self._full = False
        self._lock = threading.RLock()  # a finalizer may log in the midst of it
        self.waiting = False  # whether something is held back

    def add(self, rows: list[Row]) -> None:
        """Take in points."""
        with self._lock:
            self._pass_on([row for row in rows if self._takes(row)])

    def _takes(self, row: Row) -> bool:
        name, at = row[0], row[1]
        metric = self._metrics.get(name)
        if metric is None:
            if len(self._metrics) >= MOST_METRICS:
                self._warn(name)
                return False
            metric = self._metrics[name] = _Metric(at)
        if metric.takes(at, self._share):
            return True
        metric.rest = row
        self.waiting = True
        return False

    @property
    def _share(self) -> int:
        return KEPT_POINTS // max(1, len(self._metrics))

    def _warn(self, name: str) -> None:
        if not self._full:
            self._full = True
            text = f"a call has {MOST_METRICS} metrics at most: {name!r} and all further ones are left out"
            warnings.warn(text, stacklevel=2)

    def _pass_on(self, rows: list[Row]) -> None:
        for name, at, *_ in rows:
            metric = self._metrics[name]
            metric.count += 1
            metric.last, metric.rest = at, None
        if rows:
            self._put(rows)

    def tick(self, now: float) -> None:
        """Let through what has been held back and whose time has come."""
        with self._lock:
            share, waiting = self._share, [one for one in self._metrics.values() if one.rest is not None]
            due = [one.rest for one in waiting if one.rest is not None and one.takes(now, share)]
            self._pass_on(due)
            self.waiting = len(due) < len(waiting)

    def finish(self) -> None:
        """Let through all that has been held back."""
        with self._lock:
            self._pass_on([one.rest for one in self._metrics.values() if one.rest is not None])
            self.waiting = False
