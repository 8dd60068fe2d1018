"""Where an importable name comes from: the user's files, an installed package, the standard library, nowhere.

Nothing is imported. A module that is loaded is asked for its spec; another is looked up with the import
system's finders. They read folders but run no module, since a submodule is looked up in its parent's folders
and never through the parent. Owns no state but a `Locator`'s, which remembers its answers for one analysis.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import site
import sys
from enum import Enum
from functools import cache
from types import ModuleType

from ..model.record import record

# this project's own distribution is in every worker already, under a name of its own
OWN = frozenset({"remote_exec", "remote_exec_runtime", "jupyter_ext"})
_INSTALLED_FOLDERS = frozenset({"site-packages", "dist-packages"})


class Origin(Enum):
    """Whose a module is."""

    LOCAL = "local"
    THIRD_PARTY = "third_party"
    STANDARD = "standard"
    OWN = "own"
    MISSING = "missing"


@record(kw_only=True)
class Module:
    """One importable name, and where its code lies."""

    # dotted
    name: str
    origin: Origin
    # absolute; ``None`` for a namespace package, a built-in module, or one made at run time
    file: str | None = None
    # absolute folders of a package, those of the user's only if it is local; empty for a plain module
    folders: tuple[str, ...] = ()

    @property
    def is_package(self) -> bool:
        """Whether it can have submodules."""
        return bool(self.folders)


class Locator:
    """Answers where names come from; asks the import system once for each."""

    def __init__(self) -> None:
        self._known: dict[str, Module] = {}

    def locate(self, name: str) -> Module:
        """The module of a dotted, absolute name; its origin is MISSING when there is none."""
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = self._look_up(name)
        return known

    def _look_up(self, name: str) -> Module:
        parent_name, _, _ = name.rpartition(".")
        top = name.partition(".")[0]
        if top in OWN:
            return Module(name=name, origin=Origin.OWN)
        if not all(part.isidentifier() for part in name.split(".")):
            return Module(name=name, origin=Origin.MISSING)
        loaded = _loaded(name)
        if loaded is not None and (loaded.file or loaded.folders):
            return loaded
        # a user's own ``code.py`` beside the script shadows the standard library's only once it is loaded
        if top in sys.stdlib_module_names and (name == top or self.locate(top).origin is Origin.STANDARD):
            return Module(name=name, origin=Origin.STANDARD)
        search: list[str] | None = None
        if parent_name:
            parent = self.locate(parent_name)
            if not parent.is_package:
                return Module(name=name, origin=Origin.MISSING)
            search = _search_path(parent)
        return _found(name, search) or loaded or Module(name=name, origin=Origin.MISSING)


def _loaded(name: str) -> Module | None:
    """What `sys.modules` says of a name; ``None`` when the name is not loaded."""
    module = sys.modules.get(name)
    if not isinstance(module, ModuleType):
        return None
    spec = getattr(module, "__spec__", None)
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) and spec is not None and spec.has_location:
        file = spec.origin
    if file is None and spec is not None and spec.origin in {"built-in", "frozen"}:
        return Module(name=name, origin=Origin.STANDARD)
    return _module(name, file=file, folders=list(getattr(module, "__path__", ())))


def _found(name: str, search: list[str] | None) -> Module | None:
    """What the finders say of a name that is not loaded."""
    try:
        spec = importlib.util.find_spec(name) if search is None else _find_below(name, search)
    except (ImportError, ValueError, AttributeError, OSError):
        return None
    if spec is None:
        return None
    if spec.origin in {"built-in", "frozen"}:
        return Module(name=name, origin=Origin.STANDARD)
    folders = list(spec.submodule_search_locations or ())
    return _module(name, file=spec.origin if spec.has_location else None, folders=folders)


def _find_below(name: str, search: list[str]) -> importlib.machinery.ModuleSpec | None:
    # as the import system asks, an editable install's finder included, but without importing the parent
    for finder in sys.meta_path:
        spec = finder.find_spec(name, search)
        if spec is not None:
            return spec
    return None


def _module(name: str, *, file: str | None, folders: list[str]) -> Module:
    absolute = os.path.abspath(file) if file else None
    places = [os.path.abspath(folder) for folder in folders if os.path.isdir(folder)]
    if absolute:
        origin = origin_of_path(absolute)
    else:
        # a namespace package is the user's as soon as one of its portions is
        origins = {origin_of_path(place) for place in places}
        by_precedence = (Origin.LOCAL, Origin.THIRD_PARTY, Origin.STANDARD, Origin.MISSING)
        origin = next(each for each in by_precedence if each in origins or each is Origin.MISSING)
    if origin is Origin.LOCAL and not absolute:
        places = [place for place in places if origin_of_path(place) is Origin.LOCAL]
    return Module(name=name, origin=origin, file=absolute, folders=tuple(places))


def _search_path(parent: Module) -> list[str]:
    # a loaded package may have grown its path; a namespace may have installed portions beside the user's own
    module = sys.modules.get(parent.name)
    if module is not None:
        return list(getattr(module, "__path__", ()))
    if parent.file is not None or "." in parent.name:
        return list(parent.folders)
    spec = importlib.util.find_spec(parent.name)
    return list(spec.submodule_search_locations or ()) if spec is not None else []


@cache
def origin_of_path(path: str) -> Origin:
    """Whose an absolute path is, by where it lies; links are followed for the standard library only."""
    if not _INSTALLED_FOLDERS.isdisjoint(path.split(os.sep)):
        return Origin.THIRD_PARTY
    if any(_within(path, folder) for folder in _installed()):
        return Origin.THIRD_PARTY
    real = os.path.realpath(path)
    if any(_within(path, folder) or _within(real, folder) for folder in _standard()):
        return Origin.STANDARD
    return Origin.LOCAL


def _within(path: str, folder: str) -> bool:
    return path.startswith(folder + os.sep) or path == folder


@cache
def _standard() -> frozenset[str]:
    import sysconfig  # a module of a script alone needs none of this

    names = ("stdlib", "platstdlib")
    folders = {sysconfig.get_path(name) for name in names} | {os.path.dirname(os.__file__)}
    return frozenset({os.path.abspath(folder) for folder in folders} | set(map(os.path.realpath, folders)))


@cache
def _installed() -> frozenset[str]:
    import sysconfig

    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()}
    user = site.getusersitepackages()
    return frozenset(os.path.abspath(folder) for folder in {*folders, user} if folder)
