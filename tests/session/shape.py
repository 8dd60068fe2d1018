"""What a namespace is, objects and who shares them included, as plain data that can be compared."""

from __future__ import annotations

import array
import random
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator
from typing import Any

ATOMS = (int, float, str, bytes, bool, type(None))
CONTAINERS = (list, deque, tuple)


def shape_of(namespace: dict[str, Any]) -> dict[str, Any]:
    """Return each name's value, and where two names lead to the same object."""
    met: dict[int, int] = {}
    names = sorted(name for name in namespace if not name.startswith("__"))
    return {name: _shape(namespace[name], met, namespace) for name in names}


def _shape(obj: Any, met: dict[int, int], namespace: dict[str, Any]) -> Any:
    if isinstance(obj, (ATOMS, types.ModuleType, types.BuiltinFunctionType)):
        return repr(obj)
    if isinstance(obj, type) and obj.__module__ != "__main__":
        return repr(obj)
    if id(obj) in met:
        return f"#{met[id(obj)]}"
    if type(obj) is not tuple:
        met[id(obj)] = len(met)
    parts = {key: _shape(part, met, namespace) for key, part in _parts(obj, namespace)}
    return (type(obj).__name__, parts)


def _parts(obj: Any, namespace: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    if isinstance(obj, CONTAINERS):
        yield from ((str(place), part) for place, part in enumerate(obj))
        yield "maxlen", getattr(obj, "maxlen", None)
    elif isinstance(obj, set):
        yield "items", repr(sorted(obj))
    elif isinstance(obj, (dict, OrderedDict, defaultdict, Counter)):
        yield from ((f"{place} {key!r}", part) for place, (key, part) in enumerate(obj.items()))
    elif isinstance(obj, types.FunctionType):
        yield "code", repr((obj.__name__, obj.__code__.co_code, obj.__code__.co_names))
        yield "own", obj.__globals__ is namespace
        yield "defaults", obj.__defaults__
        yield "dict", vars(obj)
        for place, cell in enumerate(obj.__closure__ or ()):
            yield f"cell {place}", cell
    elif isinstance(obj, types.CellType):
        yield "contents", obj.cell_contents
    elif isinstance(obj, type):
        yield "bases", tuple(base for base in obj.__bases__ if base is not object)
        for name, value in sorted(vars(obj).items()):
            if not name.startswith("__") or name == "__init__":
                yield name, value
    elif isinstance(obj, (bytearray, memoryview, array.array)):
        yield "contents", repr(bytes(obj))
    elif type(obj).__module__ == "numpy":
        yield "form", repr((obj.dtype, obj.shape, obj.flags.writeable))
        yield "elements", obj.tolist() if obj.dtype.hasobject else repr(obj.tolist())
    elif isinstance(obj, random.Random):
        yield "state", repr(obj.getstate()[1][-5:])
    elif isinstance(obj, types.MethodType):
        yield "function", obj.__func__
        yield "self", obj.__self__
    else:
        yield "class", type(obj)
        if isinstance(obj, BaseException):
            yield "args", obj.args
        yield from sorted(vars(obj).items())
