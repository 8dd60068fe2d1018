"""Dataclasses that cost next to nothing at import.

`dataclasses.dataclass(frozen=True)` compiles six methods for each class: a millisecond each, paid at every start of
a client, an agent and a fork server for some hundred classes. A record is a dataclass (`fields`, `replace`,
`asdict` and type checkers know it as one) whose methods are shared functions that look at the fields.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar, overload

if TYPE_CHECKING or sys.version_info >= (3, 11):
    from typing import dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Callable[[Any], Any]:
        return lambda function: function


__all__ = ["dataclass_transform", "record"]

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
        made = dataclasses.dataclass(init=False, repr=False, eq=False, kw_only=kw_only)(plain)
        methods: dict[str, Any] = {"__init__": _init, "__eq__": _equal, "__hash__": None}
        if frozen:
            methods |= {"__setattr__": _refuse, "__delattr__": _refuse, "__hash__": _hash}
        if repr:
            methods["__repr__"] = _repr
        for name, method in methods.items():
            setattr(made, name, method)
        return made

    return make if cls is None else make(cls)


class _Layout(NamedTuple):
    positional: tuple[str, ...]
    names: tuple[str, ...]
    defaults: dict[str, Any]
    factories: dict[str, Callable[[], Any]]


_layouts: dict[type, _Layout] = {}


def _layout(cls: Any) -> _Layout:
    found = _layouts.get(cls)
    if found is None:
        fields = dataclasses.fields(cls)
        found = _layouts[cls] = _Layout(
            positional=tuple(field.name for field in fields if not field.kw_only),
            names=tuple(field.name for field in fields),
            defaults={f.name: f.default for f in fields if f.default is not dataclasses.MISSING},
            factories={
                f.name: f.default_factory for f in fields if f.default_factory is not dataclasses.MISSING
            },
        )
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
