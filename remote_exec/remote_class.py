"""`@remote` on a class: each instance lives in a worker of its own, and its methods are called there."""

from __future__ import annotations

import inspect
import os
from typing import Any, Generic, ParamSpec, TypeVar

from .capture.function import FunctionCapture
from .capture.modules import reach
from .capture.named import needed_modules
from .client.caller import sent_of
from .client.calls import Call
from .client.connections import connections
from .client.generators import RemoteIterator
from .client.groups import refuse_group
from .client.notebook import notebook_path
from .client.target import bring_trees, find_place
from .future import RemoteFuture, awaited, trimmed
from .model.errors import SerializationError
from .model.ids import new_id
from .options import Options
from .options.option_set import Origin
from .serial import pickling
from .serial.pickling import Pickled
from .worker.instance import Instance

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class RemoteClass(Generic[T]):
    """A class whose instances live in workers. Calling it makes one.

    Example:
        >>> from remote_exec import remote
        >>> @remote
        ... class Counter:
        ...     def __init__(self, start: int) -> None:
        ...         self.value = start
        ...
        ...     def add(self, amount: int) -> int:
        ...         self.value += amount
        ...         return self.value
        >>> counter = Counter(10)
        >>> counter.add(1), counter.add.submit(2).result()
        (11, 13)
        >>> counter.close()
    """

    def __init__(self, cls: type[T], options: Options) -> None:
        self._class = cls
        self._options = options
        self.__doc__ = cls.__doc__
        self.__name__ = cls.__name__

    def __call__(self, /, *args: Any, **kwargs: Any) -> RemoteInstance[T]:
        """Make an instance in a worker of its own, and return when it is made.

        Raises:
            BaseException: what its constructor raised.
        """
        try:
            return RemoteInstance(self._class, self._options, args, kwargs)
        except BaseException as error:
            raise trimmed(error)  # noqa: B904 - it is the very one

    def local(self, /, *args: Any, **kwargs: Any) -> T:
        """Make an ordinary instance right here."""
        return self._class(*args, **kwargs)

    def options(self, **keywords: Any) -> RemoteClass[T]:
        """Return this class with other options; they rank above the decorator's."""
        try:
            given = Options.from_keywords(Origin.CALL, **keywords)
        except Exception as error:
            raise trimmed(error)  # noqa: B904
        return RemoteClass(self._class, given.over(self._options))

    def __reduce__(self) -> Any:
        import remote_exec

        return (remote_exec._restore_class, (self._class, self._options.keywords()))


