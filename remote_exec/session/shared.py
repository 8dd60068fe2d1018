"""What two namespaces share: objects by numbers that both ends know, and names whose values they agree on.

Nothing is kept alive here that can be held weakly: an object that no name leads to goes, and its number with it.
"""

from __future__ import annotations

import hashlib
import weakref
from array import array
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any

from .content import Look
from .frames import Blocks
from .kinds import kind_of
from .kinds_of_arrays import ARRAY, TENSOR
from .memory import Extent, extent_of, without

CHANGED = b"?"  # the digest of what is to be told whatever it is now
STAYS = b""  # the digest of what stays at one end

Ranges = Sequence[Extent]


class _Strong:
    """As a weak reference, for what cannot be held weakly."""

    __slots__ = ("_held",)

    def __init__(self, held: Any) -> None:
        self._held = held

    def __call__(self) -> Any:
        return self._held


class _Weak(weakref.ref[Any]):
    """A weak reference that knows whose it is."""

    __slots__ = ("key", "number")
    key: int
    number: int

    @classmethod
    def of(cls, held: Any, died: Callable[[Any], None], number: int) -> _Weak:
        """Return one."""
        made = cls(held, died)
        made.key = id(held)
        made.number = number
        return made


class _Entry:
    """What is known of a shared object.

    Attributes:
        held: returns it.
        form: what it had when both ends agreed on it; of an object that has no kind, the digest of what it holds.
        memory: digests of the pieces of its memory then.
    """

    __slots__ = ("form", "held", "memory")

    def __init__(self, held: Callable[[], Any], form: Any) -> None:
        self.held = held
        self.form = form
        self.memory: tuple[bytes, ...] = ()


class Known:
    """What both ends agree on about a name's value.

    Attributes:
        digest: of it, and which shared objects are in it.
        numbers: of these.
    """

    __slots__ = ("_held", "digest", "numbers")

    def __init__(self, value: Any, digest: bytes, numbers: frozenset[int]) -> None:
        self._held = _holding(value)
        self.digest = digest
        self.numbers = numbers

    def value(self) -> Any:
        """Return it; None where it is no more."""
        return self._held()

    def is_of(self, value: Any) -> bool:
        """Whether it is this very value."""
        return self._held() is value and (value is not None or type(self._held) is _Strong)


