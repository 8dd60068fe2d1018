"""Many calls of one function in few messages: what `map` is made of.

Items are sent in batches whose length follows the time that items take: a few milliseconds of work each, so that
quick items cost a fraction of a microsecond of ours, and slow ones go one by one. A worker answers while its batch
runs; where an item turns out to be long, those behind it are handed back and go elsewhere. When a batch has ended,
the next is sent by whoever reads, so that work goes on while nobody iterates, up to `ahead` results that have not
been taken.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import operator
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from ..capture.named import needed_modules
from ..future import CANCEL_SECONDS
from ..model.errors import HostUnavailable, SerializationError
from ..serial import pickling
from ..serial.pickling import Pickled
from ..wire import frames
from .answers import rebuild
from .calls import Call, Captured, working_folder
from .lanes import STUCK_SECONDS

if TYPE_CHECKING:
    from ..backends.host import Host
    from ..future import RemoteFuture
    from .dispatching import Dispatching

BATCH_SECONDS = 0.008
SPREAD = 64  # a batch that is so many times shorter is not worth its message, only to keep more workers busy
LONGEST = 4096
BATCH_BYTES = 48 << 10  # of arguments: two such batches may be on their way to a worker
GROWTH = 16
BLIND = 32  # items in a batch when all must be sent before it is known how long they take
PER_WORKER = 3  # batches under way for each worker
AHEAD = 1 << 14  # results that wait to be taken before no more is sent

MakeFuture = Callable[[], "RemoteFuture[Any]"]
Place = Callable[[frozenset[str]], "tuple[Dispatching, Captured]"]


_Segment = tuple[list[Any], dict[int, str | BaseException]]
"""Values of items in a row, and what stands in the places of those that failed."""


class _Batch:
    """Items under way: their first index, and how many are answered."""

    __slots__ = ("answered", "call", "dispatcher", "first", "items")

    def __init__(self, first: int, items: list[tuple[Any, ...]], call: Call, dispatcher: Dispatching) -> None:
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
        host: where that is; None: it brings folders of data by itself.
        ordered: yield in the order of the arguments; else as results come.
        return_exceptions: yield what a call raised instead of raising it.
        ahead: how many results may wait to be taken; None: no bound.
        expected: how many items there probably are; 0: unknown.
    """

    def __init__(
        self,
        dispatcher: Dispatching,
        captured: Captured,
        arguments: Iterable[tuple[Any, ...]],
        *,
        make_future: MakeFuture,
        place: Place | None = None,
        host: Host | None,
        ordered: bool = True,
        return_exceptions: bool = False,
        ahead: int | None = AHEAD,
        expected: int = 0,
    ) -> None:
        self._dispatcher = dispatcher
        self._captured = captured
        self._arguments = iter(arguments)
        self._make_future = make_future
        self._place = place
        self._host = host
        self._needed: frozenset[str] = frozenset()
        self._ordered = ordered
        self._return_exceptions = return_exceptions
        self._ahead = ahead
        self._lock = threading.RLock()
        self._under_way: dict[Call, _Batch] = {}
        # What has come and was not taken: by the first one's index, or by the order of coming.
        self._segments: dict[int, _Segment] = {}
        self._next = 0  # which of them is taken next
        self._arrivals = itertools.count()
        self._expected = expected or operator.length_hint(arguments)
        self._sent = 0  # how many items have been taken from the arguments
        self._taken = 0
        self._length = 1
        self._item_bytes = 1  # of arguments, as the last batch had them
        self._exhausted = False
        self._left = False  # by its consumer
        self._wanting = False  # whether more can be sent when the consumer has taken something, or waits
        self._at_once = False
        self._cut = False
        self._again: list[tuple[int, list[tuple[Any, ...]]]] = []
        self._failed: BaseException | None = None
        self._folder = working_folder()
        self._ended_by: Exception | None = None  # what the arguments' iterator raised
        try:
            self._fill(waiting=True)
        except BaseException:  # Ctrl-C, too: there will be nobody to stop what is under way
            self.cancel()
            raise

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
                    found = self._take(timeout_at)
                except KeyboardInterrupt as interrupt:
                    self._await_end()
                    # where exactly it waited is of no interest
                    raise interrupt.with_traceback(None) from None
                if found is None:
                    return
                values, failures = found
                count = len(values)
                values.reverse()
                while values:  # what was yielded is the consumer's alone
                    if failures and count - len(values) in failures:
                        values[-1] = _rebuilt(failures.pop(count - len(values)))
                        if not self._return_exceptions:
                            raise values.pop()
                    yield values.pop()
                self._taken += count
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Stop what is under way, and send no more."""
        with self._lock:
            self._exhausted = self._left = True
            self._again.clear()
            under_way = list(self._under_way.values())
        for batch in under_way:
            with contextlib.suppress(HostUnavailable):
                batch.dispatcher.cancel(batch.call)

    def _await_end(self) -> None:
        """Stop what is under way, and wait until it has ended: what it held is free then."""
        deadline = time.monotonic() + CANCEL_SECONDS
        self.cancel()
        with self._lock:
            under_way = list(self._under_way.values())
        for batch in under_way:
            with contextlib.suppress(CancelledError):
                batch.dispatcher.wait(batch.call.future, deadline)

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

    def _take(self, timeout_at: Callable[[], float | None]) -> _Segment | None:
        """Return the values that come next; None when there are no more."""
        while True:
            if self._failed is not None:
                raise self._failed
            if self._wanting:
                self._fill(waiting=True)
            found = self._segments.pop(self._next, None)
            if found is not None:
                self._next += len(found[0]) if self._ordered else 1
                return found
            with self._lock:
                if self._exhausted and not self._under_way and not self._again and not self._segments:
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
        return self._next in self._segments or call.ended

    def _put(self, first: int, values: list[Any], failures: dict[int, str | BaseException]) -> None:
        self._segments[first if self._ordered else next(self._arrivals)] = (values, failures)

    def _put_failed(self, first: int, count: int, error: BaseException) -> None:
        if count > 0:
            self._put(first, [None] * count, dict.fromkeys(range(count), error))

    # --- sending ----------------------------------------------------------------------------------------------

    def _fill(self, *, waiting: bool = False) -> None:
        """Keep every worker's hands full; `waiting` when it is the consumer who calls."""
        with self._lock:
            self._wanting = False
            while self._at_once or len(self._under_way) < PER_WORKER * self._dispatcher.max_workers:
                if not self._again and self._ahead is not None and self._sent - self._taken >= self._ahead:
                    self._wanting = not self._exhausted
                    return
                first, items = self._next_items()
                if not items:
                    return
                try:
                    if not self._send(first, items, waiting=waiting):
                        self._again.insert(0, (first, items))
                        self._wanting = True
                        return
                except SerializationError as error:
                    self._split(first, items, error)

    def _next_items(self) -> tuple[int, list[tuple[Any, ...]]]:
        """Return what goes in the next batch, and the first one's index; nothing when there is no more."""
        if not self._again:
            return self._sent, [] if self._exhausted else self._read()
        first, items = self._again.pop(0)
        length = self._choose_length(len(items))
        if length < len(items):
            self._again.insert(0, (first + length, items[length:]))
        return first, items[:length]

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
        self._put_failed(first, 1, error.with_traceback(None))  # our frames tell nothing

    def _choose_length(self, left: int) -> int:
        """How many items go in the next batch, of so many that are left; 0 is unknown."""
        seconds = self._captured.item_seconds or self._captured.seconds
        blind = BLIND if self._at_once else 1  # what turns out long comes back
        wanted = int(BATCH_SECONDS / seconds) if seconds else blind
        bound = min(LONGEST, self._length * GROWTH, BATCH_BYTES // self._item_bytes)
        self._length = length = max(1, min(wanted, bound))
        if left > 0:  # no worker has its hands full when the others are done
            rounds = -(-left // (length * self._dispatcher.max_workers))
            share = -(-left // (rounds * self._dispatcher.max_workers))
            length = min(length, max(share, wanted // SPREAD))
        return length

    def _read(self) -> list[tuple[Any, ...]]:
        length = self._choose_length(self._expected - self._sent)
        items: list[tuple[Any, ...]] = []
        try:
            items.extend(itertools.islice(self._arguments, length))
        except Exception as error:
            self._ended_by = error  # it comes behind the values of those before it
        except BaseException as error:
            self._failed, items = error, []
        self._sent += len(items)
        if len(items) < length:
            self._exhausted = True
        return items

    def _send(self, first: int, items: list[tuple[Any, ...]], *, waiting: bool) -> bool:
        """Send a batch; False when it needs what must be brought first, and this thread must not wait."""
        named = pickling.Named()
        pickled: Pickled = pickling.dump(items, name="arguments of map", named=named)
        self._item_bytes = 1 + pickled.size_bytes // len(items)
        if named and self._place is not None:
            needed = needed_modules(named)
            if not needed <= self._needed:
                if not waiting:
                    return False
                self._dispatcher, self._captured = self._place(needed)
                self._needed |= needed
        at_once = waiting or self._ahead is None
        if pickled.trees and self._host is not None and not self._bring(pickled, self._host, waiting=at_once):
            return False
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

    def _bring(self, pickled: Pickled, host: Host, *, waiting: bool) -> bool:
        """Bring the folders that arguments name; False where that takes long, and this thread must not wait."""
        from .trees import bring, is_brought

        if not waiting and not is_brought(pickled, host):
            return False
        bring(pickled, host, self._captured.name)
        return True

    # --- answers, from whichever thread reads -------------------------------------------------------------------

    def _answered(self, batch: _Batch, index: int, answers: Any) -> None:
        if index < 0:
            self._lost(batch, *answers)
        elif answers is None:
            self._captured.items_took(STUCK_SECONDS)  # at the least; those behind it may be as long
            self._send_elsewhere(batch, index)
            self._fill()
        else:
            values, failures = answers
            batch.answered = index + len(values)
            if values:
                self._put(batch.first + index, values, failures)

    def _send_elsewhere(self, batch: _Batch, index: int) -> None:
        """The worker begins no item from this one on."""
        with self._lock:
            items = batch.items[index:]
            del batch.items[index:]
            if items and not self._left:
                self._again.append((batch.first + index, items))

    def _lost(self, batch: _Batch, error: BaseException, item: int) -> None:
        """The worker died at `item`: those before it ran, and their results are lost; those behind it go elsewhere."""
        self._send_elsewhere(batch, max(batch.answered, item + 1))
        self._put_failed(batch.first + batch.answered, len(batch.items) - batch.answered, error)
        batch.answered = len(batch.items)
        batch.call.future.set_result(None)

    def _ended(self, batch: _Batch, future: RemoteFuture[Any]) -> None:
        if future.cancelled():  # with it the map: this process ends, or somebody has cancelled it by name
            error: BaseException | None = CancelledError()
            with self._lock:
                self._exhausted = self._left = True
                self._again.clear()
        else:
            error = future.exception()
        if error is None:
            self._send_elsewhere(batch, batch.answered)  # nothing, but where it was cut short
        else:
            self._put_failed(batch.first + batch.answered, len(batch.items) - batch.answered, error)
        with self._lock:
            self._under_way.pop(batch.call, None)
        self._fill()


def _rebuilt(failure: str | BaseException) -> BaseException:
    return rebuild(failure) if isinstance(failure, str) else failure
