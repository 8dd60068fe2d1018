"""What stays at the far end of a session, since it is big or cannot travel: the other end has a name for it."""

from __future__ import annotations

from typing import Any

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
    """

    def __init__(self, number: int, type_name: str, size: int, reason: str, text: str) -> None:
        self.number = number
        self.type_name = type_name
        self.size = size
        self.reason = reason
        self.text = text

    def __reduce__(self) -> Any:
        return resolve, (self.number, self.type_name, self.size, self.reason, self.text)

    def __repr__(self) -> str:
        return f"<remote {self.type_name}: {self.text}; {self.reason}>"


def resolve(number: int, type_name: str, size: int, reason: str, text: str) -> Any:
    """Return the object, at the end where it is, and what stands for it elsewhere."""
    kept = Loading.current().kept
    return kept[number] if number in kept else Kept(number, type_name, size, reason, text)


for _carried in (Kept, resolve):
    _carried.__module__ = f"{RUNTIME}.session.kept"
