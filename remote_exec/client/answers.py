"""From frames to outcomes: what a worker sent becomes a future's result, a batch's values, output, events.

`take` runs under the dispatcher's lock and only collects; `run` completes futures with no lock held, since that
runs their owners' callbacks.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from ..model.errors import ProtocolError
from ..serial import pickling
from ..wire import frames
from ..wire.frames import Frame
from .calls import Call, Printed

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..future import RemoteFuture
    from .channel import Channel
    from .reporter import Reporter
    from .session import Session

WAY_SECONDS = 0.001  # what a batch's message, its answer and their readers' turns take at the most, as a rule


class Answers:
    """Outcomes that have come and are not delivered yet.

    Args:
        lock: the dispatcher's.
        reporter: hears of output, events and ends.
        take_back: takes calls that a worker will not begin; called under `lock`.
        session: gives a connected session with the host's agent.
    """

    def __init__(
        self,
        lock: threading.Lock,
        reporter: Reporter,
        *,
        take_back: Callable[[list[Call]], None],
        session: Callable[[], Session],
    ) -> None:
        self._lock = lock
        self._take_back = take_back
        self._reporter = reporter
        self.ready: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._running = 0
        self._session = session
        self._fetching = 0  # outcomes whose folders are on their way, each in a thread of its own

    def report_to(self, reporter: Reporter) -> None:
        """Have another reporter hear of what comes."""
        self._reporter = reporter

    def add(self, complete: Callable[..., object], *arguments: Any) -> None:
        """Have something called when no lock is held."""
        self.ready.append((complete, arguments))

    def add_end(self, call: Call) -> None:
        """Have the reporter hear that a call has ended."""
        self.ready.append((self._reporter.ended, (call,)))

    @property
    def undelivered(self) -> int:
        """How many outcomes have come and are not delivered yet."""
        return len(self.ready) + self._running + self._fetching

    def run(self) -> None:
        """Deliver all that has been collected; what one raises leaves the others for the next time."""
        while self.ready:
            with self._lock:
                deliveries, self.ready = self.ready, deque()
                self._running += 1
            try:
                while deliveries:
                    complete, arguments = deliveries.popleft()
                    complete(*arguments)
                    del complete, arguments  # they may hold gigabytes
            finally:
                with self._lock:
                    self._running -= 1
                    self.ready.extendleft(reversed(deliveries))

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
            self._batch(channel, channel.in_flight[frame.call], frame)
        elif kind == frames.YIELD:
            call = channel.in_flight[frame.call]
            if call.on_values is not None and frame.flags & frames.TREES:
                from .trees import load

                self.add(self._fetch_yielded, call, *load(*channel.stream.parts(frame)))
            elif call.on_values is not None:
                self.add(call.on_values, 0, pickling.load(*channel.stream.parts(frame)))
        elif kind == frames.WITHDRAWN:
            call = channel.in_flight.get(frame.call)
            self._withdrawn(channel.withdrawn(frame.call, frame.function))
            if frame.ack and call is not None and call.on_values is not None and not call.cancelling:
                call.items = 1  # it has no more that could be asked back
                self.add(call.on_values, frame.ack, None)
        elif kind == frames.OUTPUT:
            self._output(channel, frame)
        elif kind == frames.EVENT:
            self._event(channel, frame)
        else:
            raise ProtocolError(f"a worker sent a frame of kind {kind}")

    def _batch(self, channel: Channel, call: Call, frame: Frame) -> None:
        """Load answers; if they cannot be, that is the outcome of all that are not answered yet."""
        count, last = 0, bool(frame.flags & frames.LAST)
        trees: tuple[str, ...] = ()
        try:
            if frame.flags & frames.TREES:
                from .trees import load

                (values, failures), trees = load(*channel.stream.parts(frame))
            else:
                values, failures = pickling.load(*channel.stream.parts(frame))
        except BaseException as error:  # as for one call: a class that is missing here, an exit on loading
            call.on_values = None
            if not call.ended:
                self.add(call.spend().set_exception, error)
        else:
            count = len(values)
            if trees:
                self.add(self._fetch_values, call, frame.function, (values, failures), trees)
            elif call.on_values is not None:
                self.add(call.on_values, frame.function, (values, failures))
        if last:
            del channel.in_flight[frame.call]
            whole = not frame.function
            account_batch(channel, call, frame.ack / 1e6, count, whole=whole)
            self.add(_end_batch, call, call.cancelling or bool(frame.flags & frames.CANCELLED))
            if call.shown:
                self.add_end(call)
        elif count and frame.ack:
            call.captured.items_took(frame.ack / 1e6 / count)

    def _withdrawn(self, calls: list[Call]) -> None:
        """Take back calls that have not begun; those that were cancelled meanwhile have ended by that."""
        for call in calls:
            if call.cancelling:
                self.add(cancelled, call.spend())
                if call.shown:
                    self.add_end(call)
        self._take_back([call for call in calls if not call.cancelling])

    def _outcome(self, channel: Channel, call: Call, frame: Frame) -> None:
        stream, buffers = channel.stream.parts(frame)
        future = call.spend()
        if frame.flags & frames.CANCELLED:
            self.add(cancelled, future)
        elif frame.flags & frames.FAILED:
            self.add(_fail, future, bytes(stream).decode())
        elif frame.flags & frames.TREES:
            self._begin_fetch(call, future, stream, buffers)
        else:
            try:
                value = pickling.load(stream, buffers)
            except BaseException as error:  # a class that is missing here is the call's outcome
                self.add(future.set_exception, error)
            else:
                self.add(future.set_result, value)
        if call.shown:
            self.add_end(call)

    # --- folders that values name -------------------------------------------------------------------------------

    def _begin_fetch(self, call: Call, future: RemoteFuture[Any], stream: Any, buffers: Any) -> None:
        from .trees import load

        try:
            value, trees = load(stream, buffers)
        except BaseException as error:  # as for any value
            self.add(future.set_exception, error)
            return
        call.arriving = True
        self._fetching += 1
        name = call.captured.name
        threading.Thread(target=self._fetch, args=(future, value, trees, name), daemon=True).start()

    def _fetch(self, future: RemoteFuture[Any], value: Any, trees: tuple[str, ...], name: str) -> None:
        from .trees import fetch

        try:
            fetch(trees, self._session, name)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(value)
        finally:
            with self._lock:
                self._fetching -= 1

    def _fetch_values(self, call: Call, index: int, answers: Any, trees: tuple[str, ...]) -> None:
        """Fetch what a batch's values name, then hand them on; or their failure, if that cannot be done."""
        from .trees import fetch

        values = answers[0]
        try:
            fetch(trees, self._session, call.captured.name)
        except Exception as error:
            answers = ([None] * len(values), dict.fromkeys(range(len(values)), error))
        if call.on_values is not None:
            call.on_values(index, answers)

    def _fetch_yielded(self, call: Call, value: Any, trees: tuple[str, ...]) -> None:
        from .trees import fetch

        fetch(trees, self._session, call.captured.name)
        if call.on_values is not None:
            call.on_values(0, value)

    def show_rest(self, call: Call, rest: tuple[str, str]) -> None:
        """Show what a worker printed before it died; with no lock held."""
        for index, text in enumerate(rest):
            if text:
                data = text.encode("utf-8", "surrogateescape")
                _keep(call, data)
                self._reporter.output(call, index, data)

    def _output(self, channel: Channel, frame: Frame) -> None:
        call = channel.in_flight.get(frame.call)
        data, index = bytes(frame.payload), 1 if frame.flags & frames.STDERR else 0
        if call is not None:
            _keep(call, data)
        self.add(self._reporter.output, call, index, data)

    def _event(self, channel: Channel, frame: Frame) -> None:
        call = channel.in_flight.get(frame.call)
        event: dict[str, Any] = json.loads(bytes(frame.payload))
        if call is not None:
            _keep(call, event["log"]["text"].encode(errors="replace") if "log" in event else b"")
        self.add(self._reporter.event, call, event)


