"""What one end of a session tells the other, as pickles in parts, and how it is loaded: all of it or nothing."""

from __future__ import annotations

import io
import pickle
import pickletools
from array import array
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from ..serial import pickling


class Update(NamedTuple):
    """What one end tells the other.

    Attributes:
        turn: how many updates there have been; 0: both ends start anew.
        stream: pickles: contents of shared objects, then what each name stands for.
        buffers: memory that they refer to.
        names: that are told of; empty for what has lost its name.
        marks: where each of the pickles ends, and how many buffers there are until then, packed.
        contents: numbers of the shared objects whose contents there are, packed.
        same: names of objects that are what they were, but for what is in them.
        deleted: names that are no more.
        hold: names of objects whose changes are to be told even if they lose their names.
        modules: that are needed to load it, or that code which it brings looks into.
        first: the number of the first object that is shared from now on.
        fresh: where in the pickles' memo those objects are, as packed unsigned integers.
        gone: numbers of objects that are not shared any longer, packed.
        released: numbers of kept objects that nothing stands for any longer, packed.
    """

    turn: int
    stream: bytes
    buffers: list[Any]
    names: tuple[str, ...]
    marks: bytes
    contents: bytes
    same: tuple[str, ...]
    deleted: tuple[str, ...]
    hold: tuple[str, ...]
    modules: frozenset[str]
    first: int
    fresh: bytes
    gone: bytes
    released: bytes

    @property
    def size(self) -> int:
        """Its bytes."""
        return len(self.stream) + sum(memoryview(buffer).nbytes for buffer in self.buffers)


class NotLoaded(Exception):  # noqa: N818 - what the other end answers
    """Something cannot be loaded at the other end; there, nothing has changed.

    Attributes:
        names: whose values could not be loaded -> why.
        numbers: of shared objects that could not be given their contents -> why.
    """

    def __init__(self, names: dict[str, str], numbers: dict[int, str]) -> None:
        super().__init__(names, numbers)
        self.names = names
        self.numbers = numbers

    def __str__(self) -> str:
        return "; ".join([*self.names.values(), *self.numbers.values()])

    def by_name(self, names_with: Callable[[int], Iterable[str]]) -> dict[str, NotLoaded]:
        """Return the names whose values cannot be loaded there, with what to say of each.

        Args:
            names_with: tells in which names' values a shared object is.
        """
        found = {name: NotLoaded({name: why}, {}) for name, why in self.names.items()}
        for number, why in self.numbers.items():
            found.update({name: NotLoaded({name: why}, {}) for name in names_with(number)})
        return found


class OutOfStep(Exception):  # noqa: N818 - what the other end answers
    """The other end speaks of what is not known here: it is to start anew (`Mirror.forget`)."""


class Parts:
    """A pickler's file, and judge of its buffers, that knows where each pickle ends.

    Attributes:
        stream: the pickles, in chunks.
        buffers: large memory that they refer to.
        marks: length of the stream and number of buffers, at each mark.
    """

    def __init__(self) -> None:
        self.stream: list[bytes] = []
        self.buffers: list[pickle.PickleBuffer] = []
        self.marks = array("Q")
        self._length = 0

    def write(self, data: bytes) -> None:
        """Take a piece."""
        self.stream.append(data)
        self._length += len(data)

    def __call__(self, buffer: pickle.PickleBuffer) -> bool:
        """Take memory; return whether it is to be a part of the pickle, since it is small."""
        try:
            if buffer.raw().nbytes < pickling.OUT_OF_BAND_BYTES:
                return True
        except BufferError:  # not contiguous
            return True
        self.buffers.append(buffer)
        return False

    def mark(self) -> None:
        """A pickle ends here."""
        self.marks.append(self._length)
        self.marks.append(len(self.buffers))


class Loaded(NamedTuple):
    """What was in an update.

    Attributes:
        values: of its names.
        memo: what the pickles refer to by numbers of their own.
    """

    values: list[Any]
    memo: Mapping[int, Any]


class Objects(Protocol):
    """Shared objects by their numbers."""

    def __getitem__(self, number: int) -> Any: ...


class _SharedUnpickler(pickle.Unpickler):
    objects: Objects

    def persistent_load(self, pid: Any) -> Any:
        try:
            return self.objects[pid]
        except KeyError:
            raise OutOfStep from None


class _PlainUnpickler(pickle._Unpickler):
    """In Python: the memo of the other one cannot be set right."""

    objects: Objects
    memo: dict[int, Any]

    def persistent_load(self, pid: Any) -> Any:
        return self.objects[pid]


def load(
    update: Update,
    objects: Objects,
    put: Callable[[int, Any], None],
    undo: Callable[[], None],
    lend: Callable[[str, Any], None] = lambda _name, _value: None,
) -> Loaded:
    """Load all that an update tells. Contents are put into their objects at once, since others may be made of these.

    Args:
        update: what to load.
        objects: shared ones.
        put: gives a shared object its contents.
        undo: takes that back, for all of them.
        lend: is given each name with what it stands for, once that is loaded.

    Raises:
        NotLoaded: some of it cannot be.
        OutOfStep: it speaks of shared objects that are none.
    """
    unpickler = _SharedUnpickler(io.BytesIO(update.stream), buffers=update.buffers)
    unpickler.objects = objects
    try:
        for number in array("Q", update.contents):
            put(number, unpickler.load())
        values: list[Any] = []
        for name in update.names:
            values.append(unpickler.load())
            lend(name, values[-1])
        return Loaded(values, unpickler.memo.copy())
    except OutOfStep:
        undo()
        raise
    except Exception as error:
        undo()
        raise _blamed(update, objects, put, undo, error) from error
    except BaseException:
        undo()
        raise


def _blamed(
    update: Update,
    objects: Objects,
    put: Callable[[int, Any], None],
    undo: Callable[[], None],
    error: Exception,
) -> NotLoaded:
    """Find what cannot be loaded: pickle by pickle, and not those that refer to one that has failed."""
    names: dict[str, str] = {}
    numbers: dict[int, str] = {}
    memo: dict[int, Any] = {}
    missing: set[int] = set()
    marks = array("Q", update.marks)
    told: list[int | str] = [*array("Q", update.contents), *update.names]
    begin = first = 0
    for what, end, last in zip(told, marks[::2], marks[1::2], strict=True):
        stream, buffers = update.stream[begin:end], update.buffers[first:last]
        begin, first = end, last
        made, used = _memo_of(stream)
        unpickler: Any = _PlainUnpickler(io.BytesIO(stream), buffers=buffers)
        unpickler.objects, unpickler.memo = objects, dict(memo)
        reason: Exception | None = None
        if not used & missing:
            try:
                loaded = unpickler.load()
                if isinstance(what, int):
                    put(what, loaded)
            except Exception as raised:
                reason = raised
            else:
                memo = unpickler.memo
                continue
        lost = range(len(memo), len(memo) + made)
        missing.update(lost)
        memo.update(dict.fromkeys(lost))
        if reason is not None and isinstance(what, str):
            names[what] = why(reason)
        elif reason is not None and isinstance(what, int):
            numbers[what] = why(reason)
    undo()
    if not names and not numbers:
        names = dict.fromkeys(update.names, why(error))
    return NotLoaded(names, numbers)


def _memo_of(stream: bytes) -> tuple[int, set[int]]:
    """Return how much a pickle adds to the memo, and what it uses of it."""
    made, used = 0, set[int]()
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name == "MEMOIZE":
            made += 1
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            used.add(int(argument or 0))
    return made, used


def why(error: BaseException) -> str:
    """Return in one line why something cannot be loaded."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"the module {error.name!r} is missing there"
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
