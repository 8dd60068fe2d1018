"""What a function returned that is not a value yet: coroutines are run, generators streamed or made lists of."""

from __future__ import annotations

import contextlib
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
    values: list[Any] = []
    streamed = frame.kind == frames.GENERATE
    take = _Sender(calls, lease, frame.call) if streamed else values.append
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


class _Sender:
    """Sends the values of one generator; when its consumer is slow, waits for its word."""

    def __init__(self, calls: Calls, lease: Lease, call: int) -> None:
        self._calls, self._lease, self._call = calls, lease, call
        self._credit = GENERATOR_WINDOW

    def __call__(self, value: Any) -> None:
        stream, call = self._lease.stream, self._call
        pickled = pickling.dump(value)
        flags = frames.TREES if directories.noted.take() else 0
        self._calls._flush_output(self._lease, call)
        buffers = [buffer.raw() for buffer in pickled.buffers]
        stream.send(stream.frame(frames.YIELD, pickled.stream, buffers, flags=flags, call=call))
        self._credit -= 1
        while self._credit == 0:
            frame = stream.receive()  # nothing else can come from the consumer now
            if frame is None:
                raise ConnectionError("the consumer of the generator is gone")
            if frame.kind == frames.CREDIT and frame.call == call:
                self._credit += frame.function