def _holding(value: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(value)
    except TypeError:
        return _Strong(value)


class Shared:
    """See the module's docstring.

    Args:
        first: 0 at one end, 1 at the other: each gives numbers of its own.

    Attributes:
        numbers: identity -> number.
        next: the number of the next object that this end shares.
        names: what is known of names.
        gone: numbers that the other end is to forget.
        leads: whether what this end has holds where the ends differ; beside what the other has just been at.
        arrays: numbers of the arrays and tensors.
        blocks: of pandas, that have been met.
    """

    def __init__(self, first: int) -> None:
        self.next = first
        self.leads = not first
        self.numbers: dict[int, int] = {}
        self.names: dict[str, Known] = {}
        self.gone: list[int] = []
        self.arrays: set[int] = set()
        self.blocks: Blocks = Blocks()
        self._entries: dict[int, _Entry] = {}
        self._uses: Counter[int] = Counter()
        own = weakref.ref(self)

        def died(ref: Any) -> None:
            table = own()
            if table is not None and table._entries.get(ref.number) is not None:
                table.drop(ref.number, key=ref.key)

        self._died = died

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, number: int) -> Any:
        """Return the object that has a number.

        Raises:
            KeyError: there is none.
        """
        return self._entries[number].held()

    def entry(self, number: int) -> _Entry:
        """Return what is known of a shared object."""
        return self._entries[number]

    def __contains__(self, number: int) -> bool:
        return number in self._entries

    def add(self, number: int, obj: Any) -> _Entry:
        """Share an object from now on."""
        try:
            held: Callable[[], Any] = _Weak.of(obj, self._died, number)
        except TypeError:
            held = _Strong(obj)
        kind = kind_of(obj)
        self.numbers[id(obj)] = number
        entry = self._entries[number] = _Entry(held, kind.form(obj) if kind is not None else None)
        if kind is ARRAY or kind is TENSOR:
            self.arrays.add(number)
        return entry

    def replace(self, before: Any, after: Any) -> None:
        """Another object takes the place of a shared one; nothing where that is not shared."""
        number = self.numbers.get(id(before))
        if number is not None:
            memory, uses = self._entries[number].memory, self._uses[number]
            self.drop(number, tell=False)
            self.add(number, after).memory = memory
            self._uses[number] = uses

    def add_next(self, obj: Any) -> int:
        """Share an object under a new number of this end's."""
        number, self.next = self.next, self.next + 2
        self.add(number, obj)
        return number

    def drop(self, number: int, *, tell: bool = True, key: int | None = None) -> None:
        """Share an object no longer."""
        entry = self._entries.pop(number, None)
        if entry is None:
            return
        key = id(entry.held()) if key is None else key
        self.arrays.discard(number)
        if self.numbers.get(key) == number:
            del self.numbers[key]
        self._uses.pop(number, None)
        if tell:
            self.gone.append(number)

    def drop_unused(self, numbers: Iterable[int]) -> None:
        """Share those objects no longer that no name leads to."""
        for number in numbers:
            if self._uses[number] <= 0:
                del self._uses[number]
                self.drop(number)

    # --- names --------------------------------------------------------------------------------------------------

    def agree(self, told: Mapping[str, tuple[Any, Look | None]]) -> None:
        """Both ends agree on what names stand for.

        Args:
            told: name -> its value, and a look at it; None where it stays at one end.
        """
        former = [self.names.pop(name) for name in told if name in self.names]
        for name, (value, found) in told.items():
            numbers = self.numbers_in(found) if found is not None else frozenset[int]()
            self._uses.update(numbers)
            self.names[name] = Known(value, self.digest(found) if found is not None else STAYS, numbers)
        for known in former:
            self._let_go(known.numbers)

    def disagree(self, name: str, value: Any, numbers: Iterable[int]) -> None:
        """A name's value is to be told again; objects in it are still shared."""
        kept = frozenset(number for number in numbers if number in self._entries)
        self._uses.update(kept)
        former = self.names.pop(name, None)
        self.names[name] = Known(value, CHANGED, kept)
        if former is not None:
            self._let_go(former.numbers)

    def leave(self, name: str) -> None:
        """A name stands for nothing both ends know any longer."""
        former = self.names.pop(name, None)
        if former is not None:
            self._let_go(former.numbers)

    def doubt(
        self, told: Mapping[int, Ranges], names: Container[str], seen: Container[int] = frozenset()
    ) -> None:
        """One end tells of contents: what was agreed on of others than these names, of which these are a part, ends.

        Args:
            told: numbers of objects whose contents are told of -> where those lie, of arrays.
            names: that are agreed on now.
            seen: numbers of arrays whose memory is known as it is now.
        """
        numbers = set(told)
        arrays = told.keys() & self.arrays
        changed = [extent for extents in told.values() for extent in extents]
        if changed:
            for number in self.arrays - arrays:
                extent = extent_of(self[number])
                if extent is not None and any(
                    one.low < extent.high and extent.low < one.high for one in changed
                ):
                    numbers.add(number)
            for number in self.arrays & numbers:
                entry = self._entries[number]
                if entry.memory and number not in seen:
                    entry.memory = without(entry.memory, extent_of(entry.held()), changed)
        for name, known in self.names.items():
            if name not in names and known.digest != STAYS and not numbers.isdisjoint(known.numbers):
                known.digest = CHANGED

    def doubt_memory(self, numbers: Iterable[int]) -> None:
        """It is not known what arrays hold at the other end."""
        for number in numbers:
            if number in self._entries:
                self._entries[number].memory = ()

    def _let_go(self, numbers: frozenset[int]) -> None:
        self._uses.subtract(numbers)
        self.drop_unused(numbers)

    def forget(self) -> None:
        """Share nothing: every name's value is to be told again."""
        for name, known in list(self.names.items()):
            if known.digest != STAYS:
                self.names[name] = Known(known.value(), CHANGED, frozenset())
        self.numbers.clear()
        self._entries.clear()
        self.arrays.clear()
        self._uses.clear()
        self.gone.clear()

    # --- looks --------------------------------------------------------------------------------------------------

    def digest(self, found: Look) -> bytes:
        """Return the digest of what was found, and of which shared objects are where in it."""
        places = sorted((found.memo[key][0], self.numbers[key]) for key in self._shared_keys(found))
        packed = array("Q", [part for place in places for part in place])
        return found.digest + hashlib.sha256(packed).digest()

    def shares(self, found: Look) -> bool:
        """Whether there are shared objects in what was looked at."""
        return not self.numbers.keys().isdisjoint(found.memo)

    def inside_out(self, looks: Iterable[Look]) -> list[int]:
        """Return the numbers of the shared objects that were met, what others hold before these as far as that goes."""
        numbers: dict[int, None] = {}
        for found in looks:
            places = sorted(
                ((found.memo[key][0], self.numbers[key]) for key in self._shared_keys(found)), reverse=True
            )
            numbers.update((number, None) for _, number in places)
        return list(numbers)

    def numbers_in(self, found: Look) -> frozenset[int]:
        """Return the numbers of the shared objects that were met."""
        return frozenset(self.numbers[key] for key in self._shared_keys(found))

    def _shared_keys(self, found: Look) -> Iterable[int]:
        return self.numbers.keys() & found.memo.keys()
