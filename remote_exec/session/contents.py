"""Contents that are put into shared objects, and how these get their former ones back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .kinds import kind_of, way_back
from .kinds_of_arrays import is_large
from .shared import Shared


class Contents:
    """See the module's docstring."""

    def __init__(self, objects: Shared) -> None:
        self._objects = objects
        self._backs: list[Callable[[], None]] = []
        self._large: list[Callable[[], None]] = []

    def put(self, number: int, contents: Any) -> None:
        """Give an object its contents; large memory waits, since it would have to be copied."""
        held = self._objects[number]
        kind = kind_of(held)
        if kind is None:
            return
        if is_large(held, contents):
            self._large.append(functools.partial(kind.put, held, contents))
            return
        self._backs.append(way_back(held, kind, contents))
        kind.put(held, contents)

    def put_large(self) -> None:
        """Give the others theirs."""
        for put in self._large:
            put()

    def undo(self) -> None:
        """Take it all back."""
        while self._backs:
            self._backs.pop()()
        self._large.clear()
