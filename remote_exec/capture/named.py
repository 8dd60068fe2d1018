"""Which modules a call's arguments need: an argument's class must be importable where it is unpickled.

What a function reaches is found by walking it (see ``modules``). What the arguments of a call name is noted while they
are pickled, which costs nothing where they name nothing; here it becomes the modules that must travel, or be installed.
Owns what is known of each module and of the code sent by value, by process.
"""

from __future__ import annotations

import sys
import weakref
from types import CodeType, FunctionType

from ..serial.pickling import Named
from .by_value import MAIN_MODULES
from .locate import Locator, Origin
from .modules import reach

_NOTHING: frozenset[str] = frozenset()

_of_module: dict[str, frozenset[str]] = {}
_of_code: weakref.WeakKeyDictionary[CodeType, frozenset[str]] = weakref.WeakKeyDictionary()


def needed_modules(named: Named) -> frozenset[str]:
    """Return the dotted names of the modules, the user's own and installed ones, without which a pickle is of no use.

    An installed package stands for its parts: they come with it.
    """
    if not named:
        return _NOTHING
    found: set[str] = set()
    for name in named.modules:
        known = _of_module.get(name)
        found |= known if known is not None else _look_up(name)
    for function in named.functions:
        found |= _imported_by(function)
    return frozenset(found) if found else _NOTHING


def _look_up(name: str) -> frozenset[str]:
    needed = _NOTHING
    if name not in MAIN_MODULES:
        origin = Locator().locate(name).origin
        if origin is Origin.LOCAL:
            needed = frozenset((name,))
        elif origin is Origin.THIRD_PARTY:
            top = name.partition(".")[0]
            # a namespace has no file: its parts are packages of their own
            whole = getattr(sys.modules.get(top), "__file__", None) is not None
            needed = frozenset((top if whole else name,))
        elif origin is Origin.MISSING:
            return needed  # it may come to be
    _of_module[name] = needed
    return needed


def _imported_by(function: FunctionType) -> frozenset[str]:
    """What a function that travels by value imports when it runs. What else it names was named when it was pickled."""
    needed = _of_code.get(function.__code__)
    if needed is None:
        names = reach(function).names
        needed = _of_code[function.__code__] = _NOTHING.union(*map(_look_up, names))
    return needed
