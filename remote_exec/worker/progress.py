"""Progress of a loop, as events for whoever listens: in a worker, the channel home.

Nothing is drawn here. Without a sink a loop costs what it would without us, almost. Events are plain dicts::

    {"id": 1, "desc": "epochs", "done": 3, "total": 10, "elapsed_seconds": 1.5, "rate": 2.0, "ended": False}

`id` tells nested bars apart, `total` is None where it is unknown, `rate` is items a second since the start.
At most `EVENTS_PER_SECOND` of them are sent for one bar; the first and the last always are. `Bars` sums them up:
a loop in a loop makes and ends thousands of bars, of which whoever listens wants to see what stands now.

The sink is the state of this module, one a process; a `Progress` may be updated from several threads.
"""

from __future__ import annotations

import contextlib
import itertools
import operator
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import Any, TypeVar

EVENTS_PER_SECOND = 10
SHOWN_BARS = 8  # nested deeper than that, the innermost are not told

T = TypeVar("T")
Sink = Callable[["dict[str, Any]"], None]

_sink: Sink | None = None
_ids = itertools.count(1)
_open: weakref.WeakSet[Progress] = weakref.WeakSet()


def set_sink(sink: Sink | None) -> Sink | None:
    """Say who gets the events from now on, or None for nobody; returns who got them until now.

    The sink is called in the thread that made the progress, under the bar's lock: it should be quick. What it
    raises is dropped, since a broken display is no reason to break a training run.
    """
    global _sink
    previous, _sink = _sink, sink
    return previous


class Progress:
    """A bar moved by hand.

    Args:
        total: how many items there will be, if known.
        desc: what they are, for people.
        clock: seconds, monotonic.

    Example:
        >>> with Progress(total=2, desc="files") as bar:
        ...     bar.update()
        ...     bar.update(1)
    """

    def __init__(
        self, *, total: float | None = None, desc: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.id = next(_ids)
        self.desc = desc
        self.total = total
        self.done: float = 0
        self._clock = clock
        self._lock = threading.Lock()
        self._started = clock()
        self._due = self._started
        self._ended = self._unsent = False
        _open.add(self)
        self.update(0)

    def update(self, n: float = 1) -> None:
        """Count `n` more items. After the end this does nothing."""
        with self._lock:
            if self._ended:
                return
            self.done += n
            now = self._clock()
            self._unsent = True
            if now >= self._due:
                self._send(now)

    def close(self) -> None:
        """Send the last event. Closing twice is closing once."""
        with self._lock:
            if not self._ended:
                self._ended = True
                _open.discard(self)
                self._send(self._clock())

    def catch_up(self) -> None:
        """Send what has been counted and not been sent, if that is due."""
        with self._lock:
            now = self._clock()
            if self._unsent and not self._ended and now >= self._due:
                self._send(now)

    def _send(self, now: float) -> None:
        self._unsent = False
        self._due = now + 1 / EVENTS_PER_SECOND
        sink = _sink
        if sink is None:
            return
        elapsed = max(now - self._started, 0.0)
        event = {
            "id": self.id,
            "desc": self.desc,
            "done": self.done,
            "total": self.total,
            "elapsed_seconds": elapsed,
            "rate": self.done / elapsed if elapsed else 0.0,
            "ended": self._ended,
        }
        with contextlib.suppress(Exception):
            sink(event)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, cls: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


def catch_up() -> None:
    """Have every bar tell where it stands, also one that is not moving now; for who has a clock."""
    for bar in list(_open):
        bar.catch_up()


def progress(
    iterable: Iterable[T], *, total: float | None = None, desc: str = ""
) -> Generator[T, None, None]:
    """Yield what the iterable yields, and report how far it is.

    An item counts as done when the next one is asked for. The bar ends with the loop, however that ends.

    Args:
        iterable: what to loop over.
        total: how many items there will be; by default what `len` or ``__length_hint__`` says, if anything.
        desc: what they are, for people.

    Example:
        >>> for epoch in progress(range(3), desc="epochs"):
        ...     pass
    """
    if _sink is None:
        yield from iterable
        return
    with Progress(total=_length(iterable) if total is None else total, desc=desc) as bar:
        for item in iterable:
            yield item
            bar.update()


def _length(iterable: object) -> int | None:
    try:
        length = operator.length_hint(iterable, -1)
    except Exception:  # a `__len__` that raises, as PyTorch's does for iterable data sets
        return None
    return None if length < 0 else length


class Bars:
    """The bars of one call as they stand now, outermost first, and whether those who look have seen it.

    Args:
        seconds: how often they are to be shown at the most.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._bars: dict[int, dict[str, Any]] = {}
        self._shown_at = 0.0
        self.unseen = False

    def take(self, event: dict[str, Any]) -> None:
        """Take in one bar's event. One that ends goes, but for the last of all: it tells how it ended."""
        bars = self._bars
        if event["id"] not in bars:
            for number in [number for number, bar in bars.items() if bar["ended"]]:
                del bars[number]
        bars[event["id"]] = event
        if event["ended"] and any(not bar["ended"] for bar in bars.values()):
            del bars[event["id"]]
        self.unseen = True

    def due(self, now: float) -> list[dict[str, Any]]:
        """Return them if it is time to show them again, else nothing."""
        if not self.unseen or now - self._shown_at < self._seconds:
            return []
        self._shown_at = now
        return self.rest()

    def rest(self) -> list[dict[str, Any]]:
        """Return them if they have changed since they were shown."""
        unseen, self.unseen = self.unseen, False
        return list(self._bars.values())[:SHOWN_BARS] if unseen else []

    def clear(self) -> None:
        """Another call begins."""
        self._bars.clear()
        self._shown_at, self.unseen = 0.0, False
