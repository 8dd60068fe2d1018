"""Functions, closures' cells, classes, and what wraps functions: their contents."""

from __future__ import annotations

import enum
import types
from types import CellType, FunctionType
from typing import Any

from ..serial import reducers
from .kind import Kind, attributes_of, put_attributes


def _take_cell(cell: CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


def _put_cell(cell: CellType, contents: tuple[Any, ...]) -> None:
    if contents:
        cell.cell_contents = contents[0]
    else:
        del cell.cell_contents


def _take_function(function: FunctionType) -> Any:
    return function.__code__, dict(vars(function)), reducers._attributes(function)


def _put_function(function: FunctionType, contents: Any) -> None:
    code, attributes, own = contents
    if function.__code__ != code:
        function.__code__ = code
    put_attributes(function, attributes)
    for name, value in own.items():
        setattr(function, name, value)


def _function_form(function: FunctionType) -> Any:
    return tuple(map(id, function.__closure__ or ()))


def _take_dispatch(wrapper: Any) -> Any:
    attributes: dict[str, Any] = wrapper.__dict__
    own = {name: value for name, value in attributes.items() if name not in reducers._SINGLE_DISPATCH_OWN}
    return list(wrapper.registry.items()), own


def _put_dispatch(wrapper: Any, contents: Any) -> None:
    registry, attributes = contents
    for cls, function in registry:
        if wrapper.registry.get(cls) is not function:
            wrapper.register(cls, function)
    wrapper.__dict__.update(attributes)


def _cached_form(wrapper: Any) -> Any:
    return id(wrapper.__wrapped__), tuple(wrapper.cache_parameters().items())


def _take_partial(partial: Any) -> Any:
    return partial.func, partial.args, partial.keywords, vars(partial) or None


def _put_partial(partial: Any, state: Any) -> None:
    partial.__setstate__(state)


def _take_class(cls: type) -> dict[str, Any]:
    own = _ENUM if isinstance(cls, enum.EnumMeta) else _OWN
    members: Any = cls.__members__ if isinstance(cls, enum.EnumMeta) else ()
    return {
        name: value
        for name, value in vars(cls).items()
        if name not in own and name not in members and not _is_slot(cls, value)
    }


def _put_class(cls: type, attributes: dict[str, Any]) -> None:
    before = _take_class(cls)
    for name in before.keys() - attributes.keys():
        type.__delattr__(cls, name)
    for name, value in attributes.items():
        if name not in before or before[name] is not value:
            type.__setattr__(cls, name, value)


_OWN = frozenset(
    {
        "__dict__", "__weakref__", "__slots__", "__module__", "__qualname__", "__orig_bases__", "__annotate_func__",
        "_abc_impl", "__static_attributes__", "__firstlineno__", "__abstractmethods__", "__parameters__",
        "__slotnames__",
    }
)  # fmt: skip
_ENUM = _OWN | {*reducers._ENUM_OWN, "__new__", "_new_member_", "_use_args_", "_member_type_"}


def _is_slot(cls: type, value: object) -> bool:
    return isinstance(value, types.MemberDescriptorType) and value.__objclass__ is cls


def give_attributes(cls: type, attributes: dict[str, Any]) -> None:
    """Give a class those of a class statement's attributes that can be changed."""
    own = _take_class(cls)
    for name, value in attributes.items():
        if name not in _ENUM and own.get(name) is not value:
            type.__setattr__(cls, name, value)


def _class_form(cls: type) -> Any:
    return type(cls), tuple(map(id, cls.__bases__))


CELL = Kind(_take_cell, _put_cell)
FUNCTION = Kind(_take_function, _put_function, _function_form)
DISPATCH = Kind(_take_dispatch, _put_dispatch)
CACHED = Kind(attributes_of, put_attributes, _cached_form)
CLASS = Kind(_take_class, _put_class, _class_form)
PARTIAL = Kind(_take_partial, _put_partial)
