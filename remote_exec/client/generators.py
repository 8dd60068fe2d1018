"""The values of a remote generator, as they are made. A slow consumer makes the generator wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from ..serial import pickling
from ..wire import frames
from ..wire.frames import GENERATOR_WINDOW
from .calls import Call

if TYPE_CHECKING:
    from .dispatching import Dispatching

T = TypeVar("T")

_DONE_WITH = object()
GIVE_BACK = GENERATOR_WINDOW // 2  # values taken before the generator is told that it may go on


class RemoteIterator(Iterator[T], Generic[T]):
    """What calling a remote generator function returns. Dropping or closing it stops the generator.

    Args:
        dispatcher: that the call is given to.
        call: of the generator.
        at_once: sees each value where it comes between what is printed; true where that was all to be done with it.
    """

    def __init__(
        self, dispatcher: Dispatching, call: Call, *, at_once: Callable[[Any], bool] | None = None
    ) -> None:
        self._dispatcher = dispatcher
        self._call = call
        self._future = call.future
        self._values: deque[Any] = deque()
        self._taken = 0
        self._closed = False
        values = self._values  # not `self`: a call must not keep alive whoever takes its values
        call.kind = frames.GENERATE
        if at_once is None:
            call.on_values = lambda _index, value: values.append(value)
        else:
            call.on_values = lambda _index, value: values.append(_DONE_WITH if at_once(value) else value)
        dispatcher.submit(call)

    def __next__(self) -> T:
        __tracebackhide__ = True  # pytest and IPython leave this frame out
        values, future = self._values, self._future
        value: Any = _DONE_WITH
        while value is _DONE_WITH:
            if not values and not self._closed:
                self._dispatcher.wait(future, None, until=lambda: bool(values) or future.done())
            if self._closed:
                raise StopIteration
            if not values:
                self._closed = True
                if (error := future.exception()) is not None:
                    raise error
                raise StopIteration(future.result())
            self._taken += 1
            if self._taken == GIVE_BACK:
                self._taken = 0
                self._dispatcher.credit(self._call, GIVE_BACK)
            value = values.popleft()
        return cast("T", value)

    def wait(self, deadline: float) -> bool:
        """Wait until there is something to take, or the time (`time.monotonic`) has come; whether there is."""
        values, future = self._values, self._future
        self._dispatcher.wait(future, deadline, until=lambda: bool(values) or future.done())
        return bool(values) or future.done()

    def answer(self, value: Any) -> None:
        """Send what the far end has asked for, by the value that was taken last."""
        self._dispatcher.answer(self._call, pickling.dump(value))

    def __aiter__(self) -> RemoteIterator[T]:
        return self

    async def __anext__(self) -> T:
        import asyncio

        try:
            return await asyncio.to_thread(self._next_or_end)
        except _EndError:
            raise StopAsyncIteration from None
        except asyncio.CancelledError:
            self.close()  # as cancelling would end a local one; and its thread must not wait any longer
            raise

    def _next_or_end(self) -> T:
        try:
            return next(self)
        except StopIteration:
            raise _EndError from None

    def close(self) -> None:
        """Stop the generator."""
        self._closed = True
        if not self._future.done():
            self._dispatcher.cancel(self._call)

    async def aclose(self) -> None:
        """Stop the generator; what `contextlib.aclosing` calls."""
        self.close()

    def __del__(self) -> None:
        if not self._dispatcher.closed:
            self.close()


class _EndError(Exception):
    """StopIteration cannot cross a thread's future."""
