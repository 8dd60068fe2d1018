"""The notebook's local modules at the far end of its session: where they are imported from, and loading them anew.

On the notebook's own machine they are its own folders; elsewhere they are unpacked bundles, each of which replaces the
one before it. What is imported stays what it was until the notebook reloads it. Touches `sys.path` and `sys.modules`,
in the main thread alone.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..model.layout import Layout
from ..worker import context
from ..worker.unpacked import place_of


class Given(NamedTuple):
    """What is to be importable from now on.

    Attributes:
        elsewhere: whether this is not the notebook's own machine and Python.
        bundle: digest of the unpacked bundle that holds it; empty where there is none.
        folders: the notebook's folders of modules, in `sys.path`'s order, and where each is in the bundle.
        behind: of these, which come behind what is installed.
        reload: names of modules that the notebook has reloaded since, in order.
        patch: whether what those have defined before is brought up to date, as ``%autoreload`` does.
        installed: names of installed modules that are needed.
        chosen: whether the user has said what is installed.
    """

    elsewhere: bool
    bundle: str
    folders: Mapping[str, str]
    behind: frozenset[str] = frozenset()
    reload: tuple[str, ...] = ()
    patch: bool = False
    installed: tuple[str, ...] = ()
    chosen: bool = False


class Entered(NamedTuple):
    """What came of it.

    Attributes:
        missing: names of installed modules that are not here.
        failed: modules that could not be loaded anew, and are as they were -> what they raised.
    """

    missing: tuple[str, ...]
    failed: dict[str, str]


class Modules:
    """See the module's docstring; one for a session."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}  # the notebook's -> where it is here
        self._added: frozenset[str] = frozenset()  # of these, what `sys.path` has had from us
        self._given = Given(False, "", {})

    def enter(self, given: Given) -> Entered:
        """Have modules imported from there, and load anew what the notebook has."""
        self._given = given
        root = _root_of(given.bundle) if given.bundle else ""
        folders = {home: os.path.normpath(os.path.join(root, place)) for home, place in given.folders.items()}
        if folders != self._folders:
            self._move(folders, given.behind)
        if given.reload or given.installed:
            importlib.invalidate_caches()
        failed: dict[str, str] = {}
        for name in given.reload:
            if (module := sys.modules.get(name)) is not None:
                try:
                    _reload(module, patch=given.patch)
                except Exception as error:
                    failed[name] = f"{type(error).__name__}: {error}"
        return Entered(tuple(name for name in given.installed if not _is_installed(name)), failed)

    def _move(self, folders: dict[str, str], behind: frozenset[str]) -> None:
        moved = {place: folders[home] for home, place in self._folders.items() if home in folders}
        others = [entry for entry in sys.path if entry not in self._added]
        added = {home: place for home, place in folders.items() if place not in others}
        before = [place for home, place in added.items() if home not in behind]
        after = [place for home, place in added.items() if home in behind]
        sys.path[:] = [*before, *others, *after]
        self._folders, self._added = folders, frozenset(added.values())
        importlib.invalidate_caches()
        for module in list(sys.modules.values()):
            path: Any = getattr(module, "__dict__", {}).get("__path__")
            if path.__class__ is list:  # where the parts of a package are found that are imported from now on
                path[:] = [_moved(entry, moved) for entry in path]

    def explain(self, error: BaseException | None) -> None:
        """Have an error of a missing module say what helps; on the notebook's own machine it is as in a local cell."""
        if self._given.elsewhere and isinstance(error, ModuleNotFoundError) and error.name:
            notes: list[str] = error.__dict__.setdefault("__notes__", [])
            notes.append(what_helps(error.name.partition(".")[0], chosen=self._given.chosen))


def what_helps(name: str, *, chosen: bool) -> str:
    """Return what the user can do where an installed module is missing.

    Args:
        name: of the module.
        chosen: whether the user has said what is installed.
    """
    if chosen:
        return f"add what provides {name!r} to the dependencies of this notebook's cells"
    return (
        f"`%remote restart` begins a session that has what this notebook has imported, {name!r} too if it is "
        "installed here; `%%remote --dependencies` says what a session has"
    )


def _root_of(digest: str) -> str:
    return str(place_of(digest, Layout.beside(context.jobs_folder()).bundles))


def _moved(entry: Any, moved: Mapping[str, str]) -> Any:
    for before, after in moved.items():
        if type(entry) is str and (entry == before or entry.startswith(before + os.sep)):
            return after + entry[len(before) :]
    return entry


def _reload(module: Any, *, patch: bool) -> None:
    if not patch:
        importlib.reload(module)
        return
    autoreload: Any = importlib.import_module("IPython.extensions.autoreload")
    autoreload.superreload(module, importlib.reload, {})


def _is_installed(name: str) -> bool:
    try:
        return name in sys.modules or importlib.util.find_spec(name) is not None
    except (ImportError, ValueError, AttributeError):
        return False
