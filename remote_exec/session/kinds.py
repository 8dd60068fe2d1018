"""Objects whose contents can be taken and put back in place: how each kind of them does that.

An object that two namespaces share stays the same object when it changes at the other end, so what changed is put
*into* it. What has no place for new contents (a tuple, a timestamp, a pandas index) has no kind: it is part of the
contents of what holds it. No state but caches by class.
"""

from __future__ import annotations

import copyreg
import sys
import types
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from types import CellType, FunctionType
from typing import Any, NamedTuple, cast

from ..serial import reducers

Object = Any


class Kind(NamedTuple):
    """What can be done with the objects of a kind.

    Attributes:
        take: returns an object's contents as new objects, holding what it holds.
        put: replaces an object's contents.
        form: what cannot be changed in place: an object whose form differs from what it was is another object.
    """

    take: Callable[[Object], Any]
    put: Callable[[Object, Any], None]
    form: Callable[[Object], Any] = type


def kind_of(obj: Object) -> Kind | None:
    """Return an object's kind; None when it has no contents that could be replaced."""
    cls = type(obj)
    kind = _KINDS.get(cls)
    if kind is not None:
        return kind
    if cls not in _by_class:
        _by_class[cls] = _find(cls)
    return _by_class[cls]


def _find(cls: type) -> Kind | None:
    if issubclass(cls, type):
        return CLASS
    for base, kind in ((dict, MAPPING), (list, LIST), (set, SET), (deque, DEQUE)):
        if issubclass(cls, base):
            return _with_attributes(kind)
    if cls.__module__ == "numpy" and cls.__name__ == "ndarray":
        return ARRAY
    torch: Any = sys.modules.get("torch")
    if torch is not None and issubclass(cls, torch.Tensor):
        return TENSOR
    return INSTANCE if _is_rebuilt_by_state_alone(cls) else None


def _is_rebuilt_by_state_alone(cls: type) -> bool:
    """Whether an object of this class is `cls.__new__(cls)` and its state: nothing else makes one what it is."""
    return (
        bool(cls.__flags__ & _HEAP_TYPE)
        and cls.__reduce_ex__ is object.__reduce_ex__
        and cls.__reduce__ is object.__reduce__
        and not hasattr(cls, "__getnewargs__")
        and not hasattr(cls, "__getnewargs_ex__")
        and cls not in copyreg.dispatch_table
        and cls not in reducers.REDUCERS
        and not issubclass(cls, (int, float, str, bytes, tuple, frozenset, BaseException))
    )


_HEAP_TYPE = 1 << 9
_by_class: weakref.WeakKeyDictionary[type, Kind | None] = weakref.WeakKeyDictionary()


# --- containers ---


def _put_list(held: list[Any], contents: list[Any]) -> None:
    held[:] = contents


def _put_dict(held: dict[Any, Any], contents: dict[Any, Any]) -> None:
    dict.clear(held)
    dict.update(held, contents)


def _put_ordered(held: OrderedDict[Any, Any], contents: dict[Any, Any]) -> None:
    held.clear()
    held.update(contents)


def _put_set(held: set[Any], contents: list[Any]) -> None:
    set.clear(held)
    set.update(held, contents)


def _put_deque(held: deque[Any], contents: list[Any]) -> None:
    held.clear()
    held.extend(contents)


def _put_bytearray(held: bytearray, contents: bytes) -> None:
    held[:] = contents


def _deque_form(held: deque[Any]) -> Any:
    return type(held), held.maxlen


def _mapping_form(held: Any) -> Any:
    return type(held), getattr(held, "default_factory", None)


LIST = Kind(lambda held: list.__getitem__(held, slice(None)), _put_list)
MAPPING = Kind(lambda held: dict(dict.items(held)), _put_dict, _mapping_form)
SET = Kind(lambda held: list(set.__iter__(held)), _put_set)
DEQUE = Kind(list, _put_deque, _deque_form)
BYTES = Kind(bytes, _put_bytearray)


