"""What `import remote_exec` gives inside a worker: the same names, on the standard library alone.

A remote function called inside a worker runs right there, as a plain call; submitted, it runs in a thread of this
worker. So nested calls are defined, need no second worker, and can never lock up a full pool.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import update_wrapper
from typing import Any

from ..model import errors
from ..model.record import record
from . import context
from . import progress as _progress

THREADS = 8

_threads: ThreadPoolExecutor | None = None


def _pool() -> ThreadPoolExecutor:
    global _threads
    if _threads is None:
        _threads = ThreadPoolExecutor(THREADS, thread_name_prefix="remote_exec-nested")
    return _threads


class RemoteFunction:
    """A remote function, as seen from inside a worker."""

    def __init__(self, function: Callable[..., Any], keywords: dict[str, Any] | None = None) -> None:
        self._function = function
        self._keywords = keywords or {}
        update_wrapper(self, function, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    local = __call__

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run in a thread of this worker."""
        return _pool().submit(self._function, *args, **kwargs)

    def map(self, *iterables: Iterable[Any], return_exceptions: bool = False, **_: Any) -> Iterator[Any]:
        """Run one after the other, lazily."""
        return self.starmap(zip(*iterables), return_exceptions=return_exceptions)  # noqa: B905

    def starmap(
        self, arguments: Iterable[tuple[Any, ...]], *, return_exceptions: bool = False, **_: Any
    ) -> Iterator[Any]:
        """Run one after the other, lazily."""
        for args in arguments:
            try:
                yield self._function(*args)
            except Exception as error:
                if not return_exceptions:
                    raise
                yield error

    async def aio(self, *args: Any, **kwargs: Any) -> Any:
        """Run in a thread of this worker, and await it."""
        import asyncio

        return await asyncio.wrap_future(self.submit(*args, **kwargs))

    def options(self, **keywords: Any) -> RemoteFunction:
        """Return the same function; where it runs is settled already."""
        return RemoteFunction(self._function, {**self._keywords, **keywords})

    def preflight(self, *_: Any, **__: Any) -> list[str]:
        """Nothing can be wrong: the function is here."""
        return []

    def __reduce__(self) -> Any:
        return (_restore_function, (self._function, self._keywords))


def _restore_function(function: Callable[..., Any], keywords: dict[str, Any]) -> RemoteFunction:
    return RemoteFunction(function, keywords)


def _restore_class(cls: type, keywords: dict[str, Any]) -> type:
    return cls


def remote(function: Any = None, **keywords: Any) -> Any:
    """Decorate a function; inside a worker its calls run in place. A class stays the class that it is."""
    if function is None:

        def decorate(found: Any) -> Any:
            return remote(found, **keywords)

        return decorate
    return function if isinstance(function, type) else RemoteFunction(function, keywords)


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
class CheckpointLocation:
    """Where a job's checkpoints go; inside the worker it is a path."""

    s3_uri: str = ""
    local_path: str = "/opt/ml/checkpoints/"

    def __fspath__(self) -> str:
        return self.local_path


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
    "RemoteExecutor": RemoteExecutor,
    "RemoteFuture": RemoteFuture,
    "CheckpointLocation": CheckpointLocation,
    "get_future": get_future,
    "list_futures": list_futures,
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
