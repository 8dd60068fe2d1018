"""`RemoteExecutor`: the standard library's executor contract over workers of ours."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from .capture.function import FunctionCapture
from .client.batches import Batches
from .client.calls import Call, Captured
from .client.connections import connections
from .client.dispatcher import Dispatcher
from .client.target import find_place
from .function import sent_of
from .future import RemoteFuture
from .model.errors import ConfigurationError
from .model.ids import new_id
from .options import Options
from .options.option_set import Origin
from .serial import pickling

if TYPE_CHECKING:
    from typing import Unpack

    from .options import OptionKeywords

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

NAP_SECONDS = 0.005


class RemoteExecutor(Executor):
    """An executor whose calls run in workers of its own.

    `submit`, `map` and `shutdown` keep the contract of `concurrent.futures.Executor`; a worker that dies fails its
    own call and is replaced, instead of breaking the executor for good.

    Args:
        max_parallel_jobs: how many calls run at the same time; None: one for each CPU of the host.
        initializer: called once in each worker, before its first call.
        initargs: its arguments.
        **keywords: the options that `remote` takes.

    Raises:
        ConfigurationError: there is no such option, or its value is wrong.

    Example:
        >>> with RemoteExecutor(max_parallel_jobs=2) as executor:
        ...     executor.submit(pow, 2, 10).result()
        ...     list(executor.map(pow, [2, 3], [3, 2]))
        1024
        [8, 9]
    """

    def __init__(
        self,
        max_parallel_jobs: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        **keywords: Unpack[OptionKeywords],
    ) -> None:
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_parallel_jobs is not None:
            if max_parallel_jobs <= 0:
                raise ConfigurationError(
                    f"max_parallel_jobs must be greater than 0, not {max_parallel_jobs}", option="max_parallel_jobs"
                )
            keywords["max_parallel_jobs"] = max_parallel_jobs
        self._options = Options.from_keywords(Origin.DECORATOR, **keywords)
        self._private = new_id()
        self._initializer = initializer
        self._initargs = initargs
        self._captures: dict[Any, FunctionCapture] = {}
        self._sent: dict[int, Captured] = {}
        self._weak: WeakKeyDictionary[Any, FunctionCapture] = WeakKeyDictionary()
        self._dispatchers: dict[str, Dispatcher] = {}
        self._shut_down = False

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> RemoteFuture[R]:
        """Start a call and return its future.

        Raises:
            RuntimeError: the executor was shut down.
            BrokenExecutor: the initializer failed.
        """
        if self._shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: RemoteFuture[R] = RemoteFuture()
        try:
            dispatcher, sent = self._place(fn)
            call = Call(sent, pickling.dump_arguments(args, kwargs), future)
        except Exception as error:
            # As the standard library has it: what cannot be sent is the future's outcome.
            if isinstance(error, (ConfigurationError, BrokenExecutor)):
                raise
            future.set_running_or_notify_cancel()
            future.set_exception(error)
            return future
        future._call, future._dispatcher = call, dispatcher
        dispatcher.submit(call)
        return future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[T]:
        """Call `fn` with items of the iterables taken together; start at once, yield in order.

        Args:
            fn: the function.
            *iterables: as for the built-in `map`; read to their end before this returns.
            timeout: seconds from now after which waiting for a value raises `TimeoutError`.
            chunksize: accepted and not needed: how many calls go in one message follows how long they take.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if self._shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        dispatcher, sent = self._place(fn)
        arguments = list(zip(*iterables))  # noqa: B905 - as the built-in map
        batches = Batches(dispatcher, sent, arguments, make_future=RemoteFuture, ahead=None)
        deadline = None if timeout is None else time.monotonic() + timeout
        return batches.results(lambda: deadline)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; give the workers back when those that are left have ended.

        Args:
            wait: return when they have ended.
            cancel_futures: cancel those that have not been sent.
        """
        self._shut_down = True
        if cancel_futures:
            for dispatcher in self._dispatchers.values():
                dispatcher.cancel_queued()
        if wait:
            for dispatcher in self._dispatchers.values():
                while dispatcher.pending:
                    time.sleep(NAP_SECONDS)
                connections.drop(dispatcher)
            self._dispatchers.clear()
        else:
            for dispatcher in self._dispatchers.values():
                dispatcher.close_when_done()

    # --- what a call needs -------------------------------------------------------------------------------------

    def _place(self, fn: Callable[..., Any]) -> tuple[Dispatcher, Captured]:
        capture = self._capture_of(fn)
        found = capture.current()
        sent = self._sent.get(id(found))
        if sent is None:
            name = getattr(fn, "__name__", type(fn).__name__).strip("<>")
            place = find_place(found, self._options, private=self._private)
            key = f"{place.request['pool'].key}/{place.request['bundle']}"
            dispatcher = self._dispatchers.get(key)
            if dispatcher is None:
                dispatcher = self._dispatchers[key] = connections.private(
                    place.layout,
                    place.request | {"max_workers": place.max_workers},  # the pool is this executor's alone
                    max_workers=place.max_workers,
                    idle_seconds=float("inf"),
                    opening=self._opening() if self._initializer is not None else None,
                )
            sent = sent_of(name, found, place)
            self._sent[id(found)] = sent
            self._kept[id(found)] = (found, dispatcher)
        return self._kept[id(found)][1], sent

    @property
    def _kept(self) -> dict[int, tuple[Any, Dispatcher]]:
        kept: dict[int, tuple[Any, Dispatcher]] = self.__dict__.setdefault("_kept_captures", {})
        return kept

    def _capture_of(self, fn: Callable[..., Any]) -> FunctionCapture:
        with contextlib.suppress(TypeError):
            found = self._weak.get(fn)
            if found is None:
                found = self._weak[fn] = FunctionCapture(
                    fn, name=getattr(fn, "__name__", "function"), options=self._options
                )
            return found
        return FunctionCapture(fn, name=getattr(fn, "__name__", "function"), options=self._options)

    def _opening(self) -> Callable[[], Call]:
        """Return what makes the call of the initializer that each worker runs before all others."""
        assert self._initializer is not None  # noqa: S101
        found = FunctionCapture(self._initializer, name="initializer", options=self._options).current()
        place = find_place(found, self._options, private=self._private)
        sent = sent_of("initializer", found, place)
        arguments = pickling.dump_arguments(self._initargs, {})

        def make() -> Call:
            future: RemoteFuture[Any] = RemoteFuture()
            future.add_done_callback(self._opened)
            return Call(sent, arguments, future)

        return make

    def _opened(self, future: Future[Any]) -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None:
            broken = BrokenExecutor(f"the initializer failed: {type(error).__name__}: {error}")
            broken.__cause__ = error
            for dispatcher in self._dispatchers.values():
                dispatcher.fail(broken)
