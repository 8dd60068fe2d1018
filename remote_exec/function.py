"""`@remote`: a function whose calls run in a worker."""

from __future__ import annotations

import contextlib
import inspect
import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast

from .capture.function import Captured as Found
from .capture.function import FunctionCapture, log_levels
from .client.calls import Call, Captured
from .client.connections import connections
from .client.target import Place, Target, find_target, same_variables, told_of
from .future import RemoteFuture, beyond_result
from .model.errors import SerializationError
from .model.ids import new_id
from .model.layout import Layout
from .options import Options
from .options.option_set import Origin
from .serial import pickling
from .serial.pickling import Pickled
from .worker.bound import BoundFunction

if TYPE_CHECKING:
    from typing import Unpack

    from .capture.preflight import Preflight
    from .client.dispatcher import Dispatcher
    from .client.jobs import JobFuture
    from .client.result_cache import ResultCache
    from .options import OptionKeywords

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


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
        self._capture = FunctionCapture(
            function, name=self._name, options=self._options, watch=connections.watch
        )
        self._target: Target | None = None
        self._sent: Captured | None = None
        self._found: Found | None = None
        self._kind = _PLAIN
        self._results: ResultCache | None = None
        self._variables: dict[Any, Any] = {}
        with contextlib.suppress(AttributeError):
            update_wrapper(self, function, updated=())

    # --- calling ----------------------------------------------------------------------------------------------

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the call in a worker and return its value, or raise what it raised. Ctrl-C cancels it.

        A generator function's call returns an iterator over its values, as they are made.
        """
        __tracebackhide__ = True  # pytest and IPython leave this frame out
        arguments, target, sent = self._prepare(args, kwargs)
        try:
            if self._kind is not _PLAIN:
                return cast("R", self._call_specially(target, sent, arguments, args, kwargs))
            value: R = target.dispatcher.run(Call(sent, arguments, dispatcher=target.dispatcher))
            return value
        except BaseException as error:
            trace = beyond_result(error.__traceback__)
            if trace is error.__traceback__ and isinstance(error, KeyboardInterrupt):
                trace = None  # of Ctrl-C while waiting: where exactly is of no interest
            raise error.with_traceback(trace)

    def submit(self, /, *args: P.args, **kwargs: P.kwargs) -> RemoteFuture[R]:
        """Start the call and return its future at once.

        With `name`, `detach`, `max_retry_attempts` or `use_spot_instances` it is a durable job: written down before
        this returns, and going on when this process ends.
        """
        arguments, target, sent = self._prepare(args, kwargs)
        if self._kind is _JOB:
            return cast("RemoteFuture[R]", self._submit_job(target, sent, arguments))
        if self._results is not None:
            return cast("RemoteFuture[R]", self._results.submit(arguments, args, kwargs))
        call = Call(sent, arguments, dispatcher=target.dispatcher)
        target.dispatcher.submit(call)
        return call.future

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
        arguments = zip(*iterables)  # noqa: B905 - as the built-in map
        return self.starmap(arguments, return_exceptions=return_exceptions, ordered=ordered, timeout=timeout)

    def starmap(
        self,
        arguments: Iterable[tuple[Any, ...]],
        *,
        return_exceptions: bool = False,
        ordered: bool = True,
        timeout: float | None = None,
    ) -> Iterator[R]:
        """`map` over tuples of arguments."""
        target, sent = self._current()
        if self._results is not None:
            return self._results.map(
                arguments,
                submit=cast("Callable[..., RemoteFuture[Any]]", self.submit),
                ordered=ordered,
                return_exceptions=return_exceptions,
                timeout=timeout,
            )
        from .client.batches import Batches

        batches = Batches(
            target.dispatcher,
            sent,
            arguments,
            make_future=RemoteFuture,
            place=self._place,
            ordered=ordered,
            return_exceptions=return_exceptions,
        )
        deadline = None if timeout is None else time.monotonic() + timeout
        return batches.results(lambda: deadline)

    async def aio(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the call from a coroutine; cancelling the coroutine cancels the call."""
        import asyncio

        future = self.submit(*args, **kwargs)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.cancel()
            raise

    def local(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function right here."""
        return self._function(*args, **kwargs)

    def options(self, **keywords: Unpack[OptionKeywords]) -> RemoteFunction[P, R]:
        """Return this function with other options; they rank above the decorator's.

        Raises:
            ConfigurationError: there is no such option, or its value is wrong.
        """
        return RemoteFunction(
            self._function, Options.from_keywords(Origin.CALL, **keywords).over(self._options)
        )

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
        from .capture.preflight import look

        with contextlib.suppress(SerializationError):  # it will be said
            self._pickle(args, kwargs)
        arguments = {**{str(index): value for index, value in enumerate(args)}, **kwargs}
        return look(self._capture.current(), self._options, function=self._function, arguments=arguments)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else BoundFunction(self, instance)

    def __reduce__(self) -> Any:
        import remote_exec

        return (remote_exec._restore_function, (self._function, self._options.keywords()))

    def __repr__(self) -> str:
        return f"<remote function {self._name}>"

    # --- what a call needs -------------------------------------------------------------------------------------

    def _prepare(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Pickled, Target, Captured]:
        """Pickle a call's arguments; return them, where the call goes, and what is sent of the function."""
        if self._found is None:
            connections.prepare(Layout.of(os.environ))
        arguments = self._pickle(args, kwargs)
        return arguments, *self._current()

    def _pickle(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Pickled:
        """Pickle arguments, and see to it that the modules which they name will be there."""
        named = pickling.Named()
        arguments = pickling.dump_arguments(args, kwargs, named=named)
        if named:
            from .capture.named import needed_modules

            self._capture.need(needed_modules(named))
        return arguments

    def _place(self, needed: frozenset[str]) -> tuple[Dispatcher, Captured]:
        """Return where calls go whose arguments need these modules, and what is sent of the function."""
        self._capture.need(needed)
        target, sent = self._current()
        return target.dispatcher, sent

    def _current(self) -> tuple[Target, Captured]:
        """Return where calls go and what is sent of the function, both as of now."""
        found = self._capture.current()
        target, sent = self._target, self._sent
        if (
            found is self._found
            and target is not None
            and sent is not None
            and same_variables(self._variables)
            and target.place.environment.is_current()
            and not target.dispatcher.closed
        ):
            return target, sent
        target = find_target(found, self._options)
        sent = sent_of(self._name, found, target.place)
        self._kind = _kind_of(self._function, target.place.options)
        self._results = self._result_cache(found, target, sent) if self._kind is _CACHED else None
        self._found, self._target, self._sent = found, target, sent
        self._variables = dict(os.environ._data)  # type: ignore[attr-defined]
        return target, sent

    def _result_cache(self, found: Found, target: Target, sent: Captured) -> ResultCache:
        from .client.result_cache import result_cache

        return result_cache(self._function, found, target, sent)

    def _call_specially(
        self,
        target: Target,
        sent: Captured,
        arguments: Pickled,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> object:
        if self._kind is _GENERATOR:
            from .client.generators import RemoteIterator

            values: RemoteIterator[Any] = RemoteIterator(target.dispatcher, Call(sent, arguments))
            return values
        if self._results is not None:
            return self._results.run(arguments, args, kwargs)
        from .client.jobs import run_job

        return run_job(self._submit_job(target, sent, arguments))

    def _submit_job(self, target: Target, sent: Captured, arguments: Pickled) -> JobFuture:
        from .client.jobs import submit_job

        options = target.place.options
        name = options.name or f"{options.job_name_prefix or self._name}-{new_id()}"
        return submit_job(target.place, sent, arguments, name=name)


_PLAIN, _GENERATOR, _JOB, _CACHED = "plain", "generator", "job", "cached"


def _kind_of(function: Callable[..., Any], options: Options) -> str:
    kind = _PLAIN
    if options.name or options.detach or options.max_retry_attempts or options.use_spot_instances:
        kind = _JOB
    elif inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        kind = _GENERATOR
    if options.cache and kind is not _PLAIN:
        connections.reporter.note(f"option 'cache' is ignored: results of a {kind} are not cached")
    return _CACHED if options.cache and kind is _PLAIN else kind


def sent_of(name: str, found: Found, place: Place) -> Captured:
    """Return a captured function as calls carry it."""
    return Captured(
        name=name,
        pickled=found.pickled,
        told=told_of(name, place.options),
        log_levels=log_levels(),
        phases=place.phases,
    )
