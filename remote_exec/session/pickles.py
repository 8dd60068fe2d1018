"""The pickles of one end of a session: looks at what objects hold, and what is told of them by shared numbers."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

from .content import SPACE, Digest, Look, ValuePickler, pickler_of
from .content import look as look_at
from .kept import Kept, KeptHere
from .kinds import kind_of
from .kinds_of_arrays import NOTHING, only_changes, place_of
from .shared import Shared
from .updates import Parts

MOST_OBJECTS = 20_000  # in what is told at once; beyond that only what has a name is known one by one
MOST_WITHOUT_KIND = 500  # the same, of objects whose contents cannot be replaced: each is looked at by itself
ATOMS = frozenset({int, float, complex, bool, str, bytes, type(None), type(Ellipsis), range})
PLAIN = frozenset({tuple, frozenset})  # known one by one only where they have a name
NEVER_KNOWN = ATOMS | {ModuleType, BuiltinFunctionType, CodeType, type(SPACE), Kept}


class SharedPickler(ValuePickler):
    """Names what both ends know by its number."""

    number_of: Callable[[Any], int | None]

    def persistent_id(self, obj: Any) -> int | None:
        return self.number_of(obj)


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

    def pickler(self, parts: Parts, looks: list[Look]) -> Any:
        """Return a pickler that names what both ends know, of what was looked at."""
        shares = any(self._shared.shares(found) for found in looks)  # asking for each object takes its time
        made = pickler_of(
            SharedPickler if shares else ValuePickler, parts, self._namespace, self._keeping.stands_for
        )
        made.number_of = self.namer()
        return made

    def look(self, value: Any, most_bytes: int | None = None) -> Look:
        stands_for = self._keeping.stands_for
        return look_at(stands_for.get(id(value), value), self._namespace, stands_for, most_bytes)

    def dump_contents(self, pickler: Any, parts: Parts, looks: list[Look]) -> array[int]:
        told = array("Q")
        memory = {place: digests for found in looks for place, digests in found.memory.items()}
        numbers = self._shared.inside_out(looks)
        for number in numbers:
            if number in self._shared:
                pickler.number_of(self._shared[number])
        for number in numbers:
            if number not in self._shared or (kind := kind_of(held := self._shared[number])) is None:
                continue
            contents = kind.take(held)
            place = place_of(held)
            if place in memory:
                entry = self._shared.entry(number)
                contents = only_changes(held, contents, entry.memory, memory[place])
                entry.memory = memory[place]
            if contents is not NOTHING:
                pickler.dump(contents)
                parts.mark()
                told.append(number)
        return told

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
        named = {id(value) for value in self._namespace.values()} & memo.keys()
        few = len(memo) <= MOST_OBJECTS
        # What is in both pickles is no object that pickling has made.
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


def _first(pair: tuple[int, Any]) -> int:
    return pair[0]
