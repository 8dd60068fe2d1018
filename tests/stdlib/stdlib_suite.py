"""Where the standard library's own tests of executors are, and their names, whichever way they are laid out.

They are taken from the running interpreter's `test` package when it has them: one module up to Python 3.11.5, a
package since. Many builds leave them out; then those of Debian's package `libpython3.11-testsuite` serve, copied to
a folder of their own, so that they are a local module like any of a user's. No code of theirs is kept here.
"""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import shutil
import sys
import tempfile
import unittest
import unittest.mock
from pathlib import Path
from types import ModuleType
from typing import Any

DEBIAN = Path("/usr/lib/python3.11/test/test_concurrent_futures.py")
PARTS = ("util", "executor", "test_process_pool", "test_shutdown", "test_wait", "test_as_completed",
         "test_init", "test_deadlock", "test_future")  # fmt: skip
MISSING = (
    "the standard library's test_concurrent_futures is not here: install Debian's libpython3.11-testsuite"
)


class Suite:
    """The suite's modules.

    Attributes:
        modules: all of them; one where the suite is one module.
        version: the Python version whose suite it is.
        name: what `test.test_concurrent_futures` is called here.
        folder: what must be on the path to import it; empty for the interpreter's own.
    """

    def __init__(
        self, modules: list[ModuleType], *, version: tuple[int, ...], name: str, folder: str = ""
    ) -> None:
        self.modules, self.version, self.name, self.folder = modules, version, name, folder

    def find(self, name: str) -> Any:
        """Return what the suite defines under a name; None where this version does not."""
        for module in self.modules:
            found = getattr(module, name, None)
            if found is not None and getattr(found, "__module__", module.__name__) == module.__name__:
                return found
        return None

    def replace(self, names: dict[str, Any]) -> list[Any]:
        """Return patches that put something else in the place of names, in each module that has them."""
        return [
            unittest.mock.patch.object(module, name, value)
            for module in self.modules
            for name, value in names.items()
            if hasattr(module, name)
        ]


def find_suite() -> Suite:
    """Import the suite.

    Raises:
        unittest.SkipTest: it is not here.
    """
    version = sys.version_info[:3]
    if _exists("test.test_concurrent_futures"):
        module = importlib.import_module("test.test_concurrent_futures")
        if not hasattr(module, "__path__"):
            return Suite([module], version=version, name=module.__name__)
        parts = [importlib.import_module(f"{module.__name__}.{part}") for part in PARTS]
        return Suite(parts, version=version, name=module.__name__)
    if DEBIAN.is_file() and _exists("test.support"):
        folder = tempfile.mkdtemp(prefix="suite-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        shutil.copy(DEBIAN, folder)
        sys.path.append(folder)
        return Suite(
            [importlib.import_module(DEBIAN.stem)], version=(3, 11, 2), name=DEBIAN.stem, folder=folder
        )
    raise unittest.SkipTest(MISSING)


def _exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
