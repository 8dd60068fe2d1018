"""The event loop of a session's cells: tasks that one of them has begun are there in the next."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Generator
from typing import Any


class Tasks:
    """One for a session, in its main thread. Tasks go on while a cell awaits something."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = False

    def _open_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
        return self._loop

    @contextlib.contextmanager
    def running(self) -> Generator[None, None, None]:
        """Let code find the loop running, as it does in a kernel, although it goes on only in `finish`."""
        loop = self._open_loop()
        asyncio.set_event_loop(loop)
        asyncio._set_running_loop(loop)
        try:
            yield
        finally:
            asyncio._set_running_loop(None)

    def finish(self, cell: Coroutine[Any, Any, Any]) -> Any:
        """Run a cell that awaits to its end; an interrupt cancels what it awaits, as in a kernel."""
        loop, former = self._open_loop(), asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        self._stopped = False
        task = loop.create_task(cell)
        try:
            return loop.run_until_complete(task)
        except KeyboardInterrupt:
            if task.done():
                raise
            self._stopped = True
            task.cancel()
            return loop.run_until_complete(task)
        finally:
            asyncio._set_running_loop(former)

    def as_interrupt(self, error: BaseException | None) -> BaseException | None:
        """Return a cell's error; the interrupt, where that has cancelled it."""
        stopped, self._stopped = self._stopped, False
        if stopped and isinstance(error, asyncio.CancelledError):
            return KeyboardInterrupt().with_traceback(error.__traceback__)
        return error
