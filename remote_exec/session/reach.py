"""Which global names the functions and classes touch that are met from some names of a namespace.

Follows what functions and classes are made of: code, cells, defaults, decorators, methods, bases, partials. Objects
that hold such are looked into as far as a few hundred go; what is in the depths of data is found by whoever pickles
it. No code of the user's runs: nothing is asked of an object but what CPython keeps.
"""

from __future__ import annotations

import functools
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import CellType, FunctionType, GetSetDescriptorType, MethodType, ModuleType
from typing import Any, cast

from .names import NO_NAMES, NONE, OPAQUE, Names, merged, words
from .scoping import Transform, names_of_function

MOST_DATA = 300  # objects that are no functions or classes, looked into for each name
MOST_ITEMS = 100  # in a container that is looked into

# How to get at what is in objects of these classes and their subclasses, whatever those define themselves.
_FIELDS: dict[type, tuple[str, ...]] = {
    MethodType: ("__func__", "__self__"),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    property: ("fget", "fset", "fdel"),
    functools.partial: ("func", "args", "keywords"),
}
# By identity: a class may define what it is equal to.
_CONTAINERS = frozenset(map(id, (list, tuple, set, frozenset, dict, deque)))
_ATOMS = frozenset(
    map(id, (type(None), bool, int, float, complex, str, bytes, bytearray, range, type(...), ModuleType))
)
_dict_of_class: Any = type.__dict__["__dict__"].__get__
_bases_of_class: Any = type.__dict__["__mro__"].__get__


def closure(names: Names, namespace: dict[str, Any], transform: Transform | None = None) -> Names:
    """Return the names that code touches together with all functions and classes of its namespace that it may use.

    Args:
        names: what the code itself touches.
        namespace: whose functions, those with these very `__globals__`, are followed.
        transform: as for `scoping.names_of`.

    Returns:
        Names: more than there are, if something is opaque: then any name may be touched.
    """
    return _Reach(namespace, transform).all_of(names)


class _Reach:
    """What has been met from a namespace. Keeps what it has seen alive, so that an `id` stays one object's."""

    def __init__(self, namespace: dict[str, Any], transform: Transform | None) -> None:
        self._namespace = namespace
        self._home = namespace.get("__name__", "__main__")
        self._transform = transform
        self._seen: dict[int, object] = {}

    def all_of(self, names: Names) -> Names:
        followed: frozenset[str] = frozenset()
        found, reached = names, NO_NAMES
        while not found.opaque and (new := found.could_read(self._namespace) - followed):
            followed |= new
            values = [self._namespace[name] for name in new if name != "get_ipython"]  # all is in the shell
            met = [OPAQUE if self._is_namespace(value) else self._names_met(value) for value in values]
            reached = merged((reached, *met))
            found = names | reached
        unsure = found.opaque or reached.star
        return replace(found, certain=NONE if unsure else names.certain - reached.binds - reached.deletes)

    def _names_met(self, start: object) -> Names:
        """Return what the functions touch that are met from an object, but not what their names lead to."""
        found: list[Names] = []
        pending = deque([start])
        data_left = MOST_DATA
        while pending:
            value = pending.popleft()
            if id(type(value)) in _ATOMS or id(value) in self._seen or value is self._namespace:
                continue
            if not issubclass(type(value), (FunctionType, type, CellType, *_FIELDS)):
                if data_left <= 0:
                    continue
                data_left -= 1
            self._seen[id(value)] = value
            if type(value) is FunctionType and value.__globals__ is self._namespace:
                found.append(names_of_function(value, self._transform))
            found.append(self._annotated(value))
            pending.extend(self._parts(value))
        return merged(found)

    def _is_namespace(self, value: object) -> bool:
        return value is self._namespace or (type(value) is ModuleType and vars(value) is self._namespace)

    def _annotated(self, value: object) -> Names:
        """Annotations that are text: data classes, validation and dispatch look their names up."""
        told: object = None
        if (
            type(value) is FunctionType
            and sys.version_info < (3, 14)
            and value.__globals__ is self._namespace
        ):
            told = value.__annotations__
        elif issubclass(type(value), type) and self._is_home(cast("type", value)):
            told = _dict_of_class(value).get("__annotations__")
        if type(told) is not dict:
            return NO_NAMES
        return Names(
            reads=words(*(text for text in cast("dict[str, object]", told).values() if type(text) is str))
        )

    def _parts(self, value: Any) -> Iterator[object]:
        kind: Any = cast("Any", type(value))
        if kind is CellType:
            try:
                yield value.cell_contents
            except ValueError:  # it is empty
                pass
        elif kind is FunctionType:
            yield from value.__closure__ or ()
            yield from value.__defaults__ or ()
            yield from (value.__kwdefaults__ or {}).values()
            yield from _attributes(value)
        elif issubclass(kind, type):
            if self._is_home(value):
                yield kind
                yield from _bases_of_class(value)
                yield from list(_dict_of_class(value).values())
        elif id(kind) in _CONTAINERS:
            if len(value) <= MOST_ITEMS:
                yield from list(value)
                if kind is dict:
                    yield from list(value.values())
        else:
            for base, fields in _FIELDS.items():
                if issubclass(kind, base):
                    for field in fields:
                        yield base.__dict__[field].__get__(value)
            yield kind
            yield from _attributes(value)

    def _is_home(self, cls: type) -> bool:
        module: object = _dict_of_class(cls).get("__module__")
        return type(module) is str and module == self._home


def _attributes(value: object) -> Iterator[object]:
    """What an object's own dictionary holds, got without asking its class for it."""
    for cls in _bases_of_class(type(value)):
        own: Mapping[str, object] = _dict_of_class(cls)
        if "__dict__" in own:
            descriptor = own["__dict__"]
            if type(descriptor) is GetSetDescriptorType:
                held: object = descriptor.__get__(value)
                if type(held) is dict and len(cast("dict[str, object]", held)) <= MOST_ITEMS:
                    yield from list(cast("dict[str, object]", held).values())
            return
