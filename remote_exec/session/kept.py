"""What stays at one end of a session, since it is big or cannot travel: the other end has a name for it."""

from __future__ import annotations

import os
import weakref
from typing import Any, TypeAlias

from ..model.errors import RemoteExecError
from ..serial.cloudpickle_copy import RUNTIME
from .content import Loading, StandIn

ON_REQUEST = "it stays there"
LARGE = "it is large"
STOPPED = "its way home was interrupted"
LOST = "is lost: the worker in which it was is gone"
NOT_HERE = "is not here: "  # in what a use of it raises where nobody could bring it
USES = (
    *("__bool__", "__len__", "__iter__", "__next__", "__reversed__", "__contains__", "__getitem__"),
    *("__setitem__", "__delitem__", "__call__", "__enter__", "__exit__", "__aenter__"),
    *("__aexit__", "__await__", "__aiter__", "__anext__"),
    *("__int__", "__float__", "__complex__", "__index__", "__abs__", "__neg__", "__pos__", "__invert__"),
    *("__lt__", "__le__", "__gt__", "__ge__", "__array__", "__fspath__", "__bytes__"),
)  # of an object, for which what stands for it is no good; `==` tells whether it is the very same
OPERATORS = (
    *("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow"),
    *("lshift", "rshift", "and", "or", "xor", "divmod"),
)


class Kept(StandIn):
    """Stands for an object at the other end. In updates that go there it is the object itself.

    Whatever is done with it here raises an error that says where the object is, and how to get at it.

    Attributes:
        number: which.
        type_name: of its type, as users write it.
        size: its bytes, 0 where that is not known.
        reason: why it did not come.
        text: its own short text.
        shown: how it looks where it is, MIME type -> data; None where that is not known.
        session: at home, the session that brings it.
    """

    number: int
    type_name: str
    size: int
    reason: str
    text: str
    shown: dict[str, Any] | None
    session: Any

    def __init__(self, number: int, type_name: str, size: int, reason: str, text: str) -> None:
        vars(self).update(
            number=number, type_name=type_name, size=size, reason=reason, text=text, shown=None, session=None
        )

    @property
    def travels(self) -> bool:
        """Whether it could come."""
        return self.reason in (ON_REQUEST, LARGE, STOPPED)

    def told(self) -> Any:
        """Return what it is in an update's pickle."""
        return resolve, (self.number, self.type_name, self.size, self.told_reason(), self.text)

    def told_reason(self) -> str:
        """Return why it is not where it is spoken of, and where it is."""
        if self.session is None:
            return self.reason
        on = f"on {self.session.place}"
        return f"it stays {on}" if self.reason == ON_REQUEST else f"it stays {on}, since {self.reason}"

    def refusal(self) -> str:
        """Return why nothing can be done with it here, and what can."""
        if self.session is None:
            return f"this {self.type_name} {LOST if self.reason == LOST else NOT_HERE + self.reason}"
        bring = "bring it with .fetch(), or " if self.travels else ""
        reason = self.told_reason().removeprefix("it ")
        return f"this {self.type_name} {reason}; {bring}use it in a %%remote cell there"

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(self.refusal())

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in Kept.__annotations__:
            raise AttributeError(self.refusal())
        vars(self)[name] = value

    def __delattr__(self, name: str) -> None:
        raise AttributeError(self.refusal())

    def __reduce__(self) -> Any:  # by which it is looked into
        return self.told()

    def __reduce_ex__(self, _protocol: Any) -> Any:  # by which it would travel otherwise
        raise TypeError(self.refusal())

    def fetch(self) -> Any:
        """Bring it: return the object itself.

        Raises:
            RemoteExecError: the worker in which it was is gone.
            SerializationError: it cannot travel.
        """
        __tracebackhide__ = True  # IPython leaves this frame out
        if self.session is None:
            raise RemoteExecError(self.refusal())
        return self.session.fetch(self)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return self.shown or {"text/plain": repr(self)}

    def __repr__(self) -> str:
        reason = f"it {LOST}" if self.reason == LOST else self.told_reason()
        return f"<remote {self.type_name}: {self.text}; {reason}>"


def _refuse(self: Kept, *_: object, **__: object) -> Any:
    __tracebackhide__ = True
    raise TypeError(self.refusal())


for _use in (*USES, *(f"__{by}{name}__" for name in OPERATORS for by in ("", "r", "i"))):
    setattr(Kept, _use, _refuse)


NOT_SENT = -1  # the number of what stands for a value that nobody asked for, while its name is there


def resolve(number: int, type_name: str, size: int, reason: str, text: str) -> Any:
    """Return the object, at the end where it is, and what stands for it elsewhere."""
    keeping: KeptHere = Loading.current().keeping
    if number in keeping.objects:
        return keeping.objects[number]
    handle = keeping.handles.get(number)
    if handle is not None:
        if handle.session is None:
            handle.reason = reason
    else:
        handle = Kept(number, type_name, size, reason, text)
        if number == NOT_SENT:
            return handle
        handle.session = keeping.session
        keeping.handles[number] = handle
        weakref.finalize(handle, keeping.released.append, number).atexit = False
    return handle


for _carried in (Kept, resolve):
    _carried.__module__ = f"{RUNTIME}.session.kept"


Handles: TypeAlias = "weakref.WeakValueDictionary[int, Kept]"


class KeptHere:
    """What stays at this end, and what stands here for what stays at the other.

    Args:
        first: 0 at one end, 1 at the other: each gives numbers of its own.
        handles: number -> what stands here for objects of other ends; several sessions share them.

    Attributes:
        objects: that stay here, by their numbers.
        stands_for: identity -> what goes instead of such an object.
        released: numbers of objects of the other end that nothing stands for here any longer.
        session: at home, what brings objects of the other end.
    """

    session: Any = None

    def __init__(self, first: int, handles: Handles | None = None) -> None:
        # The numbers of one end are never those of another that was there before it.
        self._next = (int.from_bytes(os.urandom(6), "big") << 8) + first
        self.objects: dict[int, Any] = {}
        self.stands_for: dict[int, Kept] = {}
        self.handles: Handles = weakref.WeakValueDictionary() if handles is None else handles
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
