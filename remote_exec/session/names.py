"""`Names`: what some code touches of a namespace. No I/O, and nothing is looked at here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

NONE: frozenset[str] = frozenset()
_OF_IPYTHON = re.compile(r"_{1,3}|_i{1,3}|_i?\d+|_[dio]h|_exit_code|In|Out")
_WORD = re.compile(r"[^\W\d]\w*")


@dataclass(frozen=True)
class Names:
    """The global names that some code touches.

    Builtins that it uses are among what it reads: `could_read` leaves only what there is.

    Attributes:
        reads: whose value from before the code could be read.
        certain: of these, the ones that are read on each way through the code that ends without an exception.
        binds: that could be bound.
        deletes: that could be deleted; for that they must exist, whatever they stand for.
        opaque: it could touch any name, also ones that are not said here.
        star: it could bind names that are not said here (``from x import *``).
        evaluates: it hands strings to something that reads names from them (``df.query("a > @x")``).
        strings: string constants in it.
    """

    reads: frozenset[str] = NONE
    certain: frozenset[str] = NONE
    binds: frozenset[str] = NONE
    deletes: frozenset[str] = NONE
    opaque: bool = False
    star: bool = False
    evaluates: bool = False
    strings: frozenset[str] = NONE

    def __or__(self, other: Names) -> Names:
        """What either could touch; nothing is certain about it."""
        return merged((self, other))

    def could_read(self, namespace: Mapping[str, object]) -> frozenset[str]:
        """Return those names of a namespace that the code could read, whether it names them or strings do.

        What IPython has bound (``_``, ``Out``) is read by those alone who name it.
        """
        found = self.reads & namespace.keys()
        if self.opaque:
            return found.union(name for name in namespace if not is_of_ipython(name))
        if self.evaluates:
            told = {text for name in found if type(text := namespace[name]) is str}
            found |= words(*self.strings, *told) & namespace.keys()
        return found


NO_NAMES = Names()
OPAQUE = Names(opaque=True)


def merged(parts: Iterable[Names]) -> Names:
    """Return what any of some pieces of code could touch; nothing is certain about it."""
    found = [part for part in parts if part is not NO_NAMES]
    return Names(
        reads=NONE.union(*(part.reads for part in found)),
        binds=NONE.union(*(part.binds for part in found)),
        deletes=NONE.union(*(part.deletes for part in found)),
        opaque=any(part.opaque for part in found),
        star=any(part.star for part in found),
        evaluates=any(part.evaluates for part in found),
        strings=NONE.union(*(part.strings for part in found)),
    )


def words(*texts: str) -> frozenset[str]:
    """Return all that could be a name in some texts."""
    return frozenset(word for text in texts for word in _WORD.findall(text))


def is_of_ipython(name: str) -> bool:
    """Whether a name is one that IPython binds of its own accord: former values, and what was typed."""
    return _OF_IPYTHON.fullmatch(name) is not None


def is_of_python(name: str) -> bool:
    """Whether a name is one that Python binds in a module, such as ``__name__``; a cell's own annotations are not."""
    return len(name) > 4 and name.startswith("__") and name.endswith("__") and name != "__annotations__"
