"""A call's future: `concurrent.futures.Future`'s whole contract, and what is known of the call besides."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from concurrent.futures import CancelledError, Future
from types import CodeType, TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from .model.errors import RemoteExecError

if TYPE_CHECKING:
    from .client.calls import Call
    from .client.dispatching import Dispatching
    from .model.cost import Cost
    from .model.metric import MetricPoint

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

CANCEL_SECONDS = 10.0
TURN_SECONDS = 0.5
_FINAL = ("FINISHED", "CANCELLED_AND_NOTIFIED", "CANCELLED")

# Held while a future gets its condition, or is completed without one. Garbage may be collected then, and its finalizers
# may ask for other futures: it can be taken twice.
_making = threading.RLock()


def _in_child() -> None:
    global _making
    _making = threading.RLock()  # another thread of the parent may have held it


os.register_at_fork(after_in_child=_in_child)


class RemoteFuture(Future[T], Generic[T]):
    """The future of one remote call. Users get it, they do not build it.

    `result`, `exception`, `add_done_callback`, `concurrent.futures.wait` and `as_completed` work as on any future.

    Example:
        >>> from remote_exec import remote
        >>> @remote
        ... def double(x: int) -> int:
        ...     return 2 * x
        >>> future = double.submit(21)
        >>> future.result()
        42
        >>> future.status
        'succeeded'
    """

    cached: bool = False
    """Whether this is the stored result of an earlier call (`cache=True`)."""

    _call: Call | None = None
    _dispatcher: Dispatching | None = None

    # What the standard library's futures are born with. Of ten thousand futures most are done before anybody waits
    # for them: a condition of its own, and lists of who waits, are made for one when they are asked for.
    _state: str = "PENDING"
    _result: T | None = None
    _exception: BaseException | None = None
    _waiters: Any = ()
    _done_callbacks: Any = ()
    _made: threading.Condition | None = None

    def __init__(self) -> None:
        pass

    def __reduce__(self) -> Any:
        raise TypeError("a future belongs to the process that has made the call: pass its .result()")

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        made = self._made
        if made is None:
            with _making:
                made = self._made
                if made is None:
                    self._waiters, self._done_callbacks = [], []
                    made = self._made = threading.Condition()
        return made

    def set_result(self, result: T) -> None:
        """Complete it: for those who run the call."""
        if self._made is None:
            with _making:
                if self._made is None and self._state in ("PENDING", "RUNNING"):
                    self._result = result
                    self._state = "FINISHED"
                    return
        super().set_result(result)

    def result(self, timeout: float | None = None) -> T:
        """Wait for the call and return its value, or raise what it raised.

        Args:
            timeout: seconds to wait at most; None waits for as long as it takes.

        Raises:
            TimeoutError: the call has not ended in time; it goes on.
            CancelledError: it was cancelled.
        """
        __tracebackhide__ = True  # pytest and IPython leave this frame out
        if self._state != "FINISHED":
            try:
                self._wait(timeout)
            except KeyboardInterrupt as interrupt:
                raise interrupt.with_traceback(None) from None  # where exactly it waited is of no interest
        error = self._exception
        if error is None:
            if self._state != "FINISHED":
                return super().result(0)
            value: T = self._result  # type: ignore[assignment]
            return value
        try:
            raise error.with_traceback(beyond_result(error.__traceback__))
        finally:
            del self, error  # the traceback refers to this frame

    def done(self) -> bool:
        """Return whether the call has ended, or was cancelled."""
        return self._state in _FINAL  # read at once: no lock needed

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the call and return what it raised, or None."""
        self._wait(timeout)
        return super().exception(0)

    def cancel(self, wait: bool = False) -> bool:
        """Ask for the call to be stopped, running or not.

        A call that has not been sent is cancelled at once. One that runs is interrupted, then terminated, then
        killed; `cancelled()` becomes true when it has ended.

        Args:
            wait: return only when it has ended: its memory and devices are free then.

        Returns:
            False when the call had ended already.
        """
        if self.done():
            return self.cancelled()
        dispatcher, call = self._dispatcher, self._call
        if dispatcher is None or call is None:
            return super().cancel()
        asked = dispatcher.cancel(call)
        if wait and asked:
            try:
                self._wait(CANCEL_SECONDS)
            except TimeoutError:
                return False
            return self.cancelled()
        return asked

    @property
    def job(self) -> str:
        """The call's name: what `get_future` and the command line know it by. Empty until it has been sent."""
        return self._call.name if self._call is not None else ""

    @property
    def status(self) -> str:
        """One of queued, running, succeeded, failed, cancelled."""
        if self.cancelled():
            return "cancelled"
        if self.done():
            return "failed" if super().exception(0) is not None else "succeeded"
        call = self._call
        granted = call is not None and call.channel is not None and call.channel.granted is not None
        return "running" if granted else "queued"

    def why(self) -> str:
        """Say in words what the call waits for."""
        if self.done():
            return f"it has {self.status}"
        if self._dispatcher is None or self._call is None:
            return "it has not been sent"
        return self._dispatcher.why(self._call)

    @property
    def cost(self) -> Cost | None:
        """What the call has cost until now, as its host's agent has it; see `Cost`.

        It is the time that its worker ran it, at the price of the instance type. A short call is listed together with
        its like, and costs what they do on average. None where there is no price (`cost_per_hour`), before it has been
        sent, and once nothing is kept of it.
        """
        call = self._call
        return call.cost(done=self.done()) if call is not None else None

    def logs(self) -> str:
        """Return what the call has printed and logged so far; of very much, the last megabyte."""
        call = self._call
        return str(call.output) if call is not None and call.output is not None else ""

    def metrics(self) -> dict[str, list[MetricPoint]]:
        """Return what the call has logged by `log_metrics` so far, and what it was seen to use.

        Of a call that lasts, processors (``system/cpu_percent``: 100 is one core), memory (``system/memory_bytes``)
        and GPUs are looked at every few seconds.

        Returns:
            For each name its values in the order in which they were logged, as ``(time, step, value)``.

        Raises:
            HostUnavailable: the call's host cannot be reached.

        Example:
            >>> [(step, value) for _, step, value in future.metrics()["loss"]]
            [(0, 1.0), (1, 0.5)]
        """
        call = self._call
        return call.metrics() if call is not None else {}

    def _wait(self, timeout: float | None) -> None:
        if self.done():
            return
        if self._dispatcher is None:
            with contextlib.suppress(CancelledError):
                super().exception(timeout)
            return
        deadline = None if timeout is None else time.monotonic() + timeout
        self._dispatcher.wait(cast("RemoteFuture[Any]", self), deadline)
        if not self.done():
            raise TimeoutError


