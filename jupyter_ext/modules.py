"""The notebook's own modules on their way to its session: which ones cells need, and bringing them in time.

Modules that are installed do not travel: they must be where the cells run, and what is missing there is told. Owned by
the kernel's main thread; files are read, nothing is imported.
"""

from __future__ import annotations

import contextlib
import dis
import importlib
import os
import sys
from collections.abc import Iterable, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple, TypedDict

from remote_exec.capture.bundle import bundle_modules
from remote_exec.capture.function import source_paths
from remote_exec.capture.imports import imports_of_code
from remote_exec.capture.locate import OWN, Origin, origin_of_path
from remote_exec.capture.modules import Reach as Reached
from remote_exec.capture.modules import reach as reached_from
from remote_exec.capture.named import needed_modules
from remote_exec.client.connections import connections
from remote_exec.client.home_files import remember
from remote_exec.client.placement import stays_here
from remote_exec.errors import RuntimeEnvironmentError
from remote_exec.model.layout import Layout
from remote_exec.options import Options
from remote_exec.remote_class import RemoteInstance
from remote_exec.serial import reducers
from remote_exec.serial.pickling import Named
from remote_exec.session.content import Look
from remote_exec.session.far_end import FarEnd
from remote_exec.session.mirror import Reach
from remote_exec.session.modules import Entered, Given, what_helps

SHELL = ("IPython",)
FRONT_ENDS = (
    "comm",
    "ipywidgets",
    "matplotlib",
    "matplotlib_inline",
)  # what displays here has its like there
THESE = "the notebook's modules"
Folders = dict[str, str]

_wanted: set[str] = set()  # what cells of this kernel have needed so far, whatever the session


class Needs(NamedTuple):
    """What cells need where they run.

    Attributes:
        all: dotted names of local modules, and of installed ones.
        pickled: of these, what the values of names cannot be loaded without: name -> modules.
        parts: loaded modules that code reaches as attributes of packages: ``import json.tool`` binds `json` alone.
    """

    all: frozenset[str]
    pickled: Mapping[str, frozenset[str]]
    parts: frozenset[str]


def needs_of(looks: Mapping[str, Look], codes: Iterable[CodeType], namespace: Mapping[str, object]) -> Needs:
    """Return what names' values and a cell's code need: what they hold, and what their functions import."""
    pickled: dict[str, frozenset[str]] = {}
    code = Named()
    for name, look in looks.items():
        if look.modules:
            named = Named()
            named.modules |= look.modules
            pickled[name] = needed_modules(named)
        code.functions += look.functions
    found = set(needed_modules(code)).union(*pickled.values())
    for cell in codes:
        if any(True for _ in imports_of_code(cell)):
            found |= reached_from(FunctionType(cell, {"__name__": "__main__"})).names
    packages = [value for name in looks if isinstance(value := namespace.get(name), ModuleType)]
    running = [*codes, *(function.__code__ for function in code.functions)] if packages else []
    parts = {part.__name__ for each in running for part in reducers._submodules(packages, each)}
    found |= parts
    _wanted.update(found)
    return Needs(frozenset(found), pickled, frozenset(parts))


def import_as_there(codes: Iterable[CodeType], namespace: Mapping[str, object]) -> None:
    """Import the parts of packages that a cell has imported elsewhere, so that its ``import json.tool`` holds here."""
    for name in {
        each.argval for code in codes for each in dis.get_instructions(code) if each.opname == "IMPORT_NAME"
    }:
        package = name.partition(".")[0]
        if package != name and namespace.get(package) is sys.modules.get(package, namespace):
            with contextlib.suppress(Exception):
                importlib.import_module(name)


class Environment(TypedDict):
    """What a session's worker is asked for with; see `RemoteInstance`."""

    modules: frozenset[str]
    requires: tuple[str, ...]


