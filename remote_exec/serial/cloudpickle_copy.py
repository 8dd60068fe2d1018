"""A private copy of cloudpickle, under the one name that it has on both sides.

A pickle names the modules that it needs. On a host the carried runtime is the package
``remote_exec_runtime`` with cloudpickle inside it, so pickles made here must say
``remote_exec_runtime.cloudpickle`` too. On a client, where this file is
``remote_exec.serial.cloudpickle_copy``, an import hook gives that name its meaning:

* ``remote_exec_runtime.cloudpickle`` is a second copy of the installed package; the user's own
  ``cloudpickle`` is neither imported nor touched;
* any other ``remote_exec_runtime.X`` is the very module ``remote_exec.X``, so what a host calls by its name
  there is found here.

On a host nothing is installed. Owns one entry of ``sys.meta_path``, added once, under this module's import
lock.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

RUNTIME = "remote_exec_runtime"
HERE = __name__.partition(".")[0]
ON_CLIENT = HERE != RUNTIME


class _Alias:
    """A loader that runs nothing: it puts the real module in place of the empty one it was given."""

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        real = importlib.import_module(HERE + module.__name__.removeprefix(RUNTIME))
        # The import system returns what it finds in sys.modules after a loader has run.
        sys.modules[module.__name__] = real


class _RuntimeNames:
    """The finder for ``remote_exec_runtime.*`` on a client."""

    @staticmethod
    def find_spec(
        fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(RUNTIME + "."):
            return None
        if fullname == f"{RUNTIME}.cloudpickle":
            return _cloudpickle_spec(fullname)
        if fullname.startswith(f"{RUNTIME}.cloudpickle."):
            return None  # its package's path answers
        loader: Any = _Alias()  # by duck type: importlib.abc costs milliseconds
        return importlib.machinery.ModuleSpec(fullname, loader)


def _cloudpickle_spec(fullname: str) -> importlib.machinery.ModuleSpec | None:
    # PathFinder does not look into sys.modules, where the user may keep another cloudpickle or None.
    installed = importlib.machinery.PathFinder.find_spec("cloudpickle") or importlib.util.find_spec(
        "cloudpickle"
    )
    if installed is None or installed.origin is None:
        raise ModuleNotFoundError(
            "cloudpickle is not installed beside remote_exec; install 'cloudpickle>=3.1'", name="cloudpickle"
        )
    return importlib.util.spec_from_file_location(
        fullname, installed.origin, submodule_search_locations=installed.submodule_search_locations
    )


def _install() -> None:
    if RUNTIME in sys.modules:  # a real carried runtime in this process answers for itself
        return
    package = ModuleType(RUNTIME, "Names that the carried runtime has on hosts, for use on this client.")
    package.__path__ = []
    package.__spec__ = importlib.machinery.ModuleSpec(RUNTIME, None, is_package=True)
    sys.modules[RUNTIME] = package
    # First: a real package under an alias has a path, by which the path finder would load a second copy.
    sys.meta_path.insert(0, _RuntimeNames)


if ON_CLIENT:
    _install()

cloudpickle: Any = importlib.import_module(f"{RUNTIME}.cloudpickle.cloudpickle")


def user_modules_by_value() -> set[str]:
    """Names of the modules that the user gave to their own ``cloudpickle.register_pickle_by_value``."""
    module = sys.modules.get("cloudpickle.cloudpickle") or sys.modules.get("cloudpickle")
    listed = getattr(module, "list_registry_pickle_by_value", None)  # cloudpickle 2.0 and later
    return set(listed()) if listed is not None else set()
