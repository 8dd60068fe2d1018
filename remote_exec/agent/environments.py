"""The environments of this host, on disk: looked up, built once, held while in use, removed when unneeded.

Not how one is built (`builders`), nor which Pythons there are (`interpreters`). All state is in the folder,
guarded by file locks, so any number of threads and processes may share it and each may be killed at any
time::

    <folder>/<32 hex of the digest>/
        build.lock          held (exclusive) by whoever builds, wipes or removes below this folder
        ready.json          the ready mark: names the one generation that may be used, and what it is
        g-<8 hex>/          a generation
            in-use.lock     held shared by its users and its builder's tools, exclusive by who wipes it
            venv/ or conda/

An environment is built in its final place, since neither virtual environments nor conda's can be moved
(scripts, ``.pth`` files and conda's binaries hold absolute paths; uv's relocatable ones cure only the
scripts). The place is new each time and nobody knows of it until ``ready.json`` names it, by one rename: a
builder that dies before leaves a folder that no one uses and the next builder wipes, and a sick environment
is replaced without pulling it away from under those who still run in it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from types import MappingProxyType

from ..model.environment import EnvironmentKind, EnvironmentSpec
from ..model.errors import RuntimeEnvironmentError
from ..model.record import record
from ..worker.private import make_private_folder
from .builders import Order, activate_conda, build
from .generations import (
    BUILD_LOCK,
    USE_LOCK,
    Environment,
    Mark,
    building,
    lock_new,
    read_mark,
    retire,
    size_bytes,
    try_lock,
    unmark,
    wipe_leftovers,
    write_mark,
)
from .interpreters import find, probe, state_of

__all__ = ["Environment", "EnvironmentInfo", "EnvironmentStore"]

_log = logging.getLogger(__name__)


@record(kw_only=True)
class EnvironmentInfo:
    """One built environment, as lists show it.

    Attributes:
        digest: its spec's.
        summary: its spec in one line, credentials masked.
        version: of its Python.
        created_at, last_used_at: seconds since the epoch.
        size_bytes: of all its files, those shared with uv's cache by hard links included.
        in_use: somebody holds it.
        sick: why it would be built again if asked for; None when it is well.
    """

    digest: str
    summary: str
    version: str
    created_at: float
    last_used_at: float
    size_bytes: int
    in_use: bool
    sick: str | None


def other_minor(spec: EnvironmentSpec, python: str, version: str) -> RuntimeEnvironmentError:
    """Return the error for an interpreter that is not of the caller's minor version."""
    if spec.kind is EnvironmentKind.CONDA_NAMED:
        hint = (
            f"call from Python {version}, or install the caller's there: conda install python={spec.python}"
        )
    else:
        hint = "the caller's own interpreter was replaced after it started: start it again"
    return RuntimeEnvironmentError(
        f"{python} is Python {version}, but the caller runs {spec.python}, and a pickled function runs on its "
        "own minor version only",
        hint=hint,
    )


def empty_of(spec: EnvironmentSpec) -> EnvironmentSpec:
    """Return what stands in where a host has no Python of the version wanted: an environment with nothing in it."""
    return EnvironmentSpec(kind=EnvironmentKind.UV, python=spec.python)


