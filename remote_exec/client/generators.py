"""The values of a remote generator, as they are made. A slow consumer makes the generator wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..wire.frames import GENERATOR_WINDOW
from .calls import Call

if TYPE_CHECKING:
    from .dispatcher import Dispatcher

T = TypeVar("T")

GIVE_BACK = GENERATOR_WINDOW // 2  # values taken before the generator is told that it may go on


class RemoteIterator(Iterator[T], Generic[T]):
    """What calling a remote generator function returns. Dropping or closing it stops the generator."""

    def __init__(self, dispatcher: Dispatcher, call: Call) -> None:
        self._dispatcher = dispatcher
        self._call = call
        self._future = call.future
        self._values: deque[Any] = deque()
        self._taken = 0
        call.on_values = lambda _index, value: self._values.append(value)
        dispatcher.submit(call)

    def __next__(self) -> T:
        values, future = self._values, self._future
        if not values:
            self._dispatcher.wait(future, None, until=lambda: bool(values) or future.done())
        if not values:
            future.result()
            raise StopIteration
        self._taken += 1
        if self._taken == GIVE_BACK:
            self._taken = 0
            self._dispatcher.credit(self._call, GIVE_BACK)
        value: T = values.popleft()
        return value

    def __aiter__(self) -> RemoteIterator[T]:
        return self

    async def __anext__(self) -> T:
        import asyncio

        try:
            return await asyncio.to_thread(self._next_or_end)
        except _EndError:
            raise StopAsyncIteration from None

    def _next_or_end(self) -> T:
        try:
            return next(self)
        except StopIteration:
            raise _EndError from None

    def close(self) -> None:
        """Stop the generator."""
        if not self._future.done():
            self._dispatcher.cancel(self._call)

    def __del__(self) -> None:
        if not self._dispatcher.closed:
            self.close()


class _EndError(Exception):
    """StopIteration cannot cross a thread's future."""
