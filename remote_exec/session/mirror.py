"""One end of two namespaces that are kept the same: what has changed, and taking in what the other end says has.

Both ends know certain objects by the same numbers. Such an object is told of by its number, and its contents are put
into it in place, so that it stays the object that it is for all who hold it; what has not changed is not told at all.
The ends take turns: while one changes its namespace, the other waits.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from ..model.collector import collector_paused
from .content import Loading, Look, TooBig, look
from .contents import Contents
from .former import Former
from .kept import LARGE, NOT_SENT, Handles, Kept, KeptHere
from .kinds_of_code import give_attributes
from .pickles import ATOMS, NEVER_KNOWN, PLAIN, Pickles, own_names
from .scoping import names_of_function
from .shared import CHANGED, STAYS, Shared
from .updates import NotLoaded, OutOfStep, Parts, Update, load

CODE = (ModuleType, FunctionType, type)
SMALL_BYTES = 16 << 20  # of what the other end may hold on to while a cell runs
_NOT_SENT = Kept(NOT_SENT, "value", 0, "it was not sent, since nothing reads it", "")


class Reach(NamedTuple):
    """What names lead to.

    Attributes:
        looks: at what each name stands for; those without one have not changed.
        changed: the names that mean something new to the other end.
        cannot: names of what cannot travel, with what its pickling raised.
        large: names of what is new to the other end, and more than the limit.
        deletes: names that are to be there, so that they can be deleted, whatever they stand for.
        aliased: names of objects that others beside the name may hold.
        former: what may have changed and lost its place then, while others may hold it at the other end.
    """

    looks: dict[str, Look]
    changed: list[str]
    cannot: dict[str, Exception]
    large: frozenset[str] = frozenset()
    deletes: frozenset[str] = frozenset()
    former: tuple[tuple[Any, Look], ...] = ()
    aliased: frozenset[str] = frozenset()


class _Told(NamedTuple):
    """What the last update told, as far as it must be known to take it back: no object is held for that."""

    names: dict[str, frozenset[int]]
    there: frozenset[str]
    contents: array[int]
    fresh: range
    gone: list[int]
    released: list[int]
    turn: int


class Mirror:
    """See the module's docstring.

    Args:
        namespace: this end's.
        first: 0 at one end, 1 at the other: each gives numbers of its own.
        own: names that are this end's alone.
        session: at home, what brings things from the other end.
        handles: at home, what stands for things of this session's and others' other ends.
    """

    def __init__(
        self,
        namespace: dict[str, Any],
        *,
        first: int,
        own: Callable[[str], bool],
        session: object = None,
        handles: Handles | None = None,
    ) -> None:
        self.namespace = namespace
        self._own = own
        self._shared = Shared(first)
        self._keeping = KeptHere(first, handles)
        self._keeping.session = session
        self._pickles = Pickles(namespace, self._shared, self._keeping)
        self._there: set[str] = set()
        self._refused: dict[str, tuple[bytes, NotLoaded]] = {}
        self._leads = not first  # what is deleted or bound there is deleted or bound here
        self._former = Former(namespace, self._shared, self._pickles)
        self._untold = set[str]()
        self._turn = 0
        self._last: _Told | None = None

    @property
    def kept(self) -> dict[int, Any]:
        """What stays at this end, by the numbers that the other end has for it."""
        return self._keeping.objects

    @property
    def agreed(self) -> frozenset[str]:
        """The names that there are at the other end, as far as this one has heard."""
        return frozenset(self._there)

    def shares(self, name: str) -> bool:
        """Whether both ends agree on what a name stands for here."""
        known = self._shared.names.get(name)
        return known is not None and name in self.namespace and known.is_of(self.namespace[name])

    @property
    def size(self) -> int:
        """How many objects both ends know."""
        return len(self._shared)

    # --- what there is to tell ----------------------------------------------------------------------------------

    @collector_paused()
    def reach(
        self, names: Iterable[str], *, deletes: Iterable[str] = (), most_bytes: int | None = None
    ) -> Reach:
        """Follow names, and those that functions among what they stand for use.

        Args:
            names: what is used, or may have changed.
            deletes: what may be deleted.
            most_bytes: of a value that the other end does not know yet; what is larger is not looked at to its end.
        """
        found = Reach({}, [], {})
        large, deleted, aliased = set[str](), set(deletes), set[str]()
        pending, seen = list(names), set[str]()
        while pending:
            name = pending.pop()
            if name in seen or name not in self.namespace or self._own(name):
                continue
            seen.add(name)
            held = sys.getrefcount(self.namespace[name]) > 2  # by more than the name and this call
            try:
                looked = self._look_again(name, found, most_bytes)
            except TooBig:
                large.add(name)
                continue
            except Exception as error:
                found.cannot[name] = error
                continue
            if looked is None:
                continue
            if self._leads and (held or looked.size <= SMALL_BYTES):
                aliased.add(name)
            pending += own_names(looked, self.namespace)
            for function in looked.functions:
                if function.__globals__ is self.namespace:
                    names_in = names_of_function(function)
                    pending += names_in.could_read(self.namespace)
                    deleted |= names_in.deletes
        deleted &= self.namespace.keys()
        return found._replace(
            large=frozenset(large),
            deletes=frozenset(deleted),
            former=tuple(self._former.changed(found.looks, found.changed)),
            aliased=frozenset(aliased),
        )

    def _look_again(self, name: str, found: Reach, most_bytes: int | None) -> Look | None:
        value, known = self.namespace[name], self._shared.names.get(name)
        same = known is not None and known.is_of(value)
        if name in self._untold and name in self._refused and id(value) in self._keeping.stands_for:
            raise self._refused[name][1]
        if known is not None and same:
            if known.digest == STAYS and self._leads and id(value) in self._keeping.stands_for:
                return self._look_whether_it_can(name, value, found)
            if known.digest == STAYS or (type(value) in ATOMS and known.digest != CHANGED):
                return None
            most_bytes = None
        looked = found.looks[name] = self._pickles.look(value, most_bytes)
        if known is None or not same or known.digest != self._shared.digest(looked):
            found.changed.append(name)
        return looked

    def _look_whether_it_can(self, name: str, value: Any, found: Reach) -> Look:
        """Look at what could not travel before, or not be loaded: something else may be in it now."""
        stands_for = {key: kept for key, kept in self._keeping.stands_for.items() if key != id(value)}
        looked = look(value, self.namespace, stands_for)
        if name in self._refused:
            digest, error = self._refused[name]
            if digest == looked.digest:
                raise error
            del self._refused[name]
        self._keeping.release(self._keeping.stands_for[id(value)].number)
        found.looks[name] = looked
        found.changed.append(name)
        return looked

    def rebound(self) -> list[str]:
        """Return the names that have come to stand for something else since both ends agreed on them."""
        known = self._shared.names
        return [
            name
            for name, value in list(self.namespace.items())  # a subshell's thread may bind others meanwhile
            if not (name in known and known[name].is_of(value) and name not in self._untold)
            and not self._own(name)
        ]

    def deleted(self) -> list[str]:
        """Return the names that are no more, and are still there at the other end."""
        return [name for name in self._there if name not in self.namespace]

    def prune(self) -> None:
        """Hold on to nothing that no name stands for any longer; to be called after each cell here."""
        here = set(
            map(id, list(self.namespace.values()))
        )  # what has another name now is not to be sent again
        for name, known in list(self._shared.names.items()):
            if id(known.value()) not in here:
                self._shared.leave(name)

    def _leave_former(self) -> None:
        for name, known in list(self._shared.names.items()):
            if name not in self.namespace or not known.is_of(self.namespace[name]):
                self._shared.leave(name)

    def keep(self, obj: Any, size: int, reason: str) -> Kept:
        """Let an object stay here; return what stands for it at the other end."""
        return self._keeping.keep(obj, size, reason)

    def stays(self, obj: Any) -> bool:
        """Whether an object stays here."""
        return id(obj) in self._keeping.stands_for

    @contextlib.contextmanager
    def letting_go(self, number: int) -> Generator[None, None, None]:
        """Tell of an object that stays here, by its number, as of any other meanwhile; 0: of none."""
        obj = self._keeping.objects.get(number)
        kept = self._keeping.stands_for.pop(id(obj), None) if number else None
        try:
            yield
        finally:
            if kept is not None:
                self._keeping.stands_for[id(obj)] = kept

    @collector_paused()
    def update(self, reach: Reach, *, instead: Mapping[str, Kept] | None = None) -> Update:
        """Return what to tell of what has changed, and take it for told.

        What cannot travel is told of as `Kept`.

        Args:
            reach: what was found, just now.
            instead: what to tell of instead of some names' own values.
        """
        if self._turn < 0:
            self.forget()
        stays = {
            name: self._keep_named(name, str(error))
            for name, error in reach.cannot.items()
            if not self._stays(name)
        }
        stays |= {name: self._keep_named(name, LARGE) for name in reach.large} | dict(instead or {})
        only_there = self._only_there(reach) - {*reach.changed, *stays} if self._leads else set[str]()
        stays |= dict.fromkeys(only_there, _NOT_SENT)
        former = [found for _, found in reach.former]
        memory = self._pickles.plan_memory({*reach.changed} - stays.keys(), reach.looks, former)
        names = list(dict.fromkeys([*reach.changed, *memory.again, *stays]))
        names.sort(
            key=lambda name: not isinstance(self.namespace[name], CODE)
        )  # what loading the others needs
        looks = {name: reach.looks[name] for name in names if name not in stays}
        hold = tuple(sorted(reach.aliased))
        parts = Parts()
        all_looks = [*looks.values(), *former, *memory.wholes]
        pickler = self._pickles.pickler(parts, all_looks, memory)
        contents = self._pickles.dump_contents(pickler, parts, all_looks, reach.looks)
        for name in names:
            value = self.namespace[name]
            stands_in = stays.get(name)
            pickler.dump(self._keeping.stands_for.get(id(value), value) if stands_in is None else stands_in)
            parts.mark()
        for value, _ in reach.former:
            pickler.dump(value)
            parts.mark()
        same = [name for name in looks if self._is_same(name)]
        told = {name: self._numbers_of(name) for name in names}
        deleted = self.deleted()
        first = self._shared.next
        fresh = self._pickles.learn_sent(pickler, all_looks)
        self._shared.agree({name: (self.namespace[name], looks.get(name)) for name in names})
        for name in only_there:
            self._shared.disagree(name, self.namespace[name], ())
        for name in deleted:
            self._shared.leave(name)
        self._leave_former()
        self._shared.drop_unused(range(first, self._shared.next, 2))
        self._former.let_go()
        gone, self._shared.gone = self._shared.gone, []
        released = self._keeping.take_released()
        self._last = _Told(
            told,
            frozenset(self._there),
            contents,
            range(first, self._shared.next, 2),
            gone,
            released,
            self._turn,
        )
        self._there = (self._there | set(names)) - set(deleted)
        self._untold.clear()
        self._turn += 1
        return Update(
            self._turn - 1,
            b"".join(parts.stream),
            parts.buffers,
            (*names, *("" for _ in reach.former)),
            parts.marks.tobytes(),
            contents.tobytes(),
            tuple(same),
            tuple(deleted),
            hold,
            frozenset(pickler.named.modules).union(*(found.modules for found in all_looks)),
            first,
            fresh,
            array("Q", gone).tobytes(),
            array("Q", released).tobytes(),
        )

    def _only_there(self, reach: Reach) -> set[str]:
        """Names that must be there at the other end while their values need not be.

        Those that may be deleted there; and those that have come to stand for something else here, for what they
        stood for must not pass there for what they stand for now.
        """
        stale = self._there.intersection(self.rebound()) if self._there else set[str]()
        return {name for name in reach.deletes - self._there if not self._own(name)} | stale

    def _stays(self, name: str) -> bool:
        known = self._shared.names.get(name)
        return (
            name not in self._untold
            and known is not None
            and known.digest == STAYS
            and known.is_of(self.namespace[name])
        )

    def _keep_named(self, name: str, reason: str) -> Kept:
        return self.keep(self.namespace[name], 0, reason)

    def _is_same(self, name: str) -> bool:
        known = self._shared.names.get(name)
        value = self.namespace[name]
        return known is not None and known.is_of(value) and type(value) not in NEVER_KNOWN | PLAIN

    def _numbers_of(self, name: str) -> frozenset[int]:
        known = self._shared.names.get(name)
        return known.numbers if known is not None else frozenset()

    # --- when the other end could not take it ------------------------------------------------------------------

    def take_back(self, refused: NotLoaded | None = None) -> None:
        """Take the last update for untold: the other end could not load it, and nothing has changed there.

        Args:
            refused: what the other end said: these names' values stay here from now on.
        """
        last, self._last = self._last, None
        if last is None:
            self.forget()
            return
        for name, error in (refused.by_name(self._names_with) if refused is not None else {}).items():
            if name in self.namespace:
                self._refused[name] = self._pickles.look(self.namespace[name]).digest, error
                self.keep(self.namespace[name], 0, str(error))
        for number in last.fresh:
            self._shared.drop(number, tell=False)
        self._shared.doubt_memory(last.contents)
        for name, numbers in last.names.items():
            known = self._shared.names.get(name)
            if known is not None:
                self._shared.disagree(name, known.value(), numbers)
                if name in self._refused and known.is_of(self.namespace.get(name)):
                    self._shared.agree({name: (self.namespace[name], None)})
        self._untold = set(last.names)
        self._shared.gone[:0] = last.gone
        self._keeping.released[:0] = last.released
        self._there = set(last.there)
        self._turn = last.turn

    def _names_with(self, number: int) -> Iterator[str]:
        return (name for name, known in self._shared.names.items() if number in known.numbers)

    def forget(self) -> None:
        """Start anew: what is used is told by value again, and the other end starts anew when it hears of it."""
        self._shared.forget()
        self._last = None
        self._untold.clear()
        self._turn = 0

    # --- what the other end tells -------------------------------------------------------------------------------

    @collector_paused()
    def apply(self, update: Update) -> list[str]:
        """Take in what the other end tells; return the names that it told of.

        Raises:
            NotLoaded: something cannot be loaded here, which is named; then nothing has changed.
            OutOfStep: the other end speaks of what is not known here; nothing has changed. It is to `forget`.
        """
        if update.turn not in (0, self._turn):
            raise OutOfStep
        lent: list[str] = []
        try:
            with Loading(self.namespace, self._keeping, self._shared.blocks) as loading:
                contents = Contents(self._shared)
                loaded = load(
                    update, self._shared, contents.put, contents.undo, functools.partial(self._lend, lent)
                )
        except BaseException:
            for name in lent:
                self.namespace.pop(name, None)
            raise
        self._turn = -1  # until all is done: who is interrupted in between starts anew
        if not update.turn:
            self._shared.forget()
        contents.put_large()
        contents.put_parts(loading.parts)
        for cls, attributes in loading.classes.items():
            give_attributes(cls, attributes)
        self._bind(
            {name: value for name, value in zip(update.names, loaded.values, strict=True) if name}, update
        )
        for number, index in enumerate(array("I", update.fresh)):
            self._shared.add(update.first + 2 * number, loaded.memo[index])
        self._pickles.look_alone(range(update.first, update.first + len(update.fresh) // 2, 2))
        self._shared.doubt(contents.told, frozenset(update.names))
        self._agree_on(update)
        for number in array("Q", update.gone):
            self._shared.drop(number, tell=False)
        for number in array("Q", update.released):
            self._keeping.release(number)
        self._last = None
        self._former.hold(update.hold)
        self._turn = update.turn + 1
        return [name for name in update.names if name]

    def _lend(self, lent: list[str], name: str, value: Any) -> None:
        """Let methods that take part in loading what follows find modules, functions and classes."""
        if name and name not in self.namespace and isinstance(value, CODE):
            self.namespace[name] = value
            lent.append(name)

    def _bind(self, bound: dict[str, Any], update: Update) -> None:
        """Bind names; those that stood for an object that another one takes the place of follow it."""
        replaced = {
            id(before): bound[name]
            for name in update.same
            if (before := self.namespace.get(name)) is not bound[name]
            and type(before) not in NEVER_KNOWN | PLAIN
        }
        if replaced:
            for name, value in list(self.namespace.items()):
                if id(value) in replaced and name not in bound and not self._own(name):
                    self.namespace[name] = replaced[id(value)]
        self.namespace.update(bound)
        for name in update.deleted:
            self.namespace.pop(name, None)
        self._there = (self._there | bound.keys()) - set(update.deleted)

    def _agree_on(self, update: Update) -> None:
        told: dict[str, tuple[Any, Look | None]] = {}
        unsure: list[str] = []
        for name in filter(None, update.names):
            value = self.namespace[name]
            try:
                told[name] = value, None if type(value) is Kept else self._pickles.look(value)
            except Exception:
                unsure.append(name)
        self._shared.agree(told)
        for _, found in told.values():
            if found is not None:
                self._pickles.note_memory(found)
        for name in unsure:
            self._shared.disagree(name, self.namespace[name], ())
        for name in update.deleted:
            self._shared.leave(name)
