"""What a kind of objects is whose contents can be taken and put back in place; and what several kinds need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

Object = Any


class Kind(NamedTuple):
    """What can be done with the objects of a kind.

    Attributes:
        take: returns an object's contents as new objects, holding what it holds.
        put: replaces an object's contents.
        form: what cannot be changed in place: an object whose form differs from what it was is another object.
    """

    take: Callable[[Object], Any]
    put: Callable[[Object, Any], None]
    form: Callable[[Object], Any] = type


def attributes_of(obj: Object) -> dict[str, Any] | None:
    """Return an object's own attributes, in a dictionary of their own; None where it can have none."""
    found = getattr(obj, "__dict__", None)
    return dict(cast("dict[str, Any]", found)) if type(found) is dict else None


def put_attributes(obj: Object, attributes: dict[str, Any]) -> None:
    """Replace all of an object's own attributes."""
    own: dict[str, Any] = obj.__dict__
    own.clear()
    own.update(attributes)
