"""The pickles of one end of a session: looks at what objects hold, and what is told of them by shared numbers."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Container, Iterator, Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

from . import frames
from .content import SPACE, Digest, Look, ValuePickler, pickler_of
from .content import look as look_at
from .kept import Kept, KeptHere
from .kinds import kind_of
from .kinds_of_arrays import ARRAY, TENSOR, apart_from, is_array, is_tensor, only_changes, place_of
from .memory import Extent, buffer_of, covered, plan, ranges_of
from .memory_parts import filled, laid_in
from .shared import Shared
from .updates import Parts

MOST_OBJECTS = 300_000  # in what is told at once; beyond that only what has a name is known one by one
MOST_WITHOUT_KIND = 500  # the same, of objects whose contents cannot be replaced: each is looked at by itself
ATOMS = frozenset({int, float, complex, bool, str, bytes, type(None), type(Ellipsis), range})
PLAIN = frozenset({tuple, frozenset})  # known one by one only where they have a name
NEVER_KNOWN = ATOMS | {ModuleType, BuiltinFunctionType, CodeType, type(SPACE), Kept}


class SharedPickler(ValuePickler):
    """Names what both ends know by its number."""

    number_of: Callable[[Any], int | None]

    def persistent_id(self, obj: Any) -> int | None:
        return self.number_of(obj)


class MemoryTold(NamedTuple):
    """How arrays are told of that share memory.

    Attributes:
        parts: identity -> how an array is taken apart that lies in another one.
        storages: address -> how a tensor's storage is taken apart that lies in another array.
        again: names of what holds arrays that must be told of as others.
        wholes: looks at what arrays are parts of, and was not met: what it holds is to be told, too.
    """

    parts: dict[int, Any]
    storages: dict[int, Any]
    again: list[str]
    wholes: list[Look]


class Pickles:
    """See the module's docstring.

    Args:
        namespace: of this end.
        shared: what both ends know.
        keeping: what stays at either end.
    """

    def __init__(self, namespace: dict[str, Any], shared: Shared, keeping: KeptHere) -> None:
        self._namespace = namespace
        self._shared = shared
        self._keeping = keeping

    def plan_memory(
        self, told: Container[str], looks_at: Mapping[str, Look], former: list[Look]
    ) -> MemoryTold:
        """Plan how new arrays are told of that share memory. What must be told of as another one is shared no longer.

        Args:
            told: names that are told of.
            looks_at: names that could be told of, too.
            former: looks at what has lost its name, and is told of.
        """
        shared, number_of = self._shared, self.namer()
        looks = [*looks_at.values(), *former]
        for found in looks:
            shared.blocks.update(found.blocks)
        new_looks = [*(found for name, found in looks_at.items() if name in told), *former]
        arrays = {id(one): one for found in new_looks for one in found.arrays}
        new = [one for one in arrays.values() if number_of(one) is None]
        known = [one for number in list(shared.arrays) if number_of(one := shared[number]) is not None]
        arrays_only = filter(is_array, (*new, *known))
        buffers = {id(one): one for array in arrays_only if (one := buffer_of(array)) is not None}
        for key, buffer in buffers.items():
            if key in shared.numbers:
                known.append(buffer)
            elif any(key in found.memo for found in new_looks):
                new.append(buffer)
        if not new:
            return MemoryTold({}, {}, [], [])
        again = {id(one) for found in looks for one in found.arrays}
        again.update(key for key in buffers if any(key in found.memo for found in looks))
        apart = self.arrays_in_blocks() if frames.copies_on_write() else {}
        made = plan(new, known, again, apart, leads=shared.leads)
        for one in made.again:
            shared.drop(shared.numbers[id(one)])
        planned = MemoryTold(
            {}, {}, [name for name, found in looks_at.items() if holds_one_of(found, made.again)], []
        )
        wholes: dict[int, Any] = {}
        for extent, part in made.parts:
            whole = part[1][0]
            if part[0] is laid_in:
                part = filled(part, extent.holder)
            elif id(whole) in shared.numbers and id(whole) not in again:
                if shared.leads:
                    wholes[id(whole)] = whole
                else:  # what was not met has not changed here, and may have there
                    part = filled(part, extent.holder)
            if is_tensor(extent.holder):
                planned.storages[extent.low] = part
            else:
                planned.parts[id(extent.holder)] = part
        return planned._replace(wholes=[self.look(whole) for whole in wholes.values()])

    def arrays_in_blocks(self) -> dict[int, Any]:
        """Return the identities of the arrays that are the values of pandas' blocks, with these."""
        return dict(frames.arrays_of(self._shared.blocks))

    def pickler(self, parts: Parts, looks: list[Look], memory: MemoryTold) -> Any:
        """Return a pickler that names what both ends know, of what was looked at."""
        shares = (
            memory.parts or memory.storages or any(map(self._shared.shares, looks))
        )  # to ask for each object takes its time
        made = pickler_of(
            SharedPickler if shares else ValuePickler, parts, self._namespace, self._keeping.stands_for
        )
        made.number_of = self.namer()
        made.parts, made.storage_parts = memory.parts, memory.storages
        return made

    def look(self, value: Any, most_bytes: int | None = None) -> Look:
        stands_for = self._keeping.stands_for
        return look_at(stands_for.get(id(value), value), self._namespace, stands_for, most_bytes)

    def dump_contents(
        self, pickler: Any, parts: Parts, looks: list[Look], names: Container[str]
    ) -> array[int]:
        """Tell of the contents of shared objects; return which.

        Args:
            pickler: into which.
            parts: its file.
            looks: at what is told of.
            names: that have been looked at.
        """
        told: dict[int, list[Extent]] = {}
        memory = {place: digests for found in looks for place, digests in found.memory.items()}
        numbers = self._shared.inside_out(looks)
        for number in numbers:
            if number in self._shared:
                pickler.number_of(self._shared[number])
        arrays = [self._shared[number] for number in numbers if number in self._shared.arrays]
        told_with_others = covered(one for one in arrays if is_array(one)) if len(arrays) > 1 else set[int]()
        if told_with_others and frames.copies_on_write():
            told_with_others -= self.arrays_in_blocks().keys()
        for number in numbers:
            if number not in self._shared or (kind := kind_of(held := self._shared[number])) is None:
                continue
            contents = kind.take(held)
            place = place_of(held)
            if place in memory:
                entry = self._shared.entry(number)
                contents = only_changes(held, contents, entry.memory, memory[place])
                entry.memory = memory[place]
            if id(held) in told_with_others:
                contents = None, *contents[1:]
            elif kind is TENSOR and place is not None and place[0] in pickler.storage_parts:
                contents = apart_from(contents)  # which would be told of as a part of itself
            pickler.dump(contents)
            parts.mark()
            told[number] = ranges_of(held, contents) if kind is ARRAY or kind is TENSOR else []
        self._shared.doubt(told, names, frozenset(numbers))
        return array("Q", told)

    def namer(self) -> Callable[[Any], int | None]:
        """Return what tells the number of an object that can be told of by it."""
        shared, numbers = self._shared, self._shared.numbers
        met: set[int] = set()

        def number_of(obj: Any) -> int | None:
            number = numbers.get(id(obj))
            if number is None or number in met:
                return number
            met.add(number)
            kind = kind_of(obj)
            form = kind.form(obj) if kind is not None else self.probe(obj, number_of)
            if form != shared.entry(number).form:  # it cannot become that in place
                shared.drop(number)
                return None
            return number

        return number_of

    def probe(self, obj: Any, number_of: Callable[[Any], int | None]) -> bytes:
        """Return the digest of what an object holds, beside shared objects; empty where that cannot be told."""
        file = Digest()
        pickler = pickler_of(SharedPickler, file, self._namespace, self._keeping.stands_for)

        def number_in_it(met: Any) -> int | None:
            return None if met is obj else number_of(met)

        pickler.number_of = number_in_it
        try:
            pickler.dump(obj)
        except Exception:
            return b""
        return file.finish()[0]

    def learn_sent(self, pickler: Any, looks: list[Look]) -> bytes:
        """Number the objects that were told of for the first time; return where they are in the pickles' memo."""
        memo: dict[int, tuple[int, Any]] = pickler.memo.copy()
        named = {id(value) for value in list(self._namespace.values())} & memo.keys()
        few = len(memo) <= MOST_OBJECTS
        # What is in both pickles is no object that pickling has made.
        if not few:
            named.update(id(one) for found in looks for one in found.arrays if id(one) in memo)
            named |= _met_twice(looks) & memo.keys()
        candidates = set[int]().union(*(found.memo.keys() & memo.keys() for found in looks)) if few else named
        found: list[tuple[int, Any]] = []
        without_kind: list[tuple[int, Any]] = []
        attributes: set[int] = set()
        for key in candidates - self._shared.numbers.keys():
            index, obj = memo[key]
            if type(obj) in NEVER_KNOWN or (type(obj) in PLAIN and key not in named):
                continue
            if isinstance(obj, (type, FunctionType)) and key not in pickler.by_value_ids:
                continue
            own = getattr(obj, "__dict__", None)
            if own is not None and not isinstance(obj, type):
                attributes.add(id(own))
            (without_kind if kind_of(obj) is None else found).append((index, obj))
        if len(without_kind) > MOST_WITHOUT_KIND:
            without_kind = [(index, obj) for index, obj in without_kind if id(obj) in named]
        fresh = array("I")
        first = self._shared.next
        for index, obj in sorted(found + without_kind, key=_first):
            if id(obj) not in attributes:
                fresh.append(index)
                self._shared.add_next(obj)
        self.look_alone(range(first, self._shared.next, 2))
        for looked in looks:
            self.note_memory(looked)
        return fresh.tobytes()

    def look_alone(self, numbers: range) -> None:
        """Look at new shared objects that have no kind, each by itself."""
        known = self._shared.numbers

        def number_of(obj: Any) -> int | None:
            return known.get(id(obj))

        for number in numbers:
            obj = self._shared[number]
            if kind_of(obj) is None:
                self._shared.entry(number).form = self.probe(obj, number_of)

    def note_memory(self, found: Look) -> None:
        if not found.memory:
            return
        numbers = self._shared.numbers
        for key in numbers.keys() & found.memo.keys():
            place = place_of(found.memo[key][1])
            if place in found.memory:
                self._shared.entry(numbers[key]).memory = found.memory[place]


def _met_twice(looks: list[Look]) -> set[int]:
    """Return the identities of what several names lead to."""
    met, again = set[int](), set[int]()
    if len(looks) > 1:
        for found in looks:
            again |= met & found.memo.keys()
            met |= found.memo.keys()
    return again


def holds_one_of(found: Look, objects: list[Any]) -> bool:
    """Whether one of some objects is in what was looked at."""
    return any(id(one) in found.memo for one in objects)


def own_names(looked: Look, namespace: dict[str, Any]) -> Iterator[str]:
    """Names by which functions and classes are found by whoever pickles them there."""
    for key in looked.by_value:
        name: str = looked.memo[key][1].__qualname__ if key in looked.memo else ""
        if namespace.get(name) is not None and id(namespace[name]) == key:
            yield name


def _first(pair: tuple[int, Any]) -> int:
    return pair[0]
