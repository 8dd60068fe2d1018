"""Many calls of one function in few messages: what `map` is made of.

Items are sent in batches whose length follows the time that items take: a few milliseconds of work each, so that
quick items cost a fraction of a microsecond of ours, and slow ones go one by one. A worker answers while its batch
runs. When a batch has ended, the next is sent by whoever reads, so that work goes on while nobody iterates, up to
`ahead` results that have not been taken.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from ..capture.named import needed_modules
from ..model.errors import HostUnavailable, SerializationError
from ..serial import pickling
from ..serial.pickling import Pickled
from ..wire import frames
from .answers import rebuild
from .calls import Call, Captured, working_folder

if TYPE_CHECKING:
    from ..future import RemoteFuture
    from .dispatcher import Dispatcher

BATCH_SECONDS = 0.008
LONGEST = 4096
GROWTH = 8
PER_WORKER = 3  # batches under way for each worker
AHEAD = 1 << 14  # results that wait to be taken before no more is sent

MakeFuture = Callable[[], "RemoteFuture[Any]"]
Place = Callable[[frozenset[str]], "tuple[Dispatcher, Captured]"]


class _Batch:
    """Items under way: their first index, and how many are answered."""

    __slots__ = ("answered", "call", "dispatcher", "first", "items")

    def __init__(self, first: int, items: list[tuple[Any, ...]], call: Call, dispatcher: Dispatcher) -> None:
        self.first, self.items, self.call, self.dispatcher = first, items, call, dispatcher
        self.answered = 0


class Batches:
    """The calls of one `map`. Iterate over it once.

    Args:
        dispatcher: where they go.
        captured: the function.
        arguments: the argument tuples, taken from as results are taken.
        make_future: makes the futures of the batches themselves.
        place: says where items go whose arguments need these modules, and with which function; None: all go where
            the first does.
        ordered: yield in the order of the arguments; else as results come.
        return_exceptions: yield what a call raised instead of raising it.
        ahead: how many results may wait to be taken; None: no bound.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        captured: Captured,
        arguments: Iterable[tuple[Any, ...]],
        *,
        make_future: MakeFuture,
        place: Place | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        ahead: int | None = AHEAD,
    ) -> None:
        self._dispatcher = dispatcher
        self._captured = captured
        self._arguments = iter(arguments)
        self._make_future = make_future
        self._place = place
        self._needed: frozenset[str] = frozenset()
        self._ordered = ordered
        self._return_exceptions = return_exceptions
        self._ahead = ahead
        self._lock = threading.RLock()
        self._under_way: dict[Call, _Batch] = {}
        self._results: dict[int, tuple[bool, Any]] = {}
        self._sent = 0  # how many items have been taken from the arguments
        self._taken = 0
        self._length = 1
        self._exhausted = False
        self._at_once = False
        self._cut = False
        self._again: list[tuple[int, list[tuple[Any, ...]]]] = []
        self._failed: BaseException | None = None
        self._folder = working_folder()
        self._ended_by: Exception | None = None  # what the arguments' iterator raised
        self._fill(waiting=True)

    def results(self, timeout_at: Callable[[], float | None] = lambda: None) -> Iterator[Any]:
        """Yield the values; cancel what is under way when the consumer goes away. All runs where `ahead` is None.

        Raises:
            BaseException: what the first failing call raised, unless exceptions are returned.
            TimeoutError: `timeout_at()` has passed.
        """
        values = self._values(timeout_at)
        if self._ahead is not None:
            next(values)  # now its end is noticed, too, where nobody has taken a value
        return values

    def _values(self, timeout_at: Callable[[], float | None]) -> Iterator[Any]:
        __tracebackhide__ = True  # pytest and IPython leave this frame out
        try:
            if self._ahead is not None:
                yield None
            while True:
                try:
                    found = self._next(timeout_at)
                except KeyboardInterrupt as interrupt:
                    raise interrupt.with_traceback(
                        None
                    ) from None  # where exactly it waited is of no interest
                if found is None:
                    return
                ok, value = found
                if not ok and not self._return_exceptions:
                    raise value
                last, found, value = [value], None, None  # what was yielded is the consumer's alone
                yield last.pop()
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Stop what is under way, and send no more."""
        with self._lock:
            self._exhausted = True
            self._again.clear()
            under_way = list(self._under_way.values())
        for batch in under_way:
            with contextlib.suppress(HostUnavailable):
                batch.dispatcher.cancel(batch.call)

    def send_no_more(self) -> None:
        """Leave it at what has been sent; the next item that was not is cancelled."""
        with self._lock:
            if not self._exhausted or self._again:
                self._exhausted = True
                self._again.clear()
                self._cut = True

    def send_rest(self) -> None:
        """Hand over all that has not been sent: there will be nobody to take more."""
        self._at_once = True
        self._fill()

    def _next(self, timeout_at: Callable[[], float | None]) -> tuple[bool, Any] | None:
        while True:
            if self._failed is not None:
                raise self._failed
            found = self._take()
            if found is not None:
                if not self._taken & 63:
                    self._fill(waiting=True)
                return found
            with self._lock:
                if self._exhausted and not self._under_way and not self._again and not self._results:
                    if self._cut:
                        raise CancelledError
                    if self._ended_by is not None:
                        raise self._ended_by
                    return None
                batch = next(iter(self._under_way.values()), None)
            if batch is None:
                self._fill(waiting=True)
                continue
            call, deadline = batch.call, timeout_at()
            batch.dispatcher.wait(call.future, deadline, until=functools.partial(self._ready, call))
            if not self._ready(call) and deadline is not None:
                raise TimeoutError

    def _ready(self, call: Call) -> bool:
        return (self._taken in self._results if self._ordered else bool(self._results)) or call.ended

    def _take(self) -> tuple[bool, Any] | None:
        index = self._taken
        if not self._ordered:
            try:
                index = next(iter(self._results), index)
            except RuntimeError:  # more came between the two: the caller looks again
                return None
        found = self._results.pop(index, None)
        if found is None:
            return None
        self._taken += 1
        ok, value = found
        return (True, value) if ok else (False, rebuild(value) if isinstance(value, str) else value)

    # --- sending ----------------------------------------------------------------------------------------------

    def _fill(self, *, waiting: bool = False) -> None:
        """Keep every worker's hands full; `waiting` when it is the consumer who calls."""
        with self._lock:
            while self._at_once or len(self._under_way) < PER_WORKER * self._dispatcher.max_workers:
                if self._again:
                    first, items = self._again.pop(0)
                elif self._exhausted or (self._ahead is not None and self._sent - self._taken >= self._ahead):
                    return
                else:
                    first, items = self._sent, self._read()
                    if not items:
                        return
                try:
                    if not self._send(first, items, waiting=waiting):
                        self._again.insert(0, (first, items))
                        return
                except SerializationError as error:
                    self._split(first, items, error)

    def _split(self, first: int, items: list[tuple[Any, ...]], error: SerializationError) -> None:
        """Of items that cannot be pickled together, find the one that is at fault: the error is its outcome."""
        half = len(items) // 2
        if half:
            self._again[:0] = [(first, items[:half]), (first + half, items[half:])]
            return
        try:
            pickling.dump_arguments(items[0], {})
        except SerializationError as told:  # by the argument's position
            error = told
        self._results[first] = (False, error)

    def _read(self) -> list[tuple[Any, ...]]:
        seconds = self._captured.seconds
        wanted = int(BATCH_SECONDS / seconds) if seconds else 1
        self._length = max(1, min(wanted, self._length * GROWTH, LONGEST))
        items: list[tuple[Any, ...]] = []
        try:
            items.extend(itertools.islice(self._arguments, self._length))
        except Exception as error:
            self._ended_by = error  # it comes behind the values of those before it
        except BaseException as error:
            self._failed, items = error, []
        self._sent += len(items)
        if len(items) < self._length:
            self._exhausted = True
        return items

    def _send(self, first: int, items: list[tuple[Any, ...]], *, waiting: bool) -> bool:
        """Send a batch; False when it needs modules that must be brought first, and this thread must not wait."""
        named = pickling.Named()
        pickled: Pickled = pickling.dump(items, name="arguments of map", named=named)
        if named and self._place is not None:
            needed = needed_modules(named)
            if not needed <= self._needed:
                if not waiting:
                    return False
                self._dispatcher, self._captured = self._place(needed)
                self._needed |= needed
        future = self._make_future()
        call = Call(self._captured, pickled, future, frames.BATCH)
        call.items = len(items)
        call.folder = self._folder
        batch = self._under_way[call] = _Batch(first, items, call, self._dispatcher)
        call.on_values = lambda index, answers: self._answered(batch, index, answers)
        future._call, future._dispatcher = call, self._dispatcher
        future.add_done_callback(lambda _: self._ended(batch, future))
        try:
            self._dispatcher.submit(call)
        except BaseException as error:
            self._failed, self._exhausted = error, True
            self._again.clear()
            del self._under_way[call]
            raise
        return True

    # --- answers, from whichever thread reads -------------------------------------------------------------------

    def _answered(self, batch: _Batch, index: int, answers: Any) -> None:
        if index < 0:
            self._lost(batch, *answers)
            return
        first = batch.first + index
        for offset, answer in enumerate(answers):
            self._results[first + offset] = answer
        batch.answered = index + len(answers)

    def _lost(self, batch: _Batch, error: BaseException, item: int) -> None:
        """The worker died at `item`: those before it ran, and their results are lost; those behind it go elsewhere."""
        with self._lock:
            for index in range(batch.answered, min(item + 1, len(batch.items))):
                self._results[batch.first + index] = (False, error)
            batch.answered = min(item + 1, len(batch.items))
            if batch.answered < len(batch.items):
                self._again.append((batch.first + batch.answered, batch.items[batch.answered :]))
                batch.answered = len(batch.items)
        batch.call.future.set_result(None)

    def _ended(self, batch: _Batch, future: RemoteFuture[Any]) -> None:
        with self._lock:
            self._under_way.pop(batch.call, None)
            if batch.answered < len(batch.items):
                error = CancelledError() if future.cancelled() else future.exception()
                for index in range(batch.answered, len(batch.items)):
                    self._results[batch.first + index] = (False, error or CancelledError())
        self._fill()
