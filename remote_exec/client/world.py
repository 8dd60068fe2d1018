"""The workers of one executor and the world that they live in: the local modules that its calls have named so far.

When a call names more, or local code was edited, later calls go to new workers that have it all, and those before them
end where they are.
"""

from __future__ import annotations

import logging
import operator
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from ..backends.host import Host
from ..capture.function import Captured as Found
from ..capture.function import FunctionCapture
from ..capture.modules import reach
from ..capture.named import needed_modules
from ..config import load_config
from ..future import RemoteFuture
from ..model.errors import ConfigurationError, RemoteExecError
from ..model.ids import new_id
from ..options import Options
from ..options.group_plan import group_plan, is_durable
from ..serial import pickling
from .batches import Batches
from .caller import sent_of
from .calls import Call, Captured
from .connections import connections
from .dispatcher import Dispatcher
from .one_by_one import results_of
from .placement import Found as Chosen
from .placement import choose
from .target import Place, Target, bring_trees, find_place, place_on, target_of

if TYPE_CHECKING:
    from .apart import Apart

NAP_SECONDS = 0.005
FUNCTIONS_KEPT = 512  # captured functions that one executor remembers

logger = logging.getLogger("concurrent.futures")


class _Known:
    """A function that was captured, and how calls carry it, by the names they go under."""

    __slots__ = ("capture", "found", "place", "sent", "target")

    def __init__(self, capture: FunctionCapture) -> None:
        self.capture = capture
        self.found: Found | None = None
        self.place: Place | None = None
        self.target: Target | None = None  # of calls that do not go to the executor's own workers
        self.sent: dict[str, Captured] = {}


