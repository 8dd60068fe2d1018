"""One end of two namespaces that are kept the same: what has changed, and taking in what the other end says has.

Both ends know certain objects by the same numbers. Such an object is told of by its number, and its contents are put
into it in place, so that it stays the object that it is for all who hold it; what has not changed is not told at all.
The ends take turns: while one changes its namespace, the other waits.
"""

from __future__ import annotations

import io
import pickle
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ..serial import pickling
from .content import Loading, Look, ValuePickler, look, pickler_of
from .kept import Kept
from .kinds import ARRAY, kind_of
from .scoping import names_of_function

MOST_OBJECTS = 200_000  # in what is told at once; beyond that only what has a name is known one by one
_ATOMS = frozenset({int, float, complex, bool, str, bytes, type(None), type(Ellipsis), range})
_NEVER_KNOWN = _ATOMS | {tuple, frozenset}


class Update(NamedTuple):
    """What one end tells the other.

    Attributes:
        stream: pickles: the names and what they stand for, contents of known objects, None.
        buffers: memory that they refer to.
        deleted: names that are no more.
        modules: that are needed to load it, or that code which it brings looks into.
        first: the number of the first object that is known from now on.
        fresh: where in the pickles' memo those objects are, as packed unsigned integers.
        gone: numbers of objects that are not known any longer, packed.
    """

    stream: bytes
    buffers: list[Any]
    deleted: tuple[str, ...]
    modules: frozenset[str]
    first: int
    fresh: bytes
    gone: bytes

    @property
    def size(self) -> int:
        """Its bytes."""
        return len(self.stream) + sum(memoryview(buffer).nbytes for buffer in self.buffers)


class _Known(NamedTuple):
    """What is known of a name's value: the same at both ends."""

    value: Any
    digest: bytes
    numbers: frozenset[int]


class Reach(NamedTuple):
    """What names lead to.

    Attributes:
        looks: at what each name stands for; those without one have not changed.
        changed: the names that mean something new to the other end.
        cannot: names of what cannot travel, with what its pickling raised.
    """

    looks: dict[str, Look]
    changed: list[str]
    cannot: dict[str, Exception]


class _SharedPickler(ValuePickler):
    """Names what both ends know by its number."""

    number_of: Callable[[Any], int | None]

    def persistent_id(self, obj: Any) -> int | None:
        return self.number_of(obj)


class _SharedUnpickler(pickle.Unpickler):
    objects: Mapping[int, Any]

    def persistent_load(self, pid: Any) -> Any:
        return self.objects[pid]


