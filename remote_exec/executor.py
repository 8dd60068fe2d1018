"""`RemoteExecutor`: the standard library's executor contract over workers of ours.

An executor has workers of its own and one world: the local modules that the functions and arguments so far have
named. When a call names more, or local code was edited, later calls go to new workers that have it all, and those
before them end where they are.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from .model.errors import ConfigurationError, RemoteExecError
from .options import Options
from .options.option_set import Origin

if TYPE_CHECKING:
    from concurrent.futures import BrokenExecutor
    from typing import Unpack

    from .client.world import World
    from .future import RemoteFuture
    from .options import OptionKeywords

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class RemoteExecutor(Executor):
    """An executor whose calls run in workers of its own.

    `submit`, `map` and `shutdown` keep the contract of `concurrent.futures.Executor`; a worker that dies fails its
    own call and is replaced, instead of breaking the executor for good.

    With `instance_count` or `nproc_per_node` each call is a group's, on as many workers at once; with `name`, `detach`
    or `max_retry_attempts` it is a durable job. These share their workers with other calls of the same environment.

    Args:
        parallel: how many calls run at the same time; the same as the option `max_parallel_jobs`, which is one for
            each CPU of the host when it is not given. A group is one call.
        initializer: called once in each worker, before its first call; not for groups and durable jobs.
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
        parallel: int | None = None,
        /,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        **keywords: Unpack[OptionKeywords],
    ) -> None:
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if parallel is not None:
            keywords["max_parallel_jobs"] = parallel
        try:
            self._options = Options.from_keywords(Origin.DECORATOR, **keywords)
        except ConfigurationError as error:
            raise error.with_traceback(None)  # noqa: B904 - it is the very one, without our frames
        self._initializer = initializer
        self._initargs = initargs
        self._lock = threading.Lock()
        self._world: World | None = None
        self._shut_down = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Shut down; after Ctrl-C, stop what runs instead of waiting for it."""
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._shut_down = True
            if self._world is not None:
                self._world.stop()
        self.shutdown()

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> RemoteFuture[R]:
        """Start a call and return its future. What cannot be sent is the future's outcome.

        Raises:
            RuntimeError: the executor was shut down, or the interpreter is.
            BrokenExecutor: the initializer failed.
        """
        try:
            return (self._world or self._begin()).submit(fn, args, kwargs)
        except RemoteExecError as error:
            raise error.with_traceback(None)  # noqa: B904

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
        deadline = None if timeout is None else time.monotonic() + timeout
        arguments = list(zip(*iterables))  # noqa: B905 - as the built-in map
        try:
            return (self._world or self._begin()).map(fn, arguments, deadline)
        except RemoteExecError as error:
            raise error.with_traceback(None)  # noqa: B904

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; give the workers back when those that are left have ended.

        Args:
            wait: return when they have ended.
            cancel_futures: cancel those that have not been sent.
        """
        with self._lock:
            self._shut_down = True
            world = self._world
        if world is not None:
            world.shutdown(wait=wait, cancel_futures=cancel_futures)

    @property
    def _broken(self) -> BrokenExecutor | None:
        """Why no more calls can run; by this name the standard library's own tests ask."""
        return self._world.broken if self._world is not None else None

    def _begin(self) -> World:
        """Load what makes calls: a program that only makes an executor does without."""
        with self._lock:
            if self._world is None:
                if self._shut_down:
                    raise RuntimeError("cannot schedule new futures after shutdown")
                from .client.ahead import reach_ahead

                reach_ahead(self._options)
                from .client.world import World

                self._world = World(self._options, self._initializer, self._initargs)
            return self._world
