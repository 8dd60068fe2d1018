"""What stays at one end of a session, since it is big or cannot travel: the other end has a name for it."""

from __future__ import annotations

import os
import weakref
from typing import Any

from ..model.errors import RemoteExecError
from ..serial.cloudpickle_copy import RUNTIME
from .content import Loading


class Kept:
    """Stands for an object at the other end. In pickles that go there it is the object itself.

    Attributes:
        number: which.
        type_name: of its type, as users write it.
        size: its bytes, 0 where that is not known.
        reason: why it did not come.
        text: its own short text.
        shown: how it looks where it is, MIME type -> data; None where that is not known.
        session: at home, the session that brings it.
    """

    shown: dict[str, Any] | None = None
    session: Any = None

    def __init__(self, number: int, type_name: str, size: int, reason: str, text: str) -> None:
        self.number = number
        self.type_name = type_name
        self.size = size
        self.reason = reason
        self.text = text

    def __reduce__(self) -> Any:
        return resolve, (self.number, self.type_name, self.size, self.reason, self.text)

    def fetch(self) -> Any:
        """Bring it: return the object itself.

        Raises:
            RemoteExecError: the worker in which it was is gone.
            SerializationError: it cannot travel.
        """
        __tracebackhide__ = True  # IPython leaves this frame out
        if self.session is None:
            raise RemoteExecError(f"{self!r}: it cannot be brought")
        return self.session.fetch(self)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return self.shown or {"text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"<remote {self.type_name}: {self.text}; {self.reason}>"


NOT_SENT = -1  # the number of what stands for a value that nobody asked for, while its name is there


def resolve(number: int, type_name: str, size: int, reason: str, text: str) -> Any:
    """Return the object, at the end where it is, and what stands for it elsewhere."""
    keeping: KeptHere = Loading.current().keeping
    if number in keeping.objects:
        return keeping.objects[number]
    handle = keeping.handles.get(number)
    if handle is None:
        handle = Kept(number, type_name, size, reason, text)
        if number == NOT_SENT:
            return handle
        keeping.handles[number] = handle
        weakref.finalize(handle, keeping.released.append, number).atexit = False
    return handle


for _carried in (Kept, resolve):
    _carried.__module__ = f"{RUNTIME}.session.kept"


class KeptHere:
    """What stays at this end, and what stands here for what stays at the other.

    Args:
        first: 0 at one end, 1 at the other: each gives numbers of its own.

    Attributes:
        objects: that stay here, by their numbers.
        stands_for: identity -> what goes instead of such an object.
        handles: number -> what stands here for an object of the other end.
        released: numbers of objects of the other end that nothing stands for here any longer.
    """

    def __init__(self, first: int) -> None:
        # The numbers of one end are never those of another that was there before it.
        self._next = (int.from_bytes(os.urandom(6), "big") << 8) + first
        self.objects: dict[int, Any] = {}
        self.stands_for: dict[int, Kept] = {}
        self.handles: weakref.WeakValueDictionary[int, Kept] = weakref.WeakValueDictionary()
        self.released: list[int] = []

    def keep(self, obj: Any, size: int, reason: str) -> Kept:
        """Let an object stay here; return what stands for it."""
        known = self.stands_for.get(id(obj))
        if known is not None:
            return known
        number, self._next = self._next, self._next + 2
        kept = Kept(number, type(obj).__qualname__, size, reason, short_text(obj))
        self.objects[number] = obj
        self.stands_for[id(obj)] = kept
        return kept

    def take_released(self) -> list[int]:
        """Return the numbers of objects of the other end that nothing stands for here any longer, once."""
        found = [number for number in self.released if number not in self.handles]
        self.released.clear()
        return found

    def release(self, number: int) -> None:
        """Nothing at the other end stands for an object any longer."""
        if number in self.objects:
            self.stands_for.pop(id(self.objects.pop(number)), None)


def short_text(obj: Any) -> str:
    """Return an object's text, shortened; never fails."""
    try:
        return repr(obj)[:200]
    except Exception as error:
        return f"<its repr raised {type(error).__name__}>"