class Mirror:
    """See the module's docstring.

    Args:
        namespace: this end's.
        first: 0 at one end, 1 at the other: each gives numbers of its own.
        own: names that are this end's alone.
    """

    def __init__(self, namespace: dict[str, Any], *, first: int, own: Callable[[str], bool]) -> None:
        self.namespace = namespace
        self.kept: dict[int, Any] = {}
        self._own = own
        self._next = first
        self._numbers: dict[int, int] = {}
        self._objects: dict[int, Any] = {}
        self._forms: dict[int, Any] = {}
        self._memory: dict[int, bytes] = {}
        self._known: dict[str, _Known] = {}
        self._uses: Counter[int] = Counter()
        self._gone: list[int] = []

    # --- what there is to tell ----------------------------------------------------------------------------------

    def reach(self, names: Iterable[str]) -> Reach:
        """Follow names, and those that functions among what they stand for use."""
        looks: dict[str, Look] = {}
        changed: list[str] = []
        cannot: dict[str, Exception] = {}
        pending, seen = list(names), set[str]()
        while pending:
            name = pending.pop()
            if name in seen or name not in self.namespace or self._own(name):
                continue
            seen.add(name)
            value, known = self.namespace[name], self._known.get(name)
            same = known is not None and known.value is value
            if known is not None and same and (type(value) in _ATOMS or not known.digest):
                continue  # nor does what stays at one end change for the other
            try:
                found = looks[name] = look(value, self.namespace)
            except Exception as error:
                cannot[name] = error
                continue
            if not same or known is None or known.digest != found.digest:
                changed.append(name)
            for function in found.functions:
                if function.__globals__ is self.namespace:
                    pending += names_of_function(function).could_read(self.namespace)
        return Reach(looks, changed, cannot)

    def rebound(self) -> list[str]:
        """Return the names that have come to stand for something else since both ends agreed on them."""
        return [
            name
            for name, value in self.namespace.items()
            if not self._own(name) and (name not in self._known or self._known[name].value is not value)
        ]

    def deleted(self) -> list[str]:
        """Return the names that are no more."""
        return [name for name in self._known if name not in self.namespace]

    def update(self, reach: Reach, *, instead: Mapping[str, Kept] | None = None) -> Update:
        """Return what to tell of what has changed, and take it for told.

        Args:
            reach: what was found, just now.
            instead: what to tell of instead of some names' own values.
        """
        instead = instead or {}
        parts = pickling._Chunks()
        pickler = pickler_of(_SharedPickler, parts, parts, self.namespace)
        met: dict[int, None] = {}
        pickler.number_of = self._namer(met)
        pickler.dump({name: instead.get(name, self.namespace[name]) for name in reach.changed})
        looks = [reach.looks[name] for name in reach.changed if name not in instead]
        memory = {place: digest for found in looks for place, digest in found.memory.items()}
        told = 0
        while told < len(met):
            number = list(met)[told]
            told += 1
            held = self._objects[number]
            kind = kind_of(held)
            if kind is None or (kind is ARRAY and self._is_told(number, held, memory)):
                continue
            pickler.dump((number, kind.take(held)))
        pickler.dump(None)
        first = self._next
        fresh = self._learn_sent(pickler, looks)
        deleted = self.deleted()
        self._agree({name: None if name in instead else reach.looks[name] for name in reach.changed}, deleted)
        gone, self._gone = self._gone, []
        modules = frozenset(pickler.named.modules).union(*(found.modules for found in looks))
        stream = b"".join(part for part in parts if type(part) is not pickle.PickleBuffer)
        buffers = [part for part in parts if type(part) is pickle.PickleBuffer]
        packed = array("Q", gone).tobytes()
        return Update(stream, buffers, tuple(deleted), modules, first, fresh, packed)

    def _namer(self, met: dict[int, None]) -> Callable[[Any], int | None]:
        numbers, objects, forms = self._numbers, self._objects, self._forms

        def number_of(obj: Any) -> int | None:
            number = numbers.get(id(obj))
            if number is None:
                return None
            if number not in met:
                kind = kind_of(objects[number])
                if kind is None or kind.form(obj) != forms[number]:  # it cannot become that in place
                    self._gone.append(number)
                    self._drop(number)
                    return None
                met[number] = None
            return number

        return number_of

    def _is_told(self, number: int, held: Any, memory: dict[tuple[int, int], bytes]) -> bool:
        place = (held.__array_interface__["data"][0], held.nbytes)
        return place in memory and self._memory.get(number) == memory[place]

    # --- what the other end tells -------------------------------------------------------------------------------

    def apply(self, update: Update) -> list[str]:
        """Take in what the other end tells; return the names that it told of.

        Raises:
            Exception: it cannot be loaded here; then nothing has changed.
        """
        unpickler = _SharedUnpickler(io.BytesIO(update.stream), buffers=update.buffers)
        unpickler.objects = self._objects
        contents: list[tuple[int, Any]] = []
        with Loading(self.namespace, self.kept):
            bound = unpickler.load()
            while (told := unpickler.load()) is not None:
                contents.append(told)
        for number, content in contents:
            held = self._objects[number]
            kind = kind_of(held)
            if kind is not None:
                kind.put(held, content)
        self.namespace.update(bound)
        for name in update.deleted:
            self.namespace.pop(name, None)
        self._learn_received(unpickler, update)
        looks = {name: None if type(value) is Kept else look(value, self.namespace) for name, value in bound.items()}
        self._agree(looks, update.deleted)
        for number in array("Q", update.gone):
            self._drop(number)
        return list(bound)

    # --- what both ends know ------------------------------------------------------------------------------------

    def _learn_sent(self, pickler: Any, looks: list[Look]) -> bytes:
        """Number the objects that were told of for the first time; return where they are in the pickles' memo."""
        memo: dict[int, tuple[int, Any]] = pickler.memo.copy()
        if len(memo) > MOST_OBJECTS:
            candidates = {id(value) for value in self.namespace.values()} & memo.keys()
        else:
            candidates = set().union(*(found.objects.keys() for found in looks)) & memo.keys()
        by_value: set[int] = pickler.by_value_ids
        found: list[tuple[int, Any]] = []
        attributes: set[int] = set()
        for key in candidates - self._numbers.keys():
            index, obj = memo[key]
            if type(obj) in _NEVER_KNOWN or kind_of(obj) is None:
                continue
            is_code = isinstance(obj, (type, _FUNCTION))
            if is_code and key not in by_value:
                continue
            own = getattr(obj, "__dict__", None)
            if own is not None and not isinstance(obj, type):
                attributes.add(id(own))
            found.append((index, obj))
        fresh = array("I")
        for index, obj in sorted(found, key=_first):
            if id(obj) not in attributes:
                fresh.append(index)
                self._number(self._next, obj)
                self._next += 2
        return fresh.tobytes()

    def _learn_received(self, unpickler: Any, update: Update) -> None:
        memo = unpickler.memo.copy()
        for number, index in enumerate(array("I", update.fresh)):
            self._number(update.first + 2 * number, memo[index])

    def _number(self, number: int, obj: Any) -> None:
        kind = kind_of(obj)
        self._numbers[id(obj)] = number
        self._objects[number] = obj
        self._forms[number] = kind.form(obj) if kind is not None else None

    def _drop(self, number: int) -> None:
        if number in self._objects:
            self._numbers.pop(id(self._objects.pop(number)), None)
            self._forms.pop(number, None)
            self._memory.pop(number, None)
            self._uses.pop(number, None)

    def _agree(self, looks: Mapping[str, Look | None], deleted: Iterable[str]) -> None:
        """Both ends agree on what names stand for.

        Args:
            looks: name -> a look at its value; None where it stays at one end.
            deleted: names that are no more.
        """
        former = [self._known.pop(name) for name in (*looks, *deleted) if name in self._known]
        for name, found in looks.items():
            numbers = self._numbers_in(found) if found is not None else frozenset()
            self._uses.update(numbers)
            self._known[name] = _Known(self.namespace[name], found.digest if found is not None else b"", numbers)
        for number in [number for known in former for number in known.numbers]:
            self._uses[number] -= 1
            if self._uses[number] <= 0:
                self._gone.append(number)
                self._drop(number)

    def _numbers_in(self, found: Look) -> frozenset[int]:
        numbers = {key: self._numbers[key] for key in found.objects.keys() & self._numbers.keys()}
        for key, number in numbers.items():
            obj = found.objects[key]
            if kind_of(obj) is ARRAY:
                place = (obj.__array_interface__["data"][0], obj.nbytes)
                if place in found.memory:
                    self._memory[number] = found.memory[place]
        return frozenset(numbers.values())


_FUNCTION = type(kind_of)


def _first(pair: tuple[int, Any]) -> int:
    return pair[0]


