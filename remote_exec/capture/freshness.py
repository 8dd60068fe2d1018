"""Whether what a function sent by value reaches is still what was sent: asked before every call.

Python binds names late. A notebook's function sees the helper that was redefined a moment ago; so must the
worker's copy. A `Snapshot` remembers, by identity, every binding that pickling the function by value
follows, and compares them in a microsecond or two. Content that changes under an unchanged binding (a list
that grew, an attribute of an instance) cannot be seen so: such a snapshot says `mutable`, and the caller
pickles again and compares digests.

Code that travels by reference is not looked at: that is its files' matter (see ``bundle``). A snapshot is
never changed and may be read from any thread.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Iterable
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    EllipsisType,
    FunctionType,
    GenericAlias,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    NoneType,
    NotImplementedType,
    UnionType,
    WrapperDescriptorType,
)
from typing import Any, cast

from .by_value import global_names, module_travels_by_value, travels_by_value

_ABSENT = object()
_CACHED_FUNCTION: type = type(functools.lru_cache(len))
_PARTIAL: type = functools.partial
# what guards a dataclass's __repr__ against endless recursion keeps a set in its closure
_GUARDS = ("/reprlib.py", "/dataclasses.py")

_IMMUTABLE: frozenset[type] = frozenset(
    {
        NoneType, bool, int, float, complex, str, bytes, range, slice, object, CodeType, EllipsisType,
        NotImplementedType, GenericAlias, UnionType, GetSetDescriptorType, MemberDescriptorType,
        MethodDescriptorType, WrapperDescriptorType,
    }
)  # fmt: skip
# by name, so that none of these is imported to ask
_IMMUTABLE_NAMES = frozenset(
    {
        "datetime.date", "datetime.datetime", "datetime.time", "datetime.timedelta", "datetime.timezone",
        "decimal.Decimal", "fractions.Fraction", "uuid.UUID", "zoneinfo.ZoneInfo", "re.Pattern",
        "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.PurePosixPath", "pathlib.PureWindowsPath",
        "pathlib._local.PosixPath", "pathlib._local.PurePosixPath", "operator.itemgetter",
        "operator.attrgetter", "operator.methodcaller", "typing.TypeVar", "typing.ParamSpec",
        "typing._GenericAlias", "typing._SpecialGenericAlias", "typing._UnionGenericAlias",
        "typing._SpecialForm", "typing._LiteralGenericAlias", "typing._AnyMeta", "typing.Union",
        "numpy.ufunc", "numpy.float64", "numpy.float32", "numpy.int64", "numpy.int32", "numpy.bool",
        "torch.device", "torch.dtype",
        # these pickle as their name
        "logging.Logger", "logging.RootLogger",
    }
)  # fmt: skip
# set by the interpreter, abc, dataclasses or pickling itself; nobody writes into them by way of work
_CLASS_BOOKKEEPING = frozenset(
    {
        "__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__slotnames__",
        "__annotations__", "__annotations_cache__", "__annotate__", "__annotate_func__",
        "__dataclass_fields__", "__dataclass_params__", "__abstractmethods__", "_abc_impl",
        "__static_attributes__", "__firstlineno__", "__parameters__", "__orig_bases__",
    }
)  # fmt: skip


class Snapshot:
    """The bindings that a function sent by value reaches, as they were at one moment.

    Attributes:
        mutable: something reached can change its content under the same binding, so that only pickling again
            and comparing can tell.

    Example:
        >>> rate = 0.1
        >>> def scaled(x):
        ...     return x * rate
        >>> snapshot = Snapshot.of(scaled)
        >>> snapshot.mutable, snapshot.is_current()
        (False, True)
    """

    __slots__ = ("_cells", "_functions", "_lookups", "_sizes", "mutable")

    def __init__(self, walk: _Walk) -> None:
        self.mutable = walk.mutable
        self._lookups = tuple(walk.lookups)
        self._functions = tuple(walk.functions)
        self._cells = tuple(walk.cells)
        self._sizes = tuple(walk.sizes)

    @classmethod
    def of(cls, function: object) -> Snapshot:
        """Look at a function, class or callable as it is now."""
        walk = _Walk()
        walk.run(function)
        return cls(walk)

    def is_current(self) -> bool:
        """Whether every binding is still the same object; what is `mutable` may have changed nevertheless."""
        for read, name, value in self._lookups:
            if read(name, _ABSENT) is not value:
                return False
        for function, code, defaults in self._functions:
            if function.__code__ is not code or function.__defaults__ is not defaults:
                return False
        for cell, value in self._cells:
            if _content(cell) is not value:
                return False
        for mapping, size in self._sizes:  # noqa: SIM110 - a generator would cost as much as the rest
            if len(mapping) != size:
                return False
        return True


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:
        return _ABSENT


class _Walk:
    """Collects what one snapshot compares."""

    def __init__(self) -> None:
        self.mutable = False
        # how to look a name up, the name, what it gave
        self.lookups: list[tuple[Callable[..., object], str, object]] = []
        self.functions: list[tuple[FunctionType, CodeType, object]] = []
        self.cells: list[tuple[CellType, object]] = []
        # namespaces whose every name matters, and how many they held
        self.sizes: list[tuple[Any, int]] = []
        self._seen: set[int] = set()
        # keeps ids unique while they are compared
        self._alive: list[object] = []

    def run(self, root: object) -> None:
        """Follow a value and all that it reaches; deep structures do not recurse."""
        stack = [root]
        while stack:
            value = stack.pop()
            kind = type(value)
            if kind in _IMMUTABLE or id(value) in self._seen:
                continue
            self._seen.add(id(value))
            self._alive.append(value)
            stack.extend(self._follow(value, kind))

    def _follow(self, value: Any, kind: type[Any]) -> Iterable[object]:
        if kind is FunctionType:
            return self._function(value) if travels_by_value(value) else ()
        if isinstance(value, type):
            return self._class(value) if travels_by_value(value) else ()
        if isinstance(value, ModuleType):
            self.mutable |= module_travels_by_value(value)
            return ()
        if kind is tuple or kind is frozenset:
            return cast("Iterable[object]", value)
        if kind is MethodType:
            return (value.__func__, value.__self__)
        if kind is BuiltinFunctionType:
            return () if value.__self__ is None else (value.__self__,)
        if kind is staticmethod or kind is classmethod:
            return (value.__func__,)
        if kind is property:
            return (value.fget, value.fset, value.fdel)
        if kind is functools.cached_property:
            return (value.func,)
        if kind is _PARTIAL:
            attributes = cast("dict[str, Any]", vars(value))
            return (value.func, value.args, *self._namespace(value.keywords), *self._namespace(attributes))
        return self._instance(value, kind)

    def _instance(self, value: Any, kind: type[Any]) -> Iterable[object]:
        if kind is _CACHED_FUNCTION:
            attributes = cast("dict[str, Any]", vars(value))
            return self._namespace(attributes) if travels_by_value(value) else ()
        if isinstance(value, enum.Enum):
            return (kind,)
        if kind.__module__.startswith("remote_exec."):
            # a decorated function: what it wraps is what matters
            wrapped = getattr(value, "__wrapped__", None)
            if wrapped is not None:
                return (wrapped,)
        if f"{kind.__module__}.{kind.__qualname__}" not in _IMMUTABLE_NAMES:
            self.mutable = True
        return ()

    def _function(self, function: FunctionType) -> Iterable[object]:
        code, defaults = function.__code__, function.__defaults__
        self.functions.append((function, code, defaults))
        read = function.__globals__.get
        for name in global_names(code):
            value = read(name, _ABSENT)
            self.lookups.append((read, name, value))
            yield value
        for cell in function.__closure__ or ():
            value = _content(cell)
            self.cells.append((cell, value))
            if not (type(value) is set and code.co_filename.endswith(_GUARDS)):
                yield value
        yield from defaults or ()
        if function.__kwdefaults__:
            yield from self._namespace(function.__kwdefaults__)
        yield from self._namespace(vars(function))
        yield from _annotations(function)

    def _class(self, cls: type) -> Iterable[object]:
        yield type(cls)
        yield from cls.__bases__
        yield from self._namespace(vars(cls), skip=_CLASS_BOOKKEEPING)

    def _namespace(
        self, names: dict[str, Any] | MappingProxyType[str, Any], *, skip: frozenset[str] = frozenset()
    ) -> Iterable[object]:
        self.sizes.append((names, len(names)))
        read = names.get
        for name, value in list(names.items()):
            if name not in skip:
                self.lookups.append((read, name, value))
                yield value


def _annotations(function: FunctionType) -> Iterable[object]:
    # evaluated on first use from Python 3.14 on, when a name in them may not exist
    try:
        return list(function.__annotations__.values())
    except NameError:
        return ()