class EnvironmentStore:
    """All environments below one folder.

    Example:
        >>> store = EnvironmentStore(layout.environments, uv=None, wheel_blob=cache.path)  # doctest: +SKIP
        >>> found = store.lookup(spec) or store.build(spec, on_line=print)  # doctest: +SKIP
        >>> held = found.hold()  # doctest: +SKIP

    Args:
        folder: made when needed, mode 0700.
        uv: the uv executable; None: the host's own, or one in `tools`.
        wheel_blob: digest -> file of a wheel that travelled with the call.
        tools: where copies of uv lie that clients have brought.
        environ: what the building tools see, the user's index, cache and proxy settings among it; None: this
            process's.

    Attributes:
        uv: as above; may be set at any time.
        pythons: interpreters that this host's clients run, to build with where they have the version wanted.
    """

    def __init__(
        self,
        folder: Path,
        uv: Path | None,
        wheel_blob: Callable[[str], Path],
        *,
        tools: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.uv = uv
        self.pythons: Sequence[Path] = ()
        self._wheel_blob = wheel_blob
        self._tools = tools
        self._environ = os.environ if environ is None else environ
        self._conda: dict[str, tuple[Path, Mapping[str, str]]] = {}  # by name, as its activation told

    # ── finding and building ────────────────────────────────────────────────────────────────────────────────

    def lookup(self, spec: EnvironmentSpec) -> Environment | None:
        """Return the environment if it is there and well; never builds, and never waits."""
        if spec.kind is EnvironmentKind.INTERPRETER and not spec.name:
            return self._of_host(spec, self._environ) or self.lookup(empty_of(spec))
        if spec.kind is EnvironmentKind.INTERPRETER:
            return self._foreign(spec, Path(spec.name))
        if spec.kind is EnvironmentKind.CONDA_NAMED:
            known = self._conda.get(spec.name)
            return None if known is None else self._foreign(spec, *known)
        mark = read_mark(self._home(spec.digest))
        if mark is None or mark.digest != spec.digest:
            return None
        if reason := mark.sick():
            _log.warning("environment %s is sick: %s", spec.digest, reason)
            return None
        return mark.environment

    def build(
        self,
        spec: EnvironmentSpec,
        on_line: Callable[[str], None],
        cancelled: Callable[[], bool] = lambda: False,
        *,
        environ: Mapping[str, str] | None = None,
    ) -> Environment:
        """Return the environment, building it unless it is there. Blocks: call it in a thread or process.

        Args:
            spec: what is wanted.
            on_line: told what the tools say, line by line, credentials masked.
            cancelled: asked ten times a second; once true, the tools are stopped.
            environ: what the tools see for this build, instead of the store's.

        Raises:
            RuntimeEnvironmentError: it cannot be built or is not there; `output` has the tool's last lines.
            concurrent.futures.CancelledError: `cancelled` said so.
        """
        environ = self._environ if environ is None else environ
        if spec.kind is EnvironmentKind.INTERPRETER and not spec.name:
            if found := self._of_host(spec, environ):
                return found
            spec = empty_of(spec)
        if spec.kind is EnvironmentKind.INTERPRETER:
            return self._required(spec, Path(spec.name))
        if spec.kind is EnvironmentKind.CONDA_NAMED:
            python, variables = self._conda[spec.name] = activate_conda(spec.name, environ)
            return self._required(spec, python, variables)
        if found := self.lookup(spec):
            return found
        home = self._home(spec.digest)
        make_private_folder(home)
        with building(home, on_line, cancelled):
            return self.lookup(spec) or self._build_generation(spec, home, on_line, cancelled, environ)

    def take(
        self,
        spec: EnvironmentSpec,
        on_line: Callable[[str], None],
        cancelled: Callable[[], bool] = lambda: False,
        *,
        environ: Mapping[str, str] | None = None,
    ) -> tuple[Environment, int | None]:
        """Return the environment, built unless it is there, and the descriptor that holds it. Blocks, as `build`.

        Raises:
            RuntimeEnvironmentError: as `build` and `Environment.hold`.
            concurrent.futures.CancelledError: as `build`.
        """
        found = self.build(spec, on_line, cancelled, environ=environ)
        try:
            return found, found.hold()
        except RuntimeEnvironmentError:  # removed in between
            found = self.build(spec, on_line, cancelled, environ=environ)
            return found, found.hold()

    def _build_generation(
        self,
        spec: EnvironmentSpec,
        home: Path,
        on_line: Callable[[str], None],
        cancelled: Callable[[], bool],
        environ: Mapping[str, str],
    ) -> Environment:
        previous = read_mark(home)
        if previous and (reason := previous.sick()):
            on_line(f"building again, since {reason}")
        wipe_leftovers(home)
        generation = home / f"g-{secrets.token_hex(4)}"
        generation.mkdir(mode=0o700)
        held = lock_new(generation / USE_LOCK)
        try:
            python = build(
                Order(
                    spec=spec,
                    folder=generation,
                    uv=self.uv,
                    tools=self._tools,
                    pythons=self.pythons,
                    environ=environ,
                    wheel_blob=self._wheel_blob,
                    on_line=on_line,
                    cancelled=cancelled,
                    held=held,
                )
            )
            mark = Mark.of(spec, generation, python)
            write_mark(home, mark)
        except OSError as error:
            shutil.rmtree(generation, ignore_errors=True)
            raise RuntimeEnvironmentError(f"the environment could not be built: {error}") from error
        except BaseException:
            shutil.rmtree(generation, ignore_errors=True)
            raise
        finally:
            os.close(held)
        wipe_leftovers(home)  # the sick one, unless somebody still runs in it
        return mark.environment

    def _foreign(
        self, spec: EnvironmentSpec, python: Path, variables: Mapping[str, str] = MappingProxyType({})
    ) -> Environment | None:
        found = probe(python)
        if isinstance(found, str) or found.version != spec.python:
            return None
        return Environment(
            digest=spec.digest,
            python=python,
            version=found.version,
            created_at=time.time(),
            variables=dict(variables),
        )

    def _of_host(self, spec: EnvironmentSpec, environ: Mapping[str, str]) -> Environment | None:
        """Return a Python of the wanted version that this host has, whatever is installed in it."""
        found = find(spec.python, environ, self.pythons)
        return None if found is None else self._foreign(spec, found.path)

    def _required(
        self, spec: EnvironmentSpec, python: Path, variables: Mapping[str, str] = MappingProxyType({})
    ) -> Environment:
        if found := self._foreign(spec, python, variables):
            return found
        probed = probe(python)
        if isinstance(probed, str):
            raise RuntimeEnvironmentError(f"the interpreter asked for is not usable: {probed}")
        raise other_minor(spec, str(python), probed.version)

    def _home(self, digest: str) -> Path:
        return self.folder / digest.rpartition(":")[2][:32]  # 128 bits: shebang lines must stay short

    # ── keeping and removing ────────────────────────────────────────────────────────────────────────────────

    def list(self) -> Sequence[EnvironmentInfo]:
        """Return what is built, the last used first. Walks every environment, for its size."""
        infos = [self._info(home, mark) for home, mark in self._marked()]
        return sorted(infos, key=lambda info: info.last_used_at, reverse=True)

    def _info(self, home: Path, mark: Mark) -> EnvironmentInfo:
        lock = home / mark.generation / USE_LOCK
        held = try_lock(lock, fcntl.LOCK_EX)
        if held is not None:
            os.close(held)
        state = state_of(lock)
        return EnvironmentInfo(
            digest=mark.digest,
            summary=mark.summary,
            version=mark.version,
            created_at=mark.created_at,
            last_used_at=max(state[2] / 1e9 if state else 0.0, mark.created_at),
            size_bytes=size_bytes(home / mark.generation),
            in_use=held is None,
            sick=mark.sick(),
        )

    def remove(self, digest: str) -> bool:
        """Remove an environment; False when there is none, or it is being built or in use."""
        home = self._home(digest)
        if not home.is_dir():
            return False
        guard = try_lock(home / BUILD_LOCK, fcntl.LOCK_EX, create=True)
        if guard is None:
            return False
        try:
            mark = read_mark(home)
            if mark is not None and not unmark(home, mark):
                return False
            wipe_leftovers(home)
            retire(home)
            return mark is not None
        finally:
            os.close(guard)

    def prune(
        self,
        roots: Set[str],
        *,
        older_than_seconds: float | None = None,
        limit_bytes: int | None = None,
    ) -> Sequence[str]:
        """Remove what nobody needs and return the digests; without a bound, all but roots and what is in use.

        Args:
            roots: digests that stay, whatever their age.
            older_than_seconds: remove what was last used longer ago than this.
            limit_bytes: remove, the least recently used first, until all together are no larger.
        """
        self._wipe_abandoned()
        infos = self.list()
        for info in infos:
            if info.in_use:  # its age counts from when it was last held, not from when that began
                self._touch(info.digest)
        total = sum(info.size_bytes for info in infos)
        unbounded = older_than_seconds is None and limit_bytes is None
        removed: list[str] = []
        for info in reversed(infos):
            old = older_than_seconds is not None and time.time() - info.last_used_at > older_than_seconds
            large = limit_bytes is not None and total > limit_bytes
            if info.in_use or info.digest in roots or not (unbounded or old or large):
                continue
            if self.remove(info.digest):
                removed.append(info.digest)
                total -= info.size_bytes
        return removed

    def _wipe_abandoned(self) -> None:
        """Wipe what killed builders and removers left, where nobody builds now."""
        for home in self._homes():
            guard = try_lock(home / BUILD_LOCK, fcntl.LOCK_EX, create=True)
            if guard is None:
                continue
            wipe_leftovers(home)
            retire(home)
            os.close(guard)

    def _touch(self, digest: str) -> None:
        home = self._home(digest)
        if mark := read_mark(home):
            try:
                os.utime(home / mark.generation / USE_LOCK)
            except OSError:
                _log.debug("environment %s went while it was looked at", digest)

    def _homes(self) -> Iterator[Path]:
        if self.folder.is_dir():
            yield from sorted(path for path in self.folder.iterdir() if path.is_dir())

    def _marked(self) -> Iterator[tuple[Path, Mark]]:
        for home in self._homes():
            if mark := read_mark(home):
                yield home, mark