def _with_attributes(kind: Kind) -> Kind:
    """Return a container's kind for its subclasses, whose objects have attributes beside."""

    def take(obj: Object) -> Any:
        return kind.take(obj), _attributes(obj)

    def put(obj: Object, contents: Any) -> None:
        held, attributes = contents
        kind.put(obj, held)
        if attributes is not None:
            _put_attributes(obj, attributes)

    return Kind(take, put, kind.form)


def _attributes(obj: Object) -> dict[str, Any] | None:
    found = getattr(obj, "__dict__", None)
    return dict(found) if type(found) is dict else None


def _put_attributes(obj: Object, attributes: dict[str, Any]) -> None:
    own = vars(obj)
    own.clear()
    own.update(attributes)


# --- arrays ---


def _take_array(array: Any) -> Any:
    return array.view()


def _put_array(array: Any, contents: Any) -> None:
    if array.dtype.hasobject or contents.flags.c_contiguous == array.flags.c_contiguous or array.size:
        array[...] = contents


def _array_form(array: Any) -> Any:
    return array.shape, array.dtype.str, array.flags.writeable


def _take_tensor(tensor: Any) -> Any:
    return tensor.detach(), tensor.grad, tensor.requires_grad


def _put_tensor(tensor: Any, contents: Any) -> None:
    data, grad, requires_grad = contents
    tensor.data = data
    tensor.grad = grad
    if tensor.is_leaf:
        tensor.requires_grad_(requires_grad)


def _tensor_form(tensor: Any) -> Any:
    return type(tensor), tensor.is_leaf, str(tensor.device), str(tensor.dtype), str(tensor.layout)


ARRAY = Kind(_take_array, _put_array, _array_form)
TENSOR = Kind(_take_tensor, _put_tensor, _tensor_form)


# --- objects of ordinary classes ---


def _take_state(obj: Object) -> Any:
    reduced = cast("tuple[Any, ...]", obj.__reduce_ex__(4))
    return reduced[2] if len(reduced) > 2 else None


def _put_state(obj: Object, state: Any) -> None:
    attributes = getattr(obj, "__dict__", None)
    if type(attributes) is dict:
        attributes.clear()
    for name in copyreg._slotnames(type(obj)):  # type: ignore[attr-defined]
        if hasattr(obj, name):
            delattr(obj, name)
    if hasattr(obj, "__setstate__"):
        if state is not None:
            obj.__setstate__(state)
        return
    attributes, slots = state if type(state) is tuple and len(state) == 2 else (state, None)
    if attributes:
        vars(obj).update(attributes)
    for name, value in (slots or {}).items():
        setattr(obj, name, value)


INSTANCE = Kind(_take_state, _put_state)


# --- code ---


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
    vars(function).clear()
    vars(function).update(attributes)
    for name, value in own.items():
        setattr(function, name, value)


def _function_form(function: FunctionType) -> Any:
    return tuple(map(id, function.__closure__ or ()))


def _take_class(cls: type) -> dict[str, Any]:
    return {name: value for name, value in vars(cls).items() if not _is_of_the_type_itself(cls, name, value)}


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
    }
)  # fmt: skip


def _is_of_the_type_itself(cls: type, name: str, value: object) -> bool:
    return name in _OWN or (isinstance(value, types.MemberDescriptorType) and value.__objclass__ is cls)


def _class_form(cls: type) -> Any:
    return type(cls), tuple(map(id, cls.__bases__))


CELL = Kind(_take_cell, _put_cell)
FUNCTION = Kind(_take_function, _put_function, _function_form)
CLASS = Kind(_take_class, _put_class, _class_form)

_KINDS: dict[type, Kind] = {
    list: LIST,
    dict: MAPPING,
    set: SET,
    deque: DEQUE,
    bytearray: BYTES,
    OrderedDict: Kind(MAPPING.take, _put_ordered),
    CellType: CELL,
    FunctionType: FUNCTION,
    type: CLASS,
}
