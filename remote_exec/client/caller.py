"""From a function and arguments to a call under way: what `RemoteFunction` loads with its first call."""

from __future__ import annotations

import contextlib
import inspect
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..backends import local
from ..capture.function import Captured as Found
from ..capture.function import FunctionCapture, log_levels
from ..future import RemoteFuture
from ..model.errors import SerializationError
from ..options import Options
from ..options.group_plan import group_plan, is_durable
from ..serial import pickling
from ..serial.pickling import Pickled
from .calls import Call, Captured
from .connections import connections
from .placement import stays_here
from .target import Place, Target, bring_trees, find_target, same_variables, told_of

if TYPE_CHECKING:
    from ..capture.preflight import Preflight
    from .dispatching import Dispatching
    from .jobs import JobFuture
    from .result_cache import ResultCache

_PLAIN, _GENERATOR, _JOB, _CACHED, _GROUP = "plain", "generator", "job", "cached", "group"


class Caller:
    """Makes the calls of one function.

    Args:
        function: what is called.
        name: what its calls are called.
        options: the function's own, before configuration.
    """

    def __init__(self, function: Callable[..., Any], name: str, options: Options) -> None:
        self._function = function
        self._name = name
        self._options = options
        self._capture = FunctionCapture(function, name=name, options=options, watch=connections.watch)
        self._target: Target | None = None
        self._sent: Captured | None = None
        self._found: Found | None = None
        self._kind = _PLAIN
        self._results: ResultCache | None = None
        self._named: set[str] = set()  # by arguments so far
        self._variables: dict[Any, Any] = {}

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a call and return its value, or the iterator over its values."""
        arguments, target, sent = self._prepare(args, kwargs)
        if self._kind is _PLAIN:
            return target.dispatcher.run(Call(sent, arguments, dispatcher=target.dispatcher))
        if self._kind is _GENERATOR:
            from .generators import RemoteIterator

            values: RemoteIterator[Any] = RemoteIterator(target.dispatcher, Call(sent, arguments))
            return values
        if self._results is not None:
            return self._results.run(arguments, args, kwargs)
        if self._kind is _GROUP:
            from .groups import run_group

            return run_group(target, sent, arguments)
        from .jobs import run_job

        return run_job(self._submit_job(target, sent, arguments))

    def submit(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> RemoteFuture[Any]:
        """Start a call."""
        arguments, target, sent = self._prepare(args, kwargs)
        if self._kind is _JOB:
            return self._submit_job(target, sent, arguments)
        if self._results is not None:
            return self._results.submit(arguments, args, kwargs)
        if self._kind is _GROUP:
            from .groups import start_group

            return start_group(target, sent, arguments)
        call = Call(sent, arguments, dispatcher=target.dispatcher)
        future = call.future
        target.dispatcher.submit(call)
        return future

    def starmap(
        self,
        arguments: Iterable[tuple[Any, ...]],
        *,
        return_exceptions: bool,
        ordered: bool,
        timeout: float | None,
        expected: int = 0,
    ) -> Iterator[Any]:
        """Call the function with each tuple of arguments, of which so many are expected; yield the values."""
        target, sent = self._current()
        if self._results is not None:
            return self._results.map(
                arguments,
                submit=self._submit_one,
                ordered=ordered,
                return_exceptions=return_exceptions,
                timeout=timeout,
            )
        if group_plan(target.place.options) is not None:
            from .groups import map_groups

            return map_groups(
                target,
                arguments,
                submit=self._submit_one,
                ordered=ordered,
                return_exceptions=return_exceptions,
                timeout=timeout,
            )
        from .batches import Batches

        batches = Batches(
            target.dispatcher,
            sent,
            arguments,
            make_future=RemoteFuture,
            place=self._place,
            host=target.place.host if target.spread is None else None,
            ordered=ordered,
            return_exceptions=return_exceptions,
            expected=expected,
        )
        deadline = None if timeout is None else time.monotonic() + timeout
        return batches.results(lambda: deadline)

    def _submit_one(self, *args: Any) -> RemoteFuture[Any]:
        return self.submit(args, {})

    def preflight(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Preflight:
        """Say what would travel and what cannot work."""
        from ..capture.preflight import look

        with contextlib.suppress(SerializationError):  # it will be said
            self._pickle(args, kwargs)
        arguments = {**{str(index): value for index, value in enumerate(args)}, **kwargs}
        return look(self._capture.current(), self._options, function=self._function, arguments=arguments)

    def _prepare(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Pickled, Target, Captured]:
        """Pickle a call's arguments; return them, where the call goes, and what is sent of the function."""
        if self._found is None and stays_here(self._options):
            connections.prepare(local.here())
        arguments = self._pickle(args, kwargs)
        target, sent = self._current()
        if target.spread is None:
            bring_trees(arguments, target.place.host, self._name)
        return arguments, target, sent

    def _pickle(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Pickled:
        """Pickle arguments, and see to it that the modules which they name will be there."""
        plain = pickling.plain_arguments(args, kwargs)
        if plain is not None:
            return plain
        named = pickling.Named()
        arguments = pickling.dump_arguments(args, kwargs, named=named)
        if named.functions or not named.modules <= self._named:
            from ..capture.named import needed_modules

            self._capture.need(needed_modules(named))
            self._named |= named.modules
        return arguments

    def _place(self, needed: frozenset[str]) -> tuple[Dispatching, Captured]:
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
        sent = sent_of(self._name, found, target.place, self._function)
        self._kind = _kind_of(self._function, target.place)
        self._results = self._result_cache(found, target, sent) if self._kind is _CACHED else None
        self._found, self._target, self._sent = found, target, sent
        self._variables = dict(os.environ._data)  # type: ignore[attr-defined]
        return target, sent

    def _result_cache(self, found: Found, target: Target, sent: Captured) -> ResultCache:
        from .result_cache import result_cache

        return result_cache(self._function, found, target, sent)

    def _submit_job(self, target: Target, sent: Captured, arguments: Pickled) -> JobFuture:
        from .jobs import job_name, source_of, submit_job

        name, code = job_name(target.place.options, self._name), source_of(self._function)
        return submit_job(target.place_for(arguments, self._name), sent, arguments, name=name, code=code)


def _kind_of(function: Callable[..., Any], place: Place) -> str:
    kind, options = _PLAIN, place.options
    generator = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    if is_durable(options):
        kind = _JOB
    elif generator:
        kind = _GENERATOR
    plan = group_plan(options)
    if plan is not None:
        from .groups import check_group

        check_group(options, plan, here=place.host.here, generator=generator, durable=kind is _JOB)
        kind = _JOB if kind is _JOB else _GROUP
    if options.cache and kind is not _PLAIN:
        connections.reporter.note(f"option 'cache' is ignored: results of a {kind} are not cached")
    return _CACHED if options.cache and kind is _PLAIN else kind


def sent_of(name: str, found: Found, place: Place, function: object = None) -> Captured:
    """Return a captured function as calls carry it; `function` is needed where launchers may start it."""
    told = told_of(name, place.options)
    if "launch" in told and not is_durable(place.options):
        # its worker, which tells the code of all others, never loads it
        from .jobs import source_of

        told["code"] = source_of(function)
    return Captured(
        name=name,
        pickled=found.pickled,
        told=told,
        log_levels=log_levels(),
        phases=place.phases,
        instance_type=place.instance.name,
    )