class RemoteInstance(Generic[T]):
    """An instance in a worker; attributes of it are methods to be called there."""

    def __init__(
        self,
        cls: type[T],
        options: Options,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        modules: frozenset[str] = frozenset(),  # further ones that it needs
        requires: tuple[str, ...] = (),  # installed ones that its environment has whatever the user asked for
        name: str = "",
        listed: bool = True,  # whether its calls are of interest to whoever looks at lists
        idle_seconds: float | None = None,  # how long it is kept unused, where no option was set
    ) -> None:
        name = name or cls.__name__
        _, needed = _pickle("__init__", args, kwargs)
        found = FunctionCapture(
            Instance(cls),
            name=name,
            options=options,
            modules=needed.union(modules),
            requires=requires,
            watch=connections.watch,
        ).current()
        place = find_place(found, options, private=new_id())
        refuse_group(place.options, "an instance of a remote class")
        self._class = cls
        self._modules = found.reach.names
        self._sent = sent_of(name, found, place)
        if not listed:
            self._sent.told["listed"] = False
            place.request["asked_by"] = os.path.basename(notebook_path()) or name
        self._host = place.host
        self._options = place.options
        if modules:
            place.request["preload"] = ()  # its one worker imports them as they are used
        self._dispatcher = connections.private(
            place.host,
            place.request,
            max_workers=1,
            single=True,
            idle_seconds=_idle_seconds(place.options, idle_seconds),
        )
        try:
            self._submit("__init__", args, kwargs).result()
        except BaseException:
            self.close()
            raise

    def __reduce__(self) -> Any:
        raise TypeError(
            "only the process that has made a remote instance can call it: pass what its methods return"
        )

    def __getattr__(self, name: str) -> RemoteMethod:
        if name.startswith("__") and name.endswith("__") and name != "__call__":
            raise AttributeError(name)
        return RemoteMethod(self, name)

    def close(self) -> None:
        """End the instance and give its worker back; harmless when repeated."""
        connections.drop(self._dispatcher, cancel=True)

    def __enter__(self) -> RemoteInstance[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        dispatcher = self.__dict__.get("_dispatcher")
        if dispatcher is not None and not dispatcher.closed:
            dispatcher.let_go()

    def __repr__(self) -> str:
        return f"<remote instance of {self._class.__name__}>"

    def _submit(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> RemoteFuture[Any]:
        call = self._new_call(method, args, kwargs)
        future = call.future
        self._dispatcher.submit(call)
        return future

    def _new_call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        arguments, needed = _pickle(method, args, kwargs)
        if not needed <= self._modules:
            # the instance's worker has the local code that it began with: what else is named travels by value
            later = reach(None, modules=needed).local.keys() - self._modules
            arguments, _ = _pickle(method, args, kwargs, by_value=frozenset(later))
        bring_trees(arguments, self._host, self._sent.name)
        return Call(self._sent, arguments, dispatcher=self._dispatcher)


def _idle_seconds(options: Options, by_default: float | None) -> float:
    is_set = options.source("keep_alive_period_in_seconds").origin is not Origin.DEFAULT
    return float(options.keep_alive_period_in_seconds) if is_set or by_default is None else by_default


class RemoteMethod:
    """A method of a remote instance."""

    def __init__(self, instance: RemoteInstance[Any], name: str) -> None:
        self._instance = instance
        self._name = name

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the method and return its value, or raise what it raised.

        A generator method's call returns an iterator over its values, as they are made.
        """
        __tracebackhide__ = True  # pytest and IPython leave this frame out
        instance = self._instance
        method = getattr(instance._class, self._name, None)
        try:
            if inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
                values: RemoteIterator[Any] = RemoteIterator(
                    instance._dispatcher, instance._new_call(self._name, args, kwargs)
                )
                return values
            return instance._submit(self._name, args, kwargs).result()
        except BaseException as error:
            raise trimmed(error)  # noqa: B904

    def submit(self, /, *args: Any, **kwargs: Any) -> RemoteFuture[Any]:
        """Start the call and return its future at once. Calls of one instance run one after the other."""
        try:
            return self._instance._submit(self._name, args, kwargs)
        except Exception as error:
            raise trimmed(error)  # noqa: B904

    async def aio(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the method from a coroutine."""
        try:
            return await awaited(self.submit(*args, **kwargs))
        except Exception as error:
            raise trimmed(error)  # noqa: B904


def _pickle(
    method: str, args: tuple[Any, ...], kwargs: dict[str, Any], *, by_value: frozenset[str] = frozenset()
) -> tuple[Pickled, frozenset[str]]:
    """Pickle one call; return it and the modules that it needs."""
    named = pickling.Named()
    try:
        pickled = pickling.dump_arguments((method, args, kwargs), {}, by_value=by_value, named=named)
    except SerializationError:
        pickling.dump_arguments(args, kwargs, by_value=by_value)  # it tells of the user's own arguments
        raise
    return pickled, needed_modules(named)


def _restore_class(  # pyright: ignore[reportUnusedFunction]  # by its name, from pickles
    cls: type[T], keywords: dict[str, Any]
) -> RemoteClass[T]:
    return RemoteClass(cls, Options.from_keywords(Origin.DECORATOR, **keywords))
