"""What `import remote_exec` gives inside a worker: the same names, on the standard library alone.

A remote function called inside a worker runs right there, as a plain call; submitted, it runs in a thread of this
worker. So nested calls are defined, need no second worker, and can never lock up a full pool.
"""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial, update_wrapper
from typing import Any, cast

from ..model import errors
from ..model.cost import Cost
from ..model.metric import MetricPoint
from ..model.record import record
from ..serial.directories import Dir
from . import context, metrics
from . import progress as _progress
from .bound import BoundFunction
from .checkpoint import CheckpointLocation

THREADS = 8
PREFIX = "remote_exec-nested"

_threads: ThreadPoolExecutor | None = None


def _pool() -> ThreadPoolExecutor:
    global _threads
    if _threads is None:
        _threads = ThreadPoolExecutor(THREADS, thread_name_prefix=PREFIX)
    return _threads


def _in_place(work: Callable[[], Any]) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
    return future


def _awaited(value: Any) -> Any:
    """Return a coroutine's value, as a call from home does."""
    return _run(value) if isinstance(value, types.CoroutineType) else value


def _run(coroutine: Any) -> Any:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1, thread_name_prefix=PREFIX) as thread:  # here the event loop stands still
        return thread.submit(asyncio.run, coroutine).result()


class RemoteFunction:
    """A remote function, as seen from inside a worker."""

    def __init__(self, function: Callable[..., Any], keywords: dict[str, Any] | None = None) -> None:
        self._function = function
        self._keywords = keywords or {}
        update_wrapper(self, function, updated=())

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return _awaited(self._function(*args, **kwargs))

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else BoundFunction(self, instance)

    def local(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself."""
        return self._function(*args, **kwargs)

    def submit(self, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run in a thread of this worker; from one of these threads, at once: they never wait for each other."""
        work = partial(self._collected, args, kwargs)
        if threading.current_thread().name.startswith(PREFIX):
            return _in_place(work)
        return _pool().submit(work)

    def _collected(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        value = self(*args, **kwargs)
        return list(cast("Iterator[Any]", value)) if isinstance(value, types.GeneratorType) else value

    def map(self, *iterables: Iterable[Any], return_exceptions: bool = False, **_: Any) -> Iterator[Any]:
        """Run one after the other, lazily."""
        return self.starmap(zip(*iterables), return_exceptions=return_exceptions)  # noqa: B905

    def starmap(
        self, arguments: Iterable[tuple[Any, ...]], *, return_exceptions: bool = False, **_: Any
    ) -> Iterator[Any]:
        """Run one after the other, lazily."""
        for args in arguments:
            try:
                yield self._collected(args, {})
            except Exception as error:
                if not return_exceptions:
                    raise
                yield error

    async def aio(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run in a thread of this worker, and await it."""
        import asyncio

        return await asyncio.wrap_future(self.submit(*args, **kwargs))

    def options(self, **keywords: Any) -> RemoteFunction:
        """Return the same function; where it runs is settled already."""
        return RemoteFunction(self._function, {**self._keywords, **keywords})

    def preflight(self, /, *_: Any, **__: Any) -> list[str]:
        """Nothing can be wrong: the function is here."""
        return []

    def __reduce__(self) -> Any:
        return (_restore_function, (self._function, self._keywords))


class RemoteClass:
    """A remote class, as seen from inside a worker: its instances live right here."""

    def __init__(self, cls: type, keywords: dict[str, Any]) -> None:
        self._class = cls
        self._keywords = keywords

    def __call__(self, /, *args: Any, **kwargs: Any) -> RemoteInstance:
        return RemoteInstance(self._class(*args, **kwargs))

    def __getattr__(self, name: str) -> Any:
        if name == "_class":
            raise AttributeError(name)
        return getattr(self._class, name)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self._class)

    def local(self, /, *args: Any, **kwargs: Any) -> Any:
        """Make an ordinary instance."""
        return self._class(*args, **kwargs)

    def options(self, **keywords: Any) -> RemoteClass:
        """Return the same class; where its instances live is settled already."""
        return RemoteClass(self._class, {**self._keywords, **keywords})

    def __reduce__(self) -> Any:
        return (_restore_class, (self._class, self._keywords))


class RemoteInstance:
    """An instance of a remote class, made inside a worker; its methods run one after the other."""

    def __init__(self, made: Any) -> None:
        self._made = made
        self._lock = threading.RLock()

    def __getattr__(self, name: str) -> RemoteFunction:
        if name.startswith("__") and name != "__call__":
            raise AttributeError(name)
        return RemoteFunction(partial(self._method, name))

    def _method(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            found = getattr(self._made, name)
            return found(*args, **kwargs) if callable(found) else found

    def close(self) -> None:
        """It ends with the last who refers to it."""

    def __enter__(self) -> RemoteInstance:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _restore_function(function: Callable[..., Any], keywords: dict[str, Any]) -> RemoteFunction:
    return RemoteFunction(function, keywords)


def _restore_class(cls: type, keywords: dict[str, Any]) -> RemoteClass:
    return RemoteClass(cls, keywords)


def remote(function: Any = None, **keywords: Any) -> Any:
    """Decorate a function or a class; inside a worker its calls run in place."""
    if function is None:

        def decorate(found: Any) -> Any:
            return remote(found, **keywords)

        return decorate
    made = RemoteClass if isinstance(function, type) else RemoteFunction
    return made(function, keywords)


class RemoteExecutor(ThreadPoolExecutor):
    """Inside a worker: threads."""

    def __init__(
        self,
        max_parallel_jobs: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        **_: Any,
    ) -> None:
        super().__init__(max_parallel_jobs or THREADS, initializer=initializer, initargs=initargs)


@record
class CustomFileFilter:
    """Names to leave out of the working directory; inside a worker nothing is captured."""

    ignore_name_patterns: Sequence[str] = ()
    workdir: str = ""


def get_future(name: str, **_: Any) -> Any:
    """Not to be had inside a worker: a worker has no client."""
    raise errors.HostUnavailable(f"get_future({name!r}) was called inside a worker, which has no client")


def list_futures(**_: Any) -> Any:
    """Not to be had inside a worker: a worker has no client."""
    raise errors.HostUnavailable("list_futures() was called inside a worker, which has no client")


RemoteFuture = Future

_NAMES: dict[str, Any] = {
    "remote": remote,
    "RemoteFunction": RemoteFunction,
    "RemoteClass": RemoteClass,
    "RemoteExecutor": RemoteExecutor,
    "RemoteFuture": RemoteFuture,
    "CheckpointLocation": CheckpointLocation,
    "CustomFileFilter": CustomFileFilter,
    "Dir": Dir,
    "get_future": get_future,
    "list_futures": list_futures,
    "Cost": Cost,
    "MetricPoint": MetricPoint,
    "log_metrics": metrics.log_metrics,
    "progress": _progress.progress,
    "current_job": context.current_job,
    "_restore_function": _restore_function,
    "_restore_class": _restore_class,
}


def install() -> None:
    """Make `import remote_exec` give this, whatever the environment holds under that name."""
    module = types.ModuleType("remote_exec", __doc__)
    for name, value in _NAMES.items():
        if getattr(value, "__module__", "") == __name__:
            value.__module__ = "remote_exec"
        setattr(module, name, value)
    module.__dict__["__path__"] = []
    module.__dict__["__all__"] = [name for name in _NAMES if not name.startswith("_")]
    module.__dict__["errors"] = errors
    sys.modules["remote_exec"] = module
    sys.modules["remote_exec.errors"] = errors