def environment_for(shell: Any, options: Options) -> Environment:
    """Return what a session needs where it runs: elsewhere that is all that the notebook has imported so far.

    Args:
        shell: this kernel's IPython.
        options: the session's.
    """
    requires = SHELL + tuple(name for name in FRONT_ENDS if name in sys.modules)
    if stays_here(options):
        return {"modules": frozenset(), "requires": requires}
    return {"modules": _imported(shell.user_ns, shell.user_ns_hidden), "requires": requires}


def _imported(namespace: Mapping[str, Any], own: Iterable[str]) -> frozenset[str]:
    named = Named()
    for name in namespace.keys() - set(own):
        value = namespace[name]
        module = value.__name__ if isinstance(value, ModuleType) else type(value).__module__
        of = getattr(value, "__module__", None) if isinstance(value, (type, FunctionType)) else None
        named.modules |= {each for each in (module, of) if isinstance(each, str)}
    found = reached_from(None, modules=needed_modules(named) | _wanted)
    return frozenset(found.third_party).union(*found.third_party.values())


class LocalModules:
    """What one session has of the notebook's modules.

    Args:
        shell: this kernel's IPython.
        far: the session's other end.
    """

    def __init__(self, shell: Any, far: RemoteInstance[FarEnd]) -> None:
        self._shell = shell
        self._far = far
        self._same_machine: bool | None = None
        self._needed: frozenset[str] = frozenset()  # all that was needed so far
        self._installed: frozenset[str] = frozenset()  # what was asked after and is there
        self._missing: frozenset[str] = frozenset()  # ... and is not, or was not when it was needed last
        self._folders: Folders = {}
        self._bundle = ""
        self._loaded: dict[str, _State] = {}  # local module -> what it was here when a cell ran last
        self._seen: set[str] = set()  # names in `sys.modules` that were looked at

    def bring(self, needed: frozenset[str]) -> None:
        """Have the far end import what is needed; nearly free when it has it all.

        Raises:
            SizeLimitExceeded: the local modules are too large.
        """
        far = self._far
        if self._same_machine is None:
            self._same_machine = far._host.here and far.python() == sys.prefix
        reloaded = self._reloaded()
        fresh: tuple[str, ...] = ()
        bundle, folders, behind = self._bundle, self._folders, frozenset[str]()
        if self._same_machine:
            folders, behind = own_folders()
        elif reloaded or not needed <= self._needed or needed & self._missing:
            found = reached_from(None, modules=self._needed | needed)
            if found.local:
                bundle, folders = self._upload(found)
            # an installed package stands for its parts, but for a namespace's
            asked = {name for name in needed if name.partition(".")[0] in found.third_party}
            fresh = tuple(sorted(asked.union(found.third_party) - self._installed))
        if reloaded or fresh or (bundle, folders) != (self._bundle, self._folders):
            elsewhere, patch, chosen = not self._same_machine, self._patches(), self._is_chosen()
            given = Given(elsewhere, bundle, folders, behind, reloaded, patch, fresh, chosen)
            entered: Entered = far.enter(given)
            for name, error in entered.failed.items():
                print(f"{name} was not reloaded there, and is as it was: {error}", file=sys.stderr)
            self._missing = self._missing.difference(fresh).union(entered.missing)
            self._installed |= set(fresh) - self._missing
        self._needed |= needed
        self._bundle, self._folders = bundle, folders
        self._loaded.update((name, self._state(name)) for name in reloaded)

    def without_missing(self, reach: Reach, needs: Needs) -> Reach:
        """Return what names lead to; those cannot travel whose values need what is not installed there."""
        cannot: dict[str, Exception] = {}
        for name, modules in needs.pickled.items():
            if lost := modules & self._missing:
                module = min(lost)
                cannot[name] = RuntimeEnvironmentError(
                    f"{name} needs {module!r}, which is not installed where this notebook's cells run",
                    hint=what_helps(module, chosen=self._is_chosen()),
                )
        if not cannot:
            return reach
        looks = {name: look for name, look in reach.looks.items() if name not in cannot}
        changed = [name for name in reach.changed if name not in cannot]
        return reach._replace(looks=looks, changed=changed, cannot={**reach.cannot, **cannot})

    def what_helps_with(self, error: Exception) -> str:
        """Return what the user can do where something could not be loaded there; empty where that is not known."""
        missing = [name for name in self._missing if repr(name) in str(error)]
        return what_helps(min(missing), chosen=self._is_chosen()) if missing else ""

    def _upload(self, found: Reached) -> tuple[str, Folders]:
        """Bring local modules to a host, what it lacks of them; return their bundle, and where folders are in it."""
        cache = Layout.of(os.environ).home / "cache" / "index-v1"
        limit = self._far._options.bundle_size_limit
        with connections.watch("capture", THESE):
            capture = bundle_modules(found, cache_dir=cache, limit_bytes=limit)
        bundle, sources = capture.bundle, source_paths(capture.sources)
        if bundle.digest != self._bundle:
            remember(capture)
            with connections.watch("transfer", THESE) as span:
                connections.with_agent(self._far._host, lambda session: session.upload(bundle, sources, span))
        return bundle.digest, dict(zip(capture.origins, bundle.import_roots, strict=True))

    def settle(self) -> None:
        """Take it that what this process has loaded by now is what the far end has, or will have."""
        fresh = sys.modules.keys() - self._seen
        self._seen |= fresh
        for name in filter(_is_local, fresh):
            state = self._state(name)
            if state.time is None and self._patches():  # which notes the time after this cell, as it is now
                state = state._replace(time=self._reloader().filename_and_mtime(state.module)[1])
            self._loaded[name] = state

    def _reloaded(self) -> tuple[str, ...]:
        """Return the local modules that were loaded anew here; those first that others import."""
        changed = {name for name, before in self._loaded.items() if self._state(name).is_newer_than(before)}
        return tuple(name for name in reversed(list(sys.modules)) if name in changed) if changed else ()

    def _state(self, name: str) -> _State:
        module, reloader = sys.modules.get(name), self._reloader()
        time = reloader.modules_mtimes.get(name) if reloader is not None else None
        return _State(module, getattr(module, "__spec__", None), time)

    def _is_chosen(self) -> bool:
        """Whether the user has said what is installed there."""
        options = self._far._options
        return options.dependencies is not None or bool(options.job_conda_env)

    def _patches(self) -> bool:
        reloader = self._reloader()
        return reloader is not None and bool(reloader.enabled)

    def _reloader(self) -> Any:
        return getattr(self._shell.magics_manager.registry.get("AutoreloadMagics"), "_reloader", None)


class _State(NamedTuple):
    """What differs once a module was loaded anew: itself, how it was found, and when ``%autoreload`` has read it."""

    module: object
    spec: object
    time: float | None

    def is_newer_than(self, before: _State) -> bool:
        if self.module is None:
            return False  # it is not loaded any more
        anew = self.module is not before.module or self.spec is not before.spec
        return anew or (None not in (before.time, self.time) and self.time != before.time)


def _is_local(name: str) -> bool:
    file = getattr(sys.modules.get(name), "__file__", None)
    top = name.partition(".")[0]
    return isinstance(file, str) and top not in OWN and origin_of_path(os.path.abspath(file)) is Origin.LOCAL


def own_folders() -> tuple[Folders, frozenset[str]]:
    """Return the folders that this process imports the user's modules from, and those behind what is installed."""
    found: list[str] = []
    behind: set[str] = set()
    installed = False
    for path in dict.fromkeys(os.path.abspath(entry) for entry in sys.path):
        if not os.path.isdir(path):
            continue
        if origin_of_path(path) is not Origin.LOCAL:
            installed = True
            continue
        found.append(path)
        if installed:
            behind.add(path)
    return {path: path for path in found}, frozenset(behind)