class World:
    """What `RemoteExecutor` loads with its first call; its methods do what the executor's of the same names do.

    Args:
        options: the executor's, before configuration.
        initializer: called once in each worker, before its first call.
        initargs: its arguments.
    """

    def __init__(
        self, options: Options, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
    ) -> None:
        self._options = options
        self._private = new_id()
        self._initializer = initializer
        self._initargs = initargs
        self._lock = threading.RLock()
        self._modules: frozenset[str] = frozenset()
        self._known: dict[Callable[..., Any], _Known] = {}
        self._seen: WeakSet[Callable[..., Any]] = WeakSet()
        self._key = ""
        self._host: Host | None = None
        self._dispatchers: list[Dispatcher] = []  # the last one takes calls, those before it end theirs
        self._maps: WeakSet[Batches] = WeakSet()
        self._apart: Apart | None = None
        self.broken: BrokenExecutor | None = None
        self._shut_down = False
        _worlds.add(self)
        weakref.finalize(self, _let_go, self._dispatchers).atexit = False

    def submit(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> RemoteFuture[Any]:
        """Start a call and return its future. What cannot be sent is the future's outcome.

        Raises:
            RuntimeError: the executor was shut down, or the interpreter is.
            BrokenExecutor: the initializer failed.
        """
        self._check()
        future: RemoteFuture[Any] = RemoteFuture()
        try:
            # A function made for one call, or bound to an object, travels with the arguments and is forgotten.
            function: Callable[..., Any] = fn if self._is_kept(fn) else operator.call
            named = pickling.Named()
            arguments = pickling.dump_arguments(args if function is fn else (fn, *args), kwargs, named=named)
            with self._lock:
                if self._shut_down or self.broken is not None:
                    self._check()
                known, sent = self._place(function, needed_modules(named), name=_name_of(fn))
                if arguments.trees and self._host is not None:
                    bring_trees(arguments, self._host, _name_of(fn))
                if known.target is None:
                    dispatcher = self._dispatchers[-1]
                    call = Call(sent, arguments, future)
                    future._call, future._dispatcher = call, dispatcher
                    dispatcher.submit(call)
                    return future
            assert self._apart is not None  # noqa: S101
            return self._apart.submit(known.target, sent, arguments, function=fn)
        except Exception as error:
            self._check()
            if isinstance(error, (ConfigurationError, BrokenExecutor)):
                raise
            future.set_running_or_notify_cancel()
            # our own frames tell nothing
            future.set_exception(error.with_traceback(None) if isinstance(error, RemoteExecError) else error)
        return future

    def map(
        self, fn: Callable[..., Any], arguments: list[tuple[Any, ...]], deadline: float | None
    ) -> Iterator[Any]:
        """Start calling `fn` with each tuple of arguments at once; yield the values in order."""
        named = pickling.Named()
        for sample in {tuple(map(type, items)): items for items in arguments}.values():
            pickling.dump_arguments(sample, {}, named=named)
        with self._lock:
            self._check()
            needed = needed_modules(named)
            known, sent = self._place(fn, needed, name=_name_of(fn), keep=self._is_kept(fn))
            if known.target is None:
                assert self._host is not None  # noqa: S101
                batches = Batches(
                    self._dispatchers[-1],
                    sent,
                    arguments,
                    make_future=RemoteFuture,
                    host=self._host,
                    ahead=None,
                )
                self._maps.add(batches)
                return batches.results(lambda: deadline)
        return results_of([self.submit(fn, items, {}) for items in arguments], deadline)

    def shutdown(self, *, wait: bool, cancel_futures: bool) -> None:
        """Take no more calls; give the workers back when those that are left have ended."""
        with self._lock:
            self._shut_down = True
            maps, dispatchers = list(self._maps), list(self._dispatchers)
        for batches in maps:
            batches.send_no_more() if cancel_futures else batches.send_rest()
        for dispatcher in dispatchers:
            if cancel_futures:
                dispatcher.cancel_queued()
            dispatcher.close_when_done()
        if self._apart is not None and cancel_futures:
            self._apart.cancel_waiting()
        if self._apart is not None and wait:
            self._apart.wait()
        for dispatcher in dispatchers if wait else ():
            while dispatcher.pending:
                time.sleep(NAP_SECONDS)
            connections.drop(dispatcher)

    def stop(self) -> None:
        """Cancel what waits and what runs."""
        self._shut_down = True
        for batches in list(self._maps):
            batches.cancel()
        for dispatcher in list(self._dispatchers):
            dispatcher.cancel_all()
        if self._apart is not None:
            self._apart.cancel_all()

    # --- what a call needs -------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self.broken is not None:
            raise self.broken
        if self._shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if not threading.main_thread().is_alive():
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    def _is_kept(self, fn: Callable[..., Any]) -> bool:
        """Whether workers keep a function: it has a name of its own, or comes for the second time."""
        if isinstance(fn, BuiltinFunctionType):
            return isinstance(getattr(fn, "__self__", None), ModuleType)
        if not isinstance(fn, (FunctionType, type)):
            return False
        if "<" not in fn.__qualname__ or fn in self._seen:
            return True
        self._seen.add(fn)
        return False

    def _place(
        self, fn: Callable[..., Any], named: frozenset[str], *, name: str, keep: bool = True
    ) -> tuple[_Known, Captured]:
        """Return what is known of a function, its place included, and what its calls carry. Under `_lock`."""
        known = self._known.get(fn) if keep else None
        if known is None:
            known = self._capture(fn, keep=keep)
        found = known.capture.current()
        if found is not known.found or not named <= self._modules or known.place is None:
            known = self._settle(fn, known, found, named, keep=keep)
        sent = known.sent.get(name)
        if sent is None:
            assert known.found is not None  # noqa: S101
            assert known.place is not None  # noqa: S101
            sent = known.sent[name] = sent_of(name, known.found, known.place, fn)
        return known, sent

    def _capture(self, fn: Callable[..., Any], *, keep: bool) -> _Known:
        known = _Known(
            FunctionCapture(
                fn,
                name=_name_of(fn),
                options=self._options,
                modules=self._modules,
                watch=connections.watch,
            )
        )
        if keep:
            while len(self._known) >= FUNCTIONS_KEPT:
                del self._known[next(iter(self._known))]
            self._known[fn] = known
        return known

    def _settle(
        self, fn: Callable[..., Any], known: _Known, found: Found, named: frozenset[str], *, keep: bool
    ) -> _Known:
        """Make the executor's world hold what a function and its arguments need, and its workers live in it."""
        if not self._modules and self._initializer is not None:
            told = pickling.Named()
            pickling.dump_arguments(self._initargs, {}, named=told)
            named |= reach(self._initializer).names | needed_modules(told)
        reached = found.reach.names
        if not reached | named <= self._modules:
            self._modules |= reached | named
            self._known.clear()
            if reached != self._modules:
                known = self._capture(fn, keep=keep)
                found = known.capture.current()
            elif keep:
                self._known[fn] = known
        chosen = choose(load_config(), self._options)
        known.found, known.sent = found, {}
        if group_plan(chosen.options) is not None or is_durable(chosen.options):
            known.target = self._target_apart(chosen, found)
            known.place = known.target.place
            return known
        place = place_on(chosen, found, private=self._private)
        self._host = place.host
        key = f"{place.request['pool'].key}/{place.request['bundle']}"
        if key != self._key:
            self._open(place)  # all others have no place any longer
            self._key = key
        known.place = place
        return known

    def _target_apart(self, chosen: Chosen, found: Found) -> Target:
        """Return where a function's calls go that are groups or durable jobs: to workers that others use as well."""
        from .apart import Apart

        if self._initializer is not None:
            raise ConfigurationError(
                "an executor's initializer runs in workers of its own, and groups and durable jobs have others",
                option="initializer",
                hint="call it where the function begins",
            )
        target = target_of(chosen, found)
        self._host = target.place.host if target.spread is None else None
        if self._apart is None:
            self._apart = Apart(
                target.place.options, target.dispatcher.max_workers, here=target.place.host.here
            )
        return target

    def _open(self, place: Place) -> None:
        """Let later calls go to new workers."""
        for batches in list(self._maps):
            batches.send_rest()
        for dispatcher in self._dispatchers:
            dispatcher.close_when_done()
        for known in self._known.values():
            known.place = None
        fresh = connections.private(
            place.host,
            place.request | {"max_workers": place.max_workers},  # the pool is this executor's alone
            max_workers=place.max_workers,
            idle_seconds=float("inf"),
            opening=self._opening() if self._initializer is not None else None,
        )
        self._dispatchers[:] = [*(one for one in self._dispatchers if not one.closed), fresh]

    def _opening(self) -> Callable[[], Call]:
        """Return what makes the call of the initializer that each worker runs before all others."""
        assert self._initializer is not None  # noqa: S101
        found = FunctionCapture(
            self._initializer, name="initializer", options=self._options, modules=self._modules
        ).current()
        place = find_place(found, self._options, private=self._private)
        sent = sent_of("initializer", found, place)
        arguments = pickling.dump_arguments(self._initargs, {}, named=pickling.Named())
        bring_trees(arguments, place.host, "initializer")
        opened = weakref.WeakMethod(
            self._opened
        )  # workers do not keep an executor alive that nobody else does

        def on_done(future: Future[Any]) -> None:
            if (method := opened()) is not None:
                method(future)

        def make() -> Call:
            future: RemoteFuture[Any] = RemoteFuture()
            future.add_done_callback(on_done)
            return Call(sent, arguments, future)

        return make

    def _opened(self, future: Future[Any]) -> None:
        error = None if future.cancelled() else future.exception()
        if error is None:
            return
        logger.critical("Exception in initializer:", exc_info=error)
        broken = BrokenExecutor(f"the initializer failed: {type(error).__name__}: {error}")
        broken.__cause__ = error
        self.broken = broken
        for dispatcher in list(self._dispatchers):
            dispatcher.fail(broken)

    def _after_fork(self) -> None:
        """In a child: its calls go to workers of its own."""
        self._lock = threading.RLock()
        self._key = ""
        self._dispatchers.clear()
        self._apart = None
        self._known.clear()
        self._maps = WeakSet()


_worlds: WeakSet[World] = WeakSet()


def _in_child() -> None:
    for world in list(_worlds):
        world._after_fork()


os.register_at_fork(after_in_child=_in_child)


def _let_go(dispatchers: list[Dispatcher]) -> None:
    for dispatcher in dispatchers:
        dispatcher.let_go()


def _name_of(fn: Callable[..., Any]) -> str:
    return str(getattr(fn, "__name__", type(fn).__name__)).strip("<>")
