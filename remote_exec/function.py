"""`@remote`: a function whose calls run in a worker."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from functools import update_wrapper
from types import MethodType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from .capture.function import FunctionCapture, log_level
from .client.calls import Call
from .client.calls import Captured as Sent
from .client.target import Target, find_target, same_variables, told_of
from .future import RemoteFuture
from .options import Options
from .options.option_set import Origin
from .serial import pickling

if TYPE_CHECKING:
    from typing import Unpack

    from .options import OptionKeywords

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")


class RemoteFunction(Generic[P, R]):
    """A function whose calls run in a worker. Made by `remote`.

    Example:
        >>> from remote_exec import remote
        >>> @remote
        ... def add(a: int, b: int) -> int:
        ...     return a + b
        >>> add(1, 2)
        3
        >>> add.submit(1, 2).result()
        3
        >>> list(add.starmap([(1, 2), (3, 4)]))
        [3, 7]
        >>> add.local(1, 2)
        3
    """

    def __init__(self, function: Callable[P, R], options: Options | None = None) -> None:
        self._function = function
        self._options = options or Options()
        name = getattr(function, "__name__", type(function).__name__)
        self._name = "lambda" if name == "<lambda>" else name
        self._capture = FunctionCapture(function, name=self._name, options=self._options)
        self._target: Target | None = None
        self._sent: Sent | None = None
        self._captured: object = None
        self._variables: dict[Any, Any] = {}
        self._private = ""
        with contextlib.suppress(AttributeError):
            update_wrapper(self, function, updated=())

    # --- calling ----------------------------------------------------------------------------------------------

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the call in a worker and return its value, or raise what it raised. Ctrl-C cancels it."""
        target, sent = self._current()
        future: RemoteFuture[R] = RemoteFuture()
        call = Call(sent, pickling.dump_arguments(args, kwargs), future)
        future._call, future._dispatcher = call, target.dispatcher
        value: R = target.dispatcher.run(call)
        return value

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> RemoteFuture[R]:
        """Start the call and return its future at once."""
        target, sent = self._current()
        future: RemoteFuture[R] = RemoteFuture()
        call = Call(sent, pickling.dump_arguments(args, kwargs), future)
        future._call, future._dispatcher = call, target.dispatcher
        target.dispatcher.submit(call)
        return future

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the call from a coroutine; cancelling the coroutine cancels the call."""
        import asyncio

        future = self.submit(*args, **kwargs)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.cancel()
            raise

    def local(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function right here."""
        return self._function(*args, **kwargs)

    def options(self, **keywords: Unpack[OptionKeywords]) -> RemoteFunction[P, R]:
        """Return this function with other options; they rank above the decorator's.

        Raises:
            ConfigurationError: there is no such option, or its value is wrong.
        """
        return RemoteFunction(self._function, Options.from_keywords(Origin.CALL, **keywords).over(self._options))

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def __reduce__(self) -> Any:
        import remote_exec

        return (remote_exec._restore_function, (self._function, self._options.keywords()))

    def __repr__(self) -> str:
        return f"<remote function {self._name}>"

    # --- what a call needs -------------------------------------------------------------------------------------

    def _current(self) -> tuple[Target, Sent]:
        """Return where calls go and what is sent of the function, both as of now."""
        captured = self._capture.current()
        target, sent = self._target, self._sent
        if (
            captured is self._captured
            and target is not None
            and sent is not None
            and same_variables(self._variables)
            and not target.dispatcher.closed
        ):
            return target, sent
        target = find_target(captured, self._options, private=self._private)
        sent = Sent(
            name=self._name,
            pickled=captured.pickled,
            told=told_of(self._name, target.options),
            log_level=log_level(),
        )
        self._captured, self._target, self._sent = captured, target, sent
        self._variables = dict(os.environ._data)  # type: ignore[attr-defined]
        return target, sent


@overload
def remote(function: Callable[P, R], /) -> RemoteFunction[P, R]: ...
@overload
def remote(
    function: None = None, /, **keywords: Unpack[OptionKeywords]
) -> Callable[[Callable[P, R]], RemoteFunction[P, R]]: ...
def remote(function: Any = None, /, **keywords: Any) -> Any:
    """Decorate a function so that its calls run in a worker.

    Bare, or with options. Every option is described in the reference; the commonest are `instance_type`,
    `dependencies`, `keep_alive_period_in_seconds`, `max_runtime_in_seconds` and `environment_variables`.

    Raises:
        ConfigurationError: there is no such option, or its value is wrong.

    Example:
        >>> @remote(keep_alive_period_in_seconds=600)
        ... def square(x: int) -> int:
        ...     return x * x
        >>> square(3)
        9
    """
    options = Options.from_keywords(Origin.DECORATOR, **keywords)
    if function is None:
        return lambda found: RemoteFunction(found, options)
    return RemoteFunction(function, options)


def _restore_function(function: Callable[..., Any], keywords: dict[str, Any]) -> RemoteFunction[..., Any]:
    return RemoteFunction(function, Options.from_keywords(Origin.DECORATOR, **keywords))


__all__ = ["Iterable", "Iterator", "RemoteFunction", "remote"]
