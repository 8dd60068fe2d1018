"""A batch: calls of one function that came in one message, run in a row.

Quick items are what it is for: the loop over them notes what has begun, calls, keeps the value, and nothing else.
Answers are sent every few milliseconds. When an item runs long, the items behind it can be handed back.
"""

from __future__ import annotations

import marshal
import threading
import time
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any

from ..model.errors import ResourceLimitExceeded, SerializationError
from ..model.job import Cause
from ..serial import directories, failures, failures_json, pickling
from ..wire import frames
from ..wire.frames import Frame
from ..wire.stream import inline
from . import streams
from .lease import Function, Lease, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .begun import Begun
    from .calls import Calls

FLUSH_SECONDS = 0.02
LOOK_ITEMS = 64  # at most, from one look at the clock to the next
LOOK_SECONDS = 0.0005  # items that take longer from look to look are looked at one by one
MOST_MICROSECONDS = (1 << 32) - 1
AWAITED = (CoroutineType, GeneratorType, AsyncGeneratorType, streams.Conversation)


class Batch:
    """One batch that runs. Owned by the main thread; `hand_back` and `send_ready` are the attendant's.

    Args:
        calls: what it belongs to.
        lease: its lease.
        frame: which it came in.
        function: what is called.
        items: the argument tuples; shortened when items are handed back.
        begun: where is noted which item runs: that number is the count of those before it.
    """

    def __init__(
        self,
        calls: Calls,
        lease: Lease,
        frame: Frame,
        function: Function,
        items: list[tuple[Any, ...]],
        begun: Begun,
    ) -> None:
        self.number = frame.call
        self.failed = 0
        self.failure: Outcome | None = None  # of the first item that failed, or the one that was cancelled
        self._calls, self._lease, self._frame, self._function = calls, lease, frame, function
        self._items = items
        self._begun = begun
        self._guarded = bool(function.pre_execution or function.max_runtime_seconds)
        self._lock = threading.Lock()  # for what follows, but for appending
        self._values: list[Any] = []  # that have not been sent, from the one numbered `_first` on
        self._failures: dict[int, str] = {}  # by the places in `_values` that they stand for
        self._first = 0
        self._cancelled = False
        self._since = time.monotonic()

    @property
    def ran(self) -> int:
        """How many items have run."""
        return self._first + len(self._values)

    def run(self, since: float) -> bool:
        """Run all items and send the answers; False when the client is gone: then the last of them are here.

        Args:
            since: when it was begun to load them.
        """
        self._since = since
        items, step = iter(self._items), 1
        looked_at = time.monotonic()
        flush_at = looked_at + FLUSH_SECONDS
        goes_on = True
        while goes_on and not self._cancelled:
            try:
                goes_on = self._run_guarded(items) if self._guarded else self._run_some(items, step)
            except BaseException as error:
                self._lease.running = 0
                self._fail(error)
            now = time.monotonic()
            step = 1 if now - looked_at > LOOK_SECONDS else min(2 * step, LOOK_ITEMS)
            looked_at = now
            if now >= flush_at and goes_on:
                self._send(last=False)
                flush_at = time.monotonic() + FLUSH_SECONDS
        self._lease.interrupted.pop(self.number, None)
        if self._lease.stopping:
            self._calls._attendant.call_ended(self._lease)
        return self._send(last=True)

    def leave(self, *, alone: bool) -> None:
        """Leave with the agent what nobody took: the value of an item that was alone, else a list."""
        self._check_each()
        failure, values = self.failure, self._values
        text = failure.stream[0] if failure else next(iter(self._failures.values()), "")
        pickled = pickling.dump(values[0] if alone and values else values)
        trees = directories.noted.take()
        outcome = Outcome(
            self.number,
            self._function.about,
            self._lease.started_at,
            time.time(),
            not text,
            [text.encode()] if text else pickled.stream,
            () if text else pickled.buffers,
            cause=failure.cause if failure else Cause.SERIALIZATION if text else Cause.NONE,
            summary=failure.summary if failure else "a value of a map could not be pickled" if text else "",
            trees=() if text else trees,
        )
        self._calls._attendant.orphan_ended(self._lease, outcome)

    def _run_some(self, items: Iterator[tuple[Any, ...]], count: int) -> bool:
        """Run so many items; False when there are no more."""
        lease, number, call = self._lease, self.number, self._function.call
        noted, item, append = self._begun.numbers, self._begun.ITEM, self._values.append
        index = noted[item]
        end = index + count
        assert call is not None  # noqa: S101
        # From here to the end an interrupt meant for this batch raises KeyboardInterrupt.
        lease.running = number
        try:
            if number in lease.interrupted:
                raise KeyboardInterrupt
            for args in items:
                value = call(*args)
                if type(value) in AWAITED:
                    value = streams.exhaust(self._calls, lease, self._frame, value)
                append(value)
                index += 1
                noted[item] = index
                if index == end:
                    return True
            return False
        finally:
            lease.running = 0

    def _run_guarded(self, items: Iterator[tuple[Any, ...]]) -> bool:
        """Run one item that has a limit to its time, or commands before it; False when there are no more."""
        for args in items:
            value = self._calls._run_guarded(self._lease, self._frame, self._function, args, {})
            self._values.append(value)
            self._begun.numbers[self._begun.ITEM] += 1
            return True
        return False

    def _fail(self, error: BaseException) -> None:
        """The item that was to give the next value has failed."""
        outcome = self._calls._item_failure(
            self._lease, self.number, self._function, self._lease.started_at, error
        )
        self._cancelled = outcome.cause is Cause.CANCELLED
        self.failure = outcome if self._cancelled else self.failure or outcome
        self.failed += 1
        with self._lock:
            self._failures[len(self._values)] = outcome.stream[0]
            self._values.append(None)
        self._begun.numbers[self._begun.ITEM] += 1

    # --- answers ----------------------------------------------------------------------------------------------

    def _send(self, *, last: bool) -> bool:
        """Send what is ready; False when the client is gone."""
        lease = self._lease
        self._calls._flush_output(lease, self.number)
        if lease.orphaned:
            return False
        with self._lock:
            try:
                pickled = pickling.dump((self._values, self._failures))
            except (SerializationError, ResourceLimitExceeded):
                self._check_each()
                pickled = pickling.dump((self._values, self._failures))
            flags = (frames.LAST if last else 0) | (frames.CANCELLED if self._cancelled else 0)
            flags |= frames.TREES if directories.noted.take() else 0
            buffers = [buffer.raw() for buffer in pickled.buffers]
            message = lease.stream.frame(
                frames.BATCH_RESULT,
                pickled.stream,
                buffers,
                flags=flags,
                function=self._first,
                call=self.number,
                ack=self._microseconds(),
            )
            try:
                lease.stream.send(message)
            except OSError:
                self._calls._attendant.orphan(lease)
                return False
            self._first += len(self._values)
            self._values, self._failures = [], {}
        return True

    def _microseconds(self) -> int:
        """How long it has run since the last time: what batches are measured by."""
        now = time.monotonic()
        since, self._since = self._since, now
        return min(int((now - since) * 1e6), MOST_MICROSECONDS)

    def _check_each(self) -> None:
        """Make those values failures that cannot be pickled."""
        for index, value in enumerate(self._values):
            try:
                pickling.dump(value)
            except (SerializationError, ResourceLimitExceeded) as error:
                captured = failures.capture(error, dumps=pickling.dump_bytes)
                self._failures[index], self._values[index] = failures_json.to_json(captured), None

    # --- asked by the attendant -------------------------------------------------------------------------------

    def hand_back(self) -> int:
        """Begin no item behind the one that runs; return the first that will not be, 0 if that cannot be told now.

        The list is cut under the iterator that runs over it, and what is noted tells whether that came in time: a
        number is noted before its item is taken. If it did not, the batch ends early by itself.
        """
        noted, item = self._begun.numbers, self._begun.ITEM
        runs: int = noted[item]
        del self._items[runs + 1 :]
        return runs + 1 if noted[item] == runs else 0

    def send_ready(self) -> None:
        """Send the values that are ready while an item runs long.

        This is not the thread that the user's code runs in, so only values of built-in types are: pickling them runs
        no code of the user's. And only if that can be begun without waiting.
        """
        with self._lock:
            values = self._values[:]
            try:
                marshal.dumps(values)
            except ValueError:
                return
            pickled = pickling.dump((values, self._failures))
            if not values or pickled.size_bytes > frames.CHUNK:
                return
            raw = [buffer.raw() for buffer in pickled.buffers]
            message = inline(frames.BATCH_RESULT, pickled.stream, raw, function=self._first, call=self.number)
            if self._lease.stream.try_send(message):
                self._first += len(values)
                del self._values[: len(values)]
                self._failures = {}
