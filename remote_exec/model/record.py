"""Dataclasses that cost next to nothing at import.

`dataclasses.dataclass(frozen=True)` compiles six methods for each class: a millisecond each, paid at every start of
a client, an agent and a fork server for some hundred classes. A record is a dataclass (`fields`, `replace`,
`asdict` and type checkers know it as one) whose methods are shared functions that look at the fields; and those are
found when somebody first looks: most processes make no instance of most classes.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar, cast, overload

if TYPE_CHECKING or sys.version_info >= (3, 11):
    from typing import dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Callable[[Any], Any]:
        return lambda function: function


__all__ = ["dataclass_transform", "fields_of", "record"]

T = TypeVar("T")


@overload
def record(cls: type[T], /) -> type[T]: ...
@overload
def record(*, kw_only: bool = ..., repr: bool = ..., frozen: bool = ...) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def record(cls: Any = None, /, *, kw_only: bool = False, repr: bool = True, frozen: bool = True) -> Any:  # noqa: A002
    """Class decorator: make a dataclass, frozen unless told otherwise.

    Args:
        cls: the class, when the decorator is bare.
        kw_only: its fields are given by name only.
        repr: give it a repr; else the class has its own.
        frozen: its fields cannot be assigned; else it has no hash.
    """

    def make(plain: type[T]) -> type[T]:
        methods: dict[str, Any] = {"__init__": _init, "__eq__": _equal, "__hash__": None}
        if frozen:
            methods |= {"__setattr__": _refuse, "__delattr__": _refuse, "__hash__": _hash}
        if repr:
            methods["__repr__"] = _repr
        for name, method in methods.items():
            setattr(plain, name, method)
        if not plain.__doc__:
            plain.__doc__ = plain.__name__  # dataclasses would write the signature there
        for name in (_FIELDS, _MATCH_ARGS):
            setattr(plain, name, _Later(plain, name, kw_only=kw_only))
        return plain

    return make if cls is None else make(cls)


_FIELDS, _MATCH_ARGS = "__dataclass_fields__", "__match_args__"
_MISSING: Any = dataclasses.MISSING
_making = threading.RLock()


class _Later:
    """An attribute of a class until somebody asks for it: then the class is made a dataclass, which sets it."""

    def __init__(self, cls: type, name: str, *, kw_only: bool) -> None:
        self.kw_only = kw_only
        self._cls = cls
        self._name = name

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        cls = self._cls
        with _making:
            if vars(cls)[self._name] is self:
                dataclasses.dataclass(
                    init=False, repr=False, eq=False, kw_only=self.kw_only, match_args=False
                )(cls)
                setattr(cls, _MATCH_ARGS, tuple(f.name for f in dataclasses.fields(cls) if not f.kw_only))
        return getattr(cls, self._name)


class _Layout(NamedTuple):
    positional: tuple[str, ...]
    names: tuple[str, ...]
    defaults: dict[str, Any]
    factories: dict[str, Callable[[], Any]]


_layouts: dict[type, _Layout] = {}


def _layout(cls: Any) -> _Layout:
    found = _layouts.get(cls)
    if found is None:
        with _making:
            fields = _fields(cls)
        found = _layouts[cls] = _Layout(
            positional=tuple(name for name, (_, kw_only) in fields.items() if not kw_only),
            names=tuple(fields),
            defaults={n: f.default for n, (f, _) in fields.items() if f.default is not _MISSING},
            factories={
                n: cast("Callable[[], Any]", f.default_factory)
                for n, (f, _) in fields.items()
                if f.default_factory is not _MISSING
            },
        )
    return found


def _fields(cls: type) -> dict[str, tuple[dataclasses.Field[Any], bool]]:
    """Return what `dataclasses.fields` would, and which are given by name only, at a tenth of the price."""
    found: dict[str, tuple[dataclasses.Field[Any], bool]] = {}
    for base in reversed(cls.__mro__):
        own = vars(base)
        later = own.get(_FIELDS)
        if not isinstance(later, _Later) or "__annotations__" not in own:
            if later is not None:
                found |= {f.name: (f, bool(f.kw_only)) for f in dataclasses.fields(base)}
            continue
        for name, annotation in own["__annotations__"].items():
            if not annotation.startswith("ClassVar"):
                field: Any = own.get(name, _MISSING)
                if type(field) is not dataclasses.Field:
                    field = dataclasses.field(default=field)
                by_name = field.kw_only if field.kw_only is not _MISSING else later.kw_only
                found[name] = field, bool(by_name)
    return found


def _init(self: Any, *args: Any, **kwargs: Any) -> None:
    layout = _layout(type(self))
    if len(args) > len(layout.positional):
        raise TypeError(
            f"{type(self).__name__} takes {len(layout.positional)} arguments by position, not {len(args)}"
        )
    values = dict(zip(layout.positional, args))  # noqa: B905 - fewer may be given
    state = self.__dict__
    for name in layout.names:
        if name in kwargs:
            if name in values:
                raise TypeError(f"{type(self).__name__} got {name!r} twice")
            state[name] = kwargs.pop(name)
        elif name in values:
            state[name] = values[name]
        elif name in layout.defaults:
            state[name] = layout.defaults[name]
        elif name in layout.factories:
            state[name] = layout.factories[name]()
        else:
            raise TypeError(f"{type(self).__name__} lacks {name!r}")
    if kwargs:
        raise TypeError(f"{type(self).__name__} has no {', '.join(map(repr, kwargs))}")
    check = getattr(self, "__post_init__", None)
    if check is not None:
        check()


def fields_of(cls: Any) -> dict[str, tuple[Any, bool]] | None:
    """Return a dataclass's fields, None of another class: name -> (annotation, whether it must be given).

    A record is not made more of for that: it would run code, and code that runs while a process ends hides from the
    shell that it was interrupted.
    """
    if getattr(cls, "__init__", None) is not _init:
        if not dataclasses.is_dataclass(cls):
            return None
        return {
            f.name: (f.type, f.default is _MISSING and f.default_factory is _MISSING)
            for f in dataclasses.fields(cls)
        }
    layout = _layout(cls)
    annotations: dict[str, Any] = {}
    bases: tuple[type, ...] = cls.__mro__
    for base in reversed(bases):
        annotations |= vars(base).get("__annotations__", {})
    optional = layout.defaults.keys() | layout.factories.keys()
    return {name: (annotations[name], name not in optional) for name in layout.names}


def _refuse(self: Any, name: str, *_: Any) -> NoReturn:
    raise dataclasses.FrozenInstanceError(f"cannot change {name!r} of a {type(self).__name__}")


def _values(self: Any) -> tuple[Any, ...]:
    return tuple([self.__dict__[name] for name in _layout(type(self)).names])


def _equal(self: Any, other: object) -> bool:
    if type(other) is not type(self):
        return False
    return bool(_values(self) == _values(other))


def _hash(self: object) -> int:
    return hash((type(self), _values(self)))


def _repr(self: Any) -> str:
    pairs = zip(_layout(type(self)).names, _values(self))  # noqa: B905 - of one length
    return f"{type(self).__qualname__}({', '.join(f'{name}={value!r}' for name, value in pairs)})"
