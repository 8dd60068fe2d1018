"""Objects whose contents can be taken and put back in place: how each kind of them does that.

An object that two namespaces share stays the same object when it changes at the other end, so what changed is put
*into* it. What has no place for new contents (a tuple, a timestamp, a pandas index) has no kind: when it changes,
another object takes its place. No state but caches by class.
"""

from __future__ import annotations

import array
import copyreg
import functools
import io
import random
import sys
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from types import CellType, FunctionType
from typing import Any, cast

from ..serial import reducers
from . import kinds_of_arrays
from .kind import Kind, Object, attributes_of, put_attributes
from .kinds_of_arrays import ARRAY, DERIVED, TENSOR
from .kinds_of_code import CACHED, CELL, CLASS, DISPATCH, FUNCTION, PARTIAL


def kind_of(obj: Object) -> Kind | None:
    """Return an object's kind; None when it has no contents that could be replaced."""
    cls: Any = cast("Any", type(obj))
    kind = _KINDS.get(cls)
    if kind is not None:
        return DISPATCH if kind is FUNCTION and obj.__code__ is reducers._SINGLE_DISPATCH_CODE else kind
    if cls not in _by_class:
        _by_class[cls] = _find(cls)
    return _by_class[cls]


def way_back(held: Object, kind: Kind, contents: Object) -> Callable[[], None]:
    """Return what gives an object the contents that it has now, when others have been put into it."""
    if kind is INSTANCE:
        return functools.partial(_put_all, held, type(held), attributes_of(held), _slots(held))
    if kind in (ARRAY, DERIVED, TENSOR):
        return kinds_of_arrays.way_back(held, contents)
    return functools.partial(kind.put, held, kind.take(held))


def _find(cls: type) -> Kind | None:
    if issubclass(cls, type):
        return CLASS
    for base, kind in _BASES.items():
        if issubclass(cls, base):
            return _with_attributes(kind)
    if issubclass(cls, random.Random):
        return RANDOM
    if issubclass(cls, BaseException):
        return EXCEPTION
    name = f"{cls.__module__}.{cls.__qualname__}"
    if name in _BY_NAME:
        return _BY_NAME[name]
    if cls.__module__.startswith("pandas") and cls.__name__.startswith("Arrow"):
        return None  # it is large, and its contents are made anew whenever they are asked for
    if cls.__name__ == "SingleBlockManager":
        return None  # its state would give it another block
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and issubclass(cls, numpy.ndarray):
        return DERIVED
    torch: Any = sys.modules.get("torch")
    if torch is not None and issubclass(cls, torch.Tensor):
        return TENSOR
    return INSTANCE if _is_rebuilt_by_state_alone(cls) else None


def _is_rebuilt_by_state_alone(cls: Any) -> bool:
    """Whether an object of this class is `cls.__new__(cls)` and its state: nothing else makes one what it is."""
    return (
        bool(cls.__flags__ & _HEAP_TYPE)
        and cls.__reduce_ex__ is object.__reduce_ex__
        and cls.__reduce__ is object.__reduce__
        and not hasattr(cls, "__getnewargs__")
        and not hasattr(cls, "__getnewargs_ex__")
        and cls not in copyreg.dispatch_table
        and cls not in reducers.REDUCERS
        and not issubclass(cls, (int, float, complex, str, bytes, tuple, frozenset))
    )


_HEAP_TYPE = 1 << 9
_by_class: weakref.WeakKeyDictionary[type, Kind | None] = weakref.WeakKeyDictionary()


# --- containers ---


# The containers' own methods, whatever subclasses of them define.
_list: Any = list
_dict: Any = dict
_ordered: Any = OrderedDict
_set: Any = set
_deque: Any = deque


def _take_list(held: Object) -> list[Any]:
    contents: list[Any] = _list.__getitem__(held, slice(None))
    return contents


def _put_list(held: Object, contents: list[Any]) -> None:
    _list.__setitem__(held, slice(None), contents)


def _take_dict(held: Object) -> dict[Any, Any]:
    return dict(_dict.items(held))


def _put_dict(held: Object, contents: dict[Any, Any]) -> None:
    _dict.clear(held)
    _dict.update(held, contents)


def _take_ordered(held: Object) -> dict[Any, Any]:
    return dict(_ordered.items(held))


def _put_ordered(held: Object, contents: dict[Any, Any]) -> None:
    _ordered.clear(held)
    for key, value in contents.items():
        _ordered.__setitem__(held, key, value)


def _take_set(held: Object) -> list[Any]:
    return list(_set.__iter__(held))


def _put_set(held: Object, contents: list[Any]) -> None:
    _set.clear(held)
    _set.update(held, contents)


def _take_deque(held: Object) -> list[Any]:
    return list(_deque.__iter__(held))


def _put_deque(held: Object, contents: list[Any]) -> None:
    _deque.clear(held)
    _deque.extend(held, contents)


def _put_bytearray(held: bytearray, contents: bytes) -> None:
    held[:] = contents


def _take_numbers(held: Object) -> Any:
    return held[:]


def _put_numbers(held: Object, contents: Object) -> None:
    held[:] = contents


def _numbers_form(held: Object) -> Any:
    return type(held), held.typecode


def _take_file(held: Object) -> Any:
    return held.__getstate__()


def _put_file(held: Object, state: Any) -> None:
    held.__setstate__(state)


def _deque_form(held: Object) -> Any:
    return type(held), held.maxlen


def _mapping_form(held: Object) -> Any:
    return type(held), id(getattr(held, "default_factory", None))