def _keep(call: Call, data: bytes) -> None:
    """Remember what a call has printed, and that its end is to be told to the reporter."""
    call.shown = True
    if call.output is None:
        call.output = Printed()
    call.output.add(data)


def account(channel: Channel, call: Call) -> None:
    """Note that a call has been answered, and how long that took."""
    now = time.monotonic()
    if call.number > channel.to_acknowledge:
        channel.to_acknowledge = call.number
    channel.bytes_in_flight -= call.size
    # On a pipelined channel a call's own time begins when the one before it ended.
    begun = call.sent_at if call.sent_at > channel.last_result else channel.last_result
    call.captured.took((now - begun) / call.items)
    channel.last_result = now


def account_batch(channel: Channel, call: Call, seconds: float, count: int, *, whole: bool) -> None:
    """Note that a batch has ended, whose last answers took so long; `whole`: they are all there are."""
    now = time.monotonic()
    channel.to_acknowledge = max(call.number, channel.to_acknowledge)
    channel.bytes_in_flight -= call.size
    if whole:  # what their way took counts, too, where it is not the same for any batch
        begun = max(call.sent_at, channel.last_result)
        seconds = max(seconds, now - begun - WAY_SECONDS)
    if count:
        call.captured.items_took(seconds / count)
    channel.last_result = now


def rebuild(text: str) -> BaseException:
    """Return the exception that a failure's JSON tells of."""
    from ..serial import failures, failures_json
    from .home_files import locate

    return failures.rebuild(failures_json.from_json(text), loads=pickling.load, locate=locate)


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


def _end_batch(call: Call, was_cancelled: bool) -> None:
    if not call.ended:
        future = call.spend()
        cancelled(future) if was_cancelled else future.set_result(None)
