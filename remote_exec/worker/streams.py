"""What a function returned that is not a value yet: coroutines are run, generators streamed or made lists of, and
conversations held."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from types import AsyncGeneratorType, CoroutineType
from typing import TYPE_CHECKING, Any, cast

from ..serial import directories, pickling
from ..wire import frames
from ..wire.frames import GENERATOR_WINDOW, Frame
from .lease import Lease

if TYPE_CHECKING:
    from .calls import Calls


def exhaust(calls: Calls, lease: Lease, frame: Frame, value: Any) -> Any:
    """Await a coroutine and return its value; stream a generator's values and return what it returned.

    Where nobody takes the values as they are made (a future, a job, an item of a map), they come as a list.
    """
    if isinstance(value, CoroutineType):
        return _run(cast("Coroutine[Any, Any, Any]", value))
    if isinstance(value, Conversation):
        return value.hold(Talk(calls, lease, frame.call))
    values: list[Any] = []
    streamed = frame.kind == frames.GENERATE
    take = Talk(calls, lease, frame.call).tell if streamed else values.append
    if isinstance(value, AsyncGeneratorType):
        returned = _run(_take_from(cast("AsyncGenerator[Any, Any]", value), take))
    else:
        returned = _take(cast("Generator[Any, Any, Any]", value), take)
    return returned if streamed else values


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    import asyncio

    return asyncio.run(coroutine)


def _take(source: Generator[Any, Any, Any], take: Callable[[Any], object]) -> Any:
    with contextlib.closing(source):
        while True:
            try:
                value = next(source)
            except StopIteration as stop:
                return stop.value
            take(value)


async def _take_from(source: AsyncGenerator[Any, Any], take: Callable[[Any], object]) -> None:
    async with contextlib.aclosing(source):
        async for value in source:
            take(value)


class Conversation:
    """What a method of an instance returns to talk with its caller, who takes what it tells as values of a generator.

    Args:
        hold: the rest of the method; what it returns is the call's value.
    """

    def __init__(self, hold: Callable[[Talk], Any]) -> None:
        self.hold = hold


class Talk:
    """Sends values to the consumer of one call; when that is slow, waits for its word."""

    def __init__(self, calls: Calls, lease: Lease, call: int) -> None:
        self._calls, self._lease, self._call = calls, lease, call
        self._credit = GENERATOR_WINDOW
        self._answers: deque[Any] = deque()

    @property
    def is_far(self) -> bool:
        """Whether the consumer is on another machine."""
        return self._lease.attach.linger_seconds > 0.0

    def tell(self, value: Any) -> None:
        """Send a value, after all that was printed before.

        Raises:
            ConnectionError: the consumer is gone.
        """
        stream, call = self._lease.stream, self._call
        pickled = pickling.dump(value)
        flags = frames.TREES if directories.noted.take() else 0
        self._calls._flush_output(self._lease, call)
        buffers = [buffer.raw() for buffer in pickled.buffers]
        stream.send(stream.frame(frames.YIELD, pickled.stream, buffers, flags=flags, call=call))
        self._credit -= 1
        if threading.current_thread() is threading.main_thread():  # no other reads the stream
            while self._credit <= 0:
                self._receive()

    def ask(self, value: Any) -> Any:
        """Send a value, and return what the consumer answers. In the main thread.

        Raises:
            ConnectionError: the consumer is gone.
        """
        self.tell(value)
        return self.answered()

    def answered(self) -> Any:
        """Wait for the consumer's next answer, and return it. In the main thread.

        Raises:
            ConnectionError: the consumer is gone.
        """
        while not self._answers:
            self._receive()
        return self._answers.popleft()

    def heeded(self) -> bool:
        """Say that the call has heeded its interrupt and is about to end; its process would be killed soon.

        Returns:
            Whether anybody had asked for that.
        """
        if self._lease.stopping:
            self._calls._attendant.call_ended(self._lease)
        return self._call in self._lease.interrupted

    def _receive(self) -> None:
        frame = self._lease.stream.receive()  # nothing else can come from the consumer now
        if frame is None:
            raise ConnectionError("the consumer of the generator is gone")
        if frame.call != self._call:
            return
        if frame.kind == frames.CREDIT:
            self._credit += frame.function
        elif frame.kind == frames.ANSWER:
            self._answers.append(pickling.load(*self._lease.stream.parts(frame)))
