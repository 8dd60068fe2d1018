"""What names stood for, and what that held, before a cell ran: it may change and be lost, while others have it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .content import Look
from .pickles import Pickles
from .shared import Shared


class Former:
    """See the module's docstring.

    Args:
        namespace: of this end.
        shared: what both ends know.
        pickles: of this end.
    """

    def __init__(self, namespace: dict[str, Any], shared: Shared, pickles: Pickles) -> None:
        self._namespace = namespace
        self._shared = shared
        self._pickles = pickles
        self._values: dict[str, Any] = {}
        self._inside: list[Any] = []

    def hold(self, names: Iterable[str]) -> None:
        """Hold what names stand for, and what both ends know in it."""
        self._values = {name: self._namespace[name] for name in names if name in self._namespace}
        known = [self._shared.names[name] for name in self._values if name in self._shared.names]
        numbers = set[int]().union(*(one.numbers for one in known))
        self._inside = [self._shared[number] for number in numbers if number in self._shared]

    def let_go(self) -> None:
        """Hold nothing."""
        self._values, self._inside = {}, []

    def changed(self, looks: Mapping[str, Look], changed: Iterable[str]) -> Iterator[tuple[Any, Look]]:
        """Return what was held that may have changed, and is in nothing that names stand for.

        Args:
            looks: at what names stand for now.
            changed: the names that mean something new.
        """
        lost: set[int] = set()
        for name, value in self._values.items():
            known = self._shared.names.get(name)
            if known is None or not known.is_of(value):
                continue
            if self._namespace.get(name) is value:
                lost |= known.numbers if name in changed else frozenset[int]()
                continue
            with contextlib.suppress(Exception):
                found = self._pickles.look(value)
                if known.digest != self._shared.digest(found):
                    lost |= known.numbers - self._shared.numbers_in(found)
                    yield value, found
        if lost:
            lost -= set[int]().union(*map(self._shared.numbers_in, looks.values()))
        while lost:
            number = lost.pop()
            if number not in self._shared or (obj := self._shared[number]) is None:
                continue
            with contextlib.suppress(Exception):
                found = self._pickles.look(obj)
                lost -= self._shared.numbers_in(found)
                yield obj, found