LIST = Kind(_take_list, _put_list)
MAPPING = Kind(_take_dict, _put_dict, _mapping_form)
ORDERED = Kind(_take_ordered, _put_ordered)
SET = Kind(_take_set, _put_set)
DEQUE = Kind(_take_deque, _put_deque, _deque_form)
BYTES = Kind(bytes, _put_bytearray)
NUMBERS = Kind(_take_numbers, _put_numbers, _numbers_form)
FILE = Kind(_take_file, _put_file)
_BASES: dict[type, Kind] = {OrderedDict: ORDERED, dict: MAPPING, list: LIST, set: SET, deque: DEQUE}


def _with_attributes(kind: Kind) -> Kind:
    """Return a container's kind for its subclasses, whose objects have attributes beside."""

    def take(obj: Object) -> Any:
        return kind.take(obj), attributes_of(obj)

    def put(obj: Object, contents: Any) -> None:
        held, attributes = contents
        kind.put(obj, held)
        if attributes is not None:
            put_attributes(obj, attributes)

    return Kind(take, put, kind.form)


# --- random numbers ---


def _take_random(held: random.Random) -> Any:
    return held.getstate(), attributes_of(held)


def _put_random(held: random.Random, contents: Any) -> None:
    state, attributes = contents
    held.setstate(state)
    if attributes is not None:
        put_attributes(held, attributes)


def _take_generator(held: Any) -> Any:
    return held.bit_generator.state


def _put_generator(held: Any, state: Any) -> None:
    held.bit_generator.state = state


def _generator_form(held: Any) -> Any:
    return type(held), type(held.bit_generator)


def _take_bits(held: Any) -> Any:
    return held.state


def _put_bits(held: Any, state: Any) -> None:
    held.state = state


def _take_old_generator(held: Any) -> Any:
    return held.get_state(legacy=False)


def _put_old_generator(held: Any, state: Any) -> None:
    held.set_state(state)


RANDOM = Kind(_take_random, _put_random)
GENERATOR = Kind(_take_generator, _put_generator, _generator_form)
BITS = Kind(_take_bits, _put_bits)
OLD_GENERATOR = Kind(_take_old_generator, _put_old_generator)
_BY_NAME = {
    "numpy.ndarray": ARRAY,
    "numpy.random._generator.Generator": GENERATOR,
    "numpy.random.mtrand.RandomState": OLD_GENERATOR,
    **{
        f"numpy.random._{module}.{name}": BITS
        for module, name in (("pcg64", "PCG64"), ("pcg64", "PCG64DXSM"), ("mt19937", "MT19937"))
    },
    **{f"numpy.random._{name.lower()}.{name}": BITS for name in ("Philox", "SFC64")},
}


# --- objects of ordinary classes ---


def _take_instance(obj: Object) -> Any:
    return type(obj), _take_state(obj)


def _instance_form(obj: Object) -> Any:
    return _instance_form  # its class can be changed


def _put_instance(obj: Object, contents: Any) -> None:
    cls, state = contents
    if type(obj) is not cls:
        obj.__class__ = cls
    _put_state(obj, state)


def _take_state(obj: Object) -> Any:
    reduced: tuple[Any, ...] = obj.__reduce_ex__(4)
    state = reduced[2] if len(reduced) > 2 else None
    own, slots = _divided(state)
    if slots is not None:
        return dict(own or {}), slots
    return state if own is None else dict(own)  # another one, since the object's own would change with it


def _divided(state: Any) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return an object's attributes and slots by its state; None where that has none."""
    kind: Any = cast("Any", type(state))
    if kind is tuple and [type(part) for part in state] in ([dict, dict], [type(None), dict]):
        return state[0], state[1]
    return (state, None) if kind is dict else (None, None)


def _put_state(obj: Object, state: Any) -> None:
    own, slots = _divided(state)
    if hasattr(obj, "__setstate__"):
        before, _ = _divided(_take_state(obj))
        attributes = getattr(obj, "__dict__", None)
        if type(attributes) is dict and before is not None and own is not None:
            for name in before.keys() - own.keys():  # what the state leaves out is not the other end's
                cast("dict[str, Any]", attributes).pop(name, None)
        if state is not None:
            obj.__setstate__(state)
        return
    if type(getattr(obj, "__dict__", None)) is dict:
        put_attributes(obj, own or {})
    _put_slots(obj, slots or {})


def _put_all(obj: Object, cls: type, attributes: dict[str, Any] | None, slots: dict[str, Any]) -> None:
    if type(obj) is not cls:
        obj.__class__ = cls
    if attributes is not None:
        put_attributes(obj, attributes)
    _put_slots(obj, slots)


def _slots(obj: Object) -> dict[str, Any]:
    names: list[str] = vars(copyreg)["_slotnames"](type(obj))
    return {name: getattr(obj, name) for name in names if hasattr(obj, name)}


def _put_slots(obj: Object, slots: dict[str, Any]) -> None:
    for name in _slots(obj).keys() - slots.keys():
        object.__delattr__(obj, name)
    for name, value in slots.items():
        object.__setattr__(obj, name, value)


INSTANCE = Kind(_take_instance, _put_instance, _instance_form)


def _take_exception(error: BaseException) -> Any:
    return error.args, attributes_of(error)


def _put_exception(error: BaseException, contents: Any) -> None:
    error.args, attributes = contents
    put_attributes(error, attributes or {})


EXCEPTION = Kind(_take_exception, _put_exception)


_KINDS: dict[type, Kind] = {
    list: LIST,
    dict: MAPPING,
    set: SET,
    deque: DEQUE,
    bytearray: BYTES,
    array.array: NUMBERS,
    io.StringIO: FILE,
    io.BytesIO: FILE,
    OrderedDict: ORDERED,
    CellType: CELL,
    FunctionType: FUNCTION,
    reducers._CACHED: CACHED,
    functools.partial: PARTIAL,
    type: CLASS,
}
