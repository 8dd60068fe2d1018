"""Which of the user's own modules a pickle names: an argument's class must be importable where it is unpickled.

What a function reaches is found by walking it (see ``modules``); the arguments of a call are found here, in the
bytes that they became, since that costs microseconds where no such module is loaded or named. Names that the user's
data holds by chance only make more travel than is needed. Owns the list of local modules that are loaded, by process.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

from .by_value import MAIN_MODULES
from .locate import Locator, Origin

_NOTHING: frozenset[str] = frozenset()


class LoadedModules:
    """The user's own modules that this process has imported, by top-level name."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._local: set[str] = set()
        self._size = 0
        self._pattern: re.Pattern[bytes] | None = None

    def named_in(self, stream: Iterable[bytes | bytearray]) -> frozenset[str]:
        """Return the dotted names of local modules that a pickle names.

        Args:
            stream: the pickle's parts, without its out-of-band buffers.
        """
        if len(sys.modules) != self._size:
            self._refresh()
        if self._pattern is None:
            return _NOTHING
        found: set[str] = set()
        for part in stream:
            for match in self._pattern.finditer(part):
                if match[1][0] == len(match[2]):
                    found.add(match[2].decode())
        return frozenset(found) if found else _NOTHING

    def _refresh(self) -> None:
        self._size = len(sys.modules)
        tops = {name for name in list(sys.modules) if "." not in name}
        locator = Locator()
        new = tops - self._known - MAIN_MODULES - sys.stdlib_module_names
        self._known |= tops
        local = {name for name in new if locator.locate(name).origin is Origin.LOCAL}
        if local:
            self._local |= local
            names = b"|".join(re.escape(name.encode()) for name in sorted(self._local))
            # a short text as pickle writes it: an opcode, the length, the text
            self._pattern = re.compile(rb"\x8c([\s\S])((?:%b)(?:\.[\w.]+)?)" % names)


loaded_modules = LoadedModules()
