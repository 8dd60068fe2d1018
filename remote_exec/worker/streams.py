"""What a function returned that is not a value yet: coroutines are run, generators streamed value by value."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Generator
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, cast

from ..serial import pickling
from ..wire import frames
from ..wire.frames import GENERATOR_WINDOW
from .lease import Lease

if TYPE_CHECKING:
    from .calls import Calls


def exhaust(calls: Calls, lease: Lease, call: int, value: Any) -> Any:
    """Await a coroutine and return its value; stream a generator's values and return what it returned."""
    lease.running = call
    try:
        if isinstance(value, CoroutineType):
            import asyncio

            return asyncio.run(cast("Coroutine[Any, Any, Any]", value))
        if isinstance(value, AsyncGeneratorType):
            return _stream(calls, lease, call, _synchronous(cast("AsyncGenerator[Any, Any]", value)))
        assert isinstance(value, GeneratorType)  # noqa: S101
        return _stream(calls, lease, call, cast("Generator[Any, Any, Any]", value))
    finally:
        lease.running = 0


def _stream(calls: Calls, lease: Lease, call: int, generator: Generator[Any, Any, Any]) -> Any:
    credit = GENERATOR_WINDOW
    while True:
        try:
            value = next(generator)
        except StopIteration as stop:
            return stop.value
        pickled = pickling.dump(value)
        calls._flush_output(lease, call)
        lease.stream.send(
            lease.stream.frame(frames.YIELD, pickled.stream, [b.raw() for b in pickled.buffers], call=call)
        )
        credit -= 1
        while credit == 0:
            # The consumer is slow: wait for its word, as nothing else can come from it now.
            frame = lease.stream.receive()
            if frame is None:
                generator.close()
                raise ConnectionError("the consumer of the generator is gone")
            if frame.kind == frames.CREDIT and frame.call == call:
                credit += frame.function
            elif frame.kind == frames.CLOSE_GENERATOR and frame.call == call:
                generator.close()
                return None


def _synchronous(source: AsyncGenerator[Any, Any]) -> Generator[Any, None, None]:
    import asyncio

    loop = asyncio.new_event_loop()
    try:
        while True:
            try:
                yield loop.run_until_complete(anext(source))
            except StopAsyncIteration:
                return
    finally:
        loop.run_until_complete(source.aclose())
        loop.close()
