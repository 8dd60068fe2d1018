"""`@remote`: a function whose calls run in a worker."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterable, Iterator
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from .model.collector import collector_paused
from .options import Options
from .options.option_set import Origin
from .worker.bound import BoundFunction

if TYPE_CHECKING:
    from typing import Unpack

    from .capture.preflight import Preflight
    from .client.caller import Caller
    from .future import RemoteFuture
    from .options import OptionKeywords

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def _trimmed(error: BaseException) -> BaseException:
    from .future import trimmed

    return trimmed(error)


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
        self._of_class = isinstance(function, classmethod)
        self._function: Callable[P, R] = getattr(function, "__func__") if self._of_class else function  # noqa: B009
        self._options = options or Options()
        name = getattr(function, "__name__", type(function).__name__)
        self._name = "lambda" if name == "<lambda>" else name
        self._caller: Caller | None = None
        with contextlib.suppress(AttributeError):
            update_wrapper(self, function, updated=())

    # --- calling ----------------------------------------------------------------------------------------------

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the call in a worker and return its value, or raise what it raised. Ctrl-C cancels it.

        A generator function's call returns an iterator over its values, as they are made.
        """
        __tracebackhide__ = True  # pytest and IPython leave this frame out
        try:
            value: R = (self._caller or self._begin()).run(args, kwargs)
            return value
        except BaseException as error:
            raise _trimmed(error)  # noqa: B904 - it is the very one

    def submit(self, /, *args: P.args, **kwargs: P.kwargs) -> RemoteFuture[R]:
        """Start the call and return its future at once.

        With `name`, `detach`, `max_retry_attempts` or `use_spot_instances` it is a durable job: written down before
        this returns, and going on when this process ends.
        """
        __tracebackhide__ = True
        try:
            return (self._caller or self._begin()).submit(args, kwargs)
        except Exception as error:
            raise _trimmed(error)  # noqa: B904

    def map(
        self,
        *iterables: Iterable[Any],
        return_exceptions: bool = False,
        ordered: bool = True,
        timeout: float | None = None,
    ) -> Iterator[R]:
        """Call the function with items of the iterables taken together; yield the values.

        Lazy and concurrent: a bounded number of items is under way, more are taken from the iterables as values
        are taken. Quick calls are sent many at a time.

        Args:
            *iterables: as for the built-in `map`.
            return_exceptions: yield what a call raised instead of raising it.
            ordered: yield in the order of the arguments; else as values come.
            timeout: seconds from now after which waiting for a value raises `TimeoutError`.

        Raises:
            BaseException: what the first failing call raised; the calls that are left are cancelled.
        """
        __tracebackhide__ = True
        arguments = zip(*iterables)  # noqa: B905 - as the built-in map
        try:
            return (self._caller or self._begin()).starmap(
                arguments,
                return_exceptions=return_exceptions,
                ordered=ordered,
                timeout=timeout,
                expected=min(map(operator.length_hint, iterables), default=0),
            )
        except Exception as error:
            raise _trimmed(error)  # noqa: B904

    def starmap(
        self,
        arguments: Iterable[tuple[Any, ...]],
        *,
        return_exceptions: bool = False,
        ordered: bool = True,
        timeout: float | None = None,
    ) -> Iterator[R]:
        """`map` over tuples of arguments."""
        __tracebackhide__ = True
        try:
            return (self._caller or self._begin()).starmap(
                arguments, return_exceptions=return_exceptions, ordered=ordered, timeout=timeout
            )
        except Exception as error:
            raise _trimmed(error)  # noqa: B904

    async def aio(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the call from a coroutine; cancelling the coroutine cancels the call."""
        from .future import awaited

        __tracebackhide__ = True
        try:
            return await awaited(self.submit(*args, **kwargs))
        except Exception as error:
            raise _trimmed(error)  # noqa: B904

    def local(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function right here."""
        return self._function(*args, **kwargs)

    def options(self, **keywords: Unpack[OptionKeywords]) -> RemoteFunction[P, R]:
        """Return this function with other options; they rank above the decorator's.

        Raises:
            ConfigurationError: there is no such option, or its value is wrong.
        """
        try:
            given = Options.from_keywords(Origin.CALL, **keywords)
        except Exception as error:
            raise _trimmed(error)  # noqa: B904
        return RemoteFunction(self._function, given.over(self._options))

    def preflight(self, /, *args: Any, **kwargs: Any) -> Preflight:
        """Say what would travel and what cannot work, without running anything.

        Args:
            *args: of a call, if their sizes are wanted too.
            **kwargs: likewise.

        Raises:
            SerializationError: the function cannot be pickled; `path` leads to the culprit.
            SizeLimitExceeded: its local code is too large.
            ConfigurationError: a configuration file is wrong.
        """
        try:
            return (self._caller or self._begin(ahead=False)).preflight(args, kwargs)
        except Exception as error:
            raise _trimmed(error)  # noqa: B904

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if self._of_class:
            instance = owner if owner is not None else type(instance)
        return self if instance is None else BoundFunction(self, instance)

    def __reduce__(self) -> Any:
        import remote_exec

        return (remote_exec._restore_function, (self._function, self._options.keywords()))

    def __repr__(self) -> str:
        return f"<remote function {self._name}>"

    def _begin(self, *, ahead: bool = True) -> Caller:
        """Load what makes calls: a program that only decorates does without; reach for the agent meanwhile."""
        with collector_paused():
            if ahead:
                from .client.ahead import reach_ahead

                reach_ahead(self._options)
            from .client.caller import Caller

        self._caller = Caller(self._function, self._name, self._options)
        return self._caller
