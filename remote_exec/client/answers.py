"""From frames to outcomes: what a worker sent becomes a future's result, a batch's values, output, events.

`take` runs under the dispatcher's lock and only collects; `run` completes futures with no lock held, since that
runs their owners' callbacks.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from ..model.errors import ProtocolError
from ..serial import pickling
from ..wire import frames
from ..wire.frames import Frame
from .calls import Call

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from ..future import RemoteFuture
    from .channel import Channel
    from .reporter import Reporter

OUTPUT_KEPT = 1 << 20  # bytes of a call's output kept for `RemoteFuture.logs`


class Answers:
    """Outcomes that have come and are not delivered yet. `lock` is the dispatcher's."""

    def __init__(self, lock: threading.Lock, reporter: Reporter) -> None:
        self._lock = lock
        self._reporter = reporter
        self._ready: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._running = 0

    def add(self, complete: Callable[..., object], *arguments: Any) -> None:
        """Have something called when no lock is held."""
        self._ready.append((complete, arguments))

    @property
    def undelivered(self) -> int:
        """How many outcomes have come and are not delivered yet."""
        return len(self._ready) + self._running

    def run(self) -> None:
        """Deliver all that has been collected; what one raises leaves the others for the next time."""
        while self._ready:
            with self._lock:
                if not self._ready:
                    return
                self._running += 1
                complete, arguments = self._ready.popleft()
            try:
                complete(*arguments)
            finally:
                complete = arguments = None  # type: ignore[assignment]
                with self._lock:
                    self._running -= 1

    def take(self, channel: Channel, frame: Frame) -> None:
        """Take in one frame.

        Raises:
            ProtocolError: a worker must not send that.
        """
        kind = frame.kind
        if kind == frames.RESULT:
            call = channel.in_flight.pop(frame.call, None)
            if call is None:
                raise ProtocolError(f"the worker answered call {frame.call}, which is not in flight")
            account(channel, call)
            self._outcome(channel, call, frame)
        elif kind == frames.BATCH_RESULT:
            call = channel.in_flight[frame.call]
            value = self._values(channel, call, frame)
            last = bool(frame.flags & frames.LAST)
            if last:
                del channel.in_flight[frame.call]
                account(channel, call)
            self.add(_deliver_batch, call, frame.function, value, last)
        elif kind == frames.YIELD:
            call = channel.in_flight[frame.call]
            if call.on_values is not None:
                self.add(call.on_values, 0, pickling.load(*channel.stream.parts(frame)))
        elif kind == frames.OUTPUT:
            self._output(channel, frame)
        elif kind == frames.EVENT:
            self.add(self._reporter.event, channel.in_flight.get(frame.call), bytes(frame.payload))
        else:
            raise ProtocolError(f"a worker sent a frame of kind {kind}")

    def _values(self, channel: Channel, call: Call, frame: Frame) -> Any:
        """Load the answers of a batch; if they cannot be, that is the outcome of all that are not answered yet."""
        try:
            return pickling.load(*channel.stream.parts(frame))
        except BaseException as error:  # as for one call: a class that is missing here, an exit on loading
            call.on_values = None
            if not call.future.done():
                self.add(call.spend().set_exception, error)
            return None

    def _outcome(self, channel: Channel, call: Call, frame: Frame) -> None:
        stream, buffers = channel.stream.parts(frame)
        future = call.spend()
        if frame.flags & frames.CANCELLED:
            self.add(cancelled, future)
        elif frame.flags & frames.FAILED:
            self.add(_fail, future, bytes(stream).decode())
        else:
            try:
                value = pickling.load(stream, buffers)
            except BaseException as error:  # a class that is missing here is the call's outcome
                self.add(future.set_exception, error)
            else:
                self.add(future.set_result, value)
        self.add(self._reporter.ended, call)

    def _output(self, channel: Channel, frame: Frame) -> None:
        call = channel.in_flight.get(frame.call)
        data, index = bytes(frame.payload), 1 if frame.flags & frames.STDERR else 0
        if call is not None:
            call.output = call.output or []
            call.output.append((index, data))
            if len(call.output) > 1 and sum(len(d) for _, d in call.output) > OUTPUT_KEPT:
                del call.output[0]
        self.add(self._reporter.output, call, index, data)


def account(channel: Channel, call: Call) -> None:
    """Note that a call has been answered, and how long that took."""
    now = time.monotonic()
    channel.acknowledge(call.number)
    channel.bytes_in_flight -= call.size
    # On a pipelined channel a call's own time begins when the one before it ended.
    call.captured.took((now - max(call.sent_at, channel.last_result)) / call.items)
    channel.last_result = channel.idle_since = now


def rebuild(text: str) -> BaseException:
    """Return the exception that a failure's JSON tells of."""
    from ..serial import failures, failures_json

    return failures.rebuild(failures_json.from_json(text), loads=pickling.load)


def cancelled(future: RemoteFuture[Any]) -> None:
    """Make a future cancelled, also one that runs: a remote call can be stopped, a local one cannot."""
    with future._condition:
        if future._state in ("PENDING", "RUNNING"):
            future._state = "PENDING"
    Future[Any].cancel(future)
    with contextlib.suppress(Exception):
        future.set_running_or_notify_cancel()


def _fail(future: RemoteFuture[Any], text: str) -> None:
    future.set_exception(rebuild(text))


def _deliver_batch(call: Call, first: int, answers: Any, last: bool) -> None:
    if call.on_values is not None:
        call.on_values(first, answers)
    if last and not call.future.done():
        call.spend().set_result(None)
