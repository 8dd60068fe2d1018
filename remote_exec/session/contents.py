"""Contents that are put into shared objects, and how these get their former ones back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from . import frames
from .kinds import kind_of, way_back
from .kinds_of_arrays import ARRAY, TENSOR, is_large
from .memory import Extent, ranges_of
from .shared import Shared


class Contents:
    """See the module's docstring.

    Args:
        objects: that are shared.

    Attributes:
        told: numbers of the objects that were given contents -> where those lie, of arrays.
    """

    def __init__(self, objects: Shared) -> None:
        self._objects = objects
        self._backs: list[Callable[[], None]] = []
        self._large: list[Callable[[], None]] = []
        self._blocks: dict[int, Any] | None = None
        self.told: dict[int, list[Extent]] = {}

    def put(self, number: int, contents: Any) -> None:
        """Give an object its contents; large memory waits, since it would have to be copied."""
        held = self._apart(number)
        kind = kind_of(held)
        if kind is None:
            return
        tensor_or_array = kind is ARRAY or kind is TENSOR
        self.told[number] = ranges_of(held, contents) if tensor_or_array else []
        if is_large(held, contents):
            self._large.append(functools.partial(kind.put, held, contents))
            return
        self._backs.append(way_back(held, kind, contents))
        kind.put(held, contents)

    def _apart(self, number: int) -> Any:
        """Return an object, apart from those of which pandas' blocks only seem to have copies."""
        if self._blocks is None:
            blocks = self._objects.blocks if frames.copies_on_write() else ()
            self._blocks = dict(frames.arrays_of(blocks))
        block = self._blocks.get(id(self._objects[number]))
        if block is not None:
            for before, after in frames.set_apart(block):
                self._objects.replace(before, after)
        return self._objects[number]

    def put_large(self) -> None:
        """Give the others theirs."""
        for put in self._large:
            put()

    def put_parts(self, parts: list[tuple[Any, Any]]) -> None:
        """Give new arrays, which lie in others, theirs."""
        for array, data in parts:
            self.told[~len(self.told)] = ranges_of(array, (data, True))
            ARRAY.put(array, (data, array.flags.writeable))

    def undo(self) -> None:
        """Take it all back."""
        while self._backs:
            self._backs.pop()()
        self._large.clear()