async def awaited(future: Future[T]) -> T:
    """Wait for a future in a coroutine; cancelling the coroutine cancels the future."""
    import asyncio

    wrapped = asyncio.wrap_future(future)
    try:
        while not wrapped.done():  # a notebook's interrupt is heard when the loop turns, so it has to
            await asyncio.wait((wrapped,), timeout=TURN_SECONDS)
        return wrapped.result()
    except asyncio.CancelledError:
        wrapped.cancel()
        raise


_WAITED: tuple[CodeType, ...] = (vars(RemoteFuture)["result"].__code__, awaited.__code__)


def beyond_result(trace: TracebackType | None) -> TracebackType | None:
    """Return what a traceback holds beyond `RemoteFuture.result` or `awaited`: the remote frames alone.

    That of an error which did not come out of a future is returned whole.
    """
    entry = trace
    while entry is not None:
        if entry.tb_frame.f_code in _WAITED:
            return entry.tb_next
        entry = entry.tb_next
    return trace


def trimmed(error: E) -> E:
    """Return an error without the frames of ours below the one that catches it and raises it again.

    What came from a worker keeps its remote frames; what is no error of ours, all but the first.
    """
    trace = beyond_result(error.__traceback__)
    if trace is error.__traceback__:
        of_ours = isinstance(error, (RemoteExecError, KeyboardInterrupt))
        trace = None if of_ours or trace is None else trace.tb_next
    return error.with_traceback(trace)


SPENT: RemoteFuture[Any] = RemoteFuture()  # stands for the future of a call that has ended
SPENT.set_result(None)

__all__ = ["SPENT", "RemoteFuture", "awaited", "beyond_result", "trimmed"]
