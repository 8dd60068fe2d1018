"""The files of one environment: its generations, the ready mark that names one of them, the locks on both.

The protocol that makes a crash at any point harmless is in `environments`, and so is the picture of the
folders; here are its single steps. Nothing is kept in memory: the files and their locks are the state, and
processes share it.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import field
from pathlib import Path
from typing import Any

from ..model.environment import EnvironmentKind, EnvironmentSpec
from ..model.errors import RuntimeEnvironmentError
from ..model.record import record
from ..worker.private import make_private_folder
from .interpreters import FileState, probe, state_of

_log = logging.getLogger(__name__)

MARK = "ready.json"
BUILD_LOCK = "build.lock"
USE_LOCK = "in-use.lock"
LOCK_POLL_SECONDS = 0.05  # flock has no descriptor to wait on that a cancel could interrupt


@record(kw_only=True)
class Environment:
    """An environment that is there. Got from `EnvironmentStore`.

    Attributes:
        digest: of the spec that asked for it.
        python: its interpreter.
        version: the interpreter's, as "3.11".
        created_at: seconds since the epoch; for one that was not built here, when it was found.
        variables: what processes in it need to have set. PATH is not among them: put `bin_folder` in front of
            it.
        bin_folder: where its commands lie (torchrun, ...).
        generation: its folder; None for one that is not ours (`INTERPRETER`, `CONDA_NAMED`).
    """

    digest: str
    python: Path
    version: str
    created_at: float
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    generation: Path | None = None

    @property
    def bin_folder(self) -> Path:
        """Where its commands lie."""
        return self.python.parent

    def hold(self) -> int | None:
        """Say that it is in use, until the descriptor returned and all its inherited copies are closed.

        Returns a descriptor (close-on-exec: pass it on by name), or None for one that is not ours to keep.

        Raises:
            RuntimeEnvironmentError: it was removed or replaced since it was looked up: look it up again.
        """
        if self.generation is None:
            return None
        # The order matters: who removes takes this lock first, then unmarks, then wipes. So a mark seen under
        # our lock stays true, and a remover killed half-way has already unmarked. Who only lists takes the
        # lock for a moment.
        while _current(self.generation.parent) == self.generation.name:
            descriptor = try_lock(self.generation / USE_LOCK, fcntl.LOCK_SH)
            if descriptor is None:
                if not (self.generation / USE_LOCK).exists():
                    break
                time.sleep(0.001)
                continue
            if _current(self.generation.parent) == self.generation.name:
                os.utime(descriptor)
                return descriptor
            os.close(descriptor)
        raise RuntimeEnvironmentError(
            f"the environment {self.digest} was removed or replaced meanwhile", hint="run the call again"
        )


# ── the ready mark ──────────────────────────────────────────────────────────────────────────────────────────


@record(kw_only=True)
class Mark:
    """What ``ready.json`` says. The spec itself is not in it: an index URL may hold a password."""

    digest: str
    generation: str
    python: str
    version: str
    created_at: float
    summary: str
    variables: dict[str, str]
    base: FileState  # of the interpreter behind the environment's links, when it was built
    home: Path

    @classmethod
    def of(cls, spec: EnvironmentSpec, generation: Path, python: Path) -> Mark:
        base = state_of(python)
        if base is None:
            raise RuntimeEnvironmentError(f"the environment was built without an interpreter at {python}")
        prefix = str(python.parent.parent)
        name = "CONDA_PREFIX" if spec.kind is EnvironmentKind.CONDA else "VIRTUAL_ENV"
        return cls(
            digest=spec.digest,
            generation=generation.name,
            python=str(python),
            version=spec.python,
            created_at=time.time(),
            summary=spec.summary,
            variables={name: prefix},
            base=base,
            home=generation.parent,
        )

    @property
    def environment(self) -> Environment:
        return Environment(
            digest=self.digest,
            python=Path(self.python),
            version=self.version,
            created_at=self.created_at,
            variables=self.variables,
            generation=self.home / self.generation,
        )

    def sick(self) -> str | None:
        """Return why it cannot be used, or None. Runs the interpreter only when its file has changed."""
        python = Path(self.python)
        state = state_of(python)
        if state is None:
            return f"its interpreter is gone: {os.path.realpath(python)}"
        if not (self.home / self.generation / USE_LOCK).exists():
            return "its lock file is gone"
        if not (python.parent.parent / "lib").is_dir():
            return f"its packages are gone: {python.parent.parent / 'lib'}"
        if state == self.base:
            return None
        found = probe(python)
        if isinstance(found, str):
            return found
        return None if found.version == self.version else f"its interpreter is now Python {found.version}"


def read_mark(home: Path) -> Mark | None:
    try:
        fields: dict[str, Any] = json.loads((home / MARK).read_bytes())
        inode, size, modified = fields.pop("base")
        return Mark(**fields, base=(inode, size, modified), home=home)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        _log.warning("the ready mark in %s is not readable, so it counts for none: %s", home, error)
        return None


def write_mark(home: Path, mark: Mark) -> None:
    """Make the generation the one that is used: the only step of a build that anyone else sees."""
    fields = {name: value for name, value in vars(mark).items() if name != "home"}
    temporary = home / mark.generation / MARK
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(fields, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(home / MARK)
    descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _current(home: Path) -> str | None:
    mark = read_mark(home)
    return mark.generation if mark else None


def unmark(home: Path, mark: Mark) -> bool:
    """Take the mark away unless somebody holds its generation. The caller has the build lock."""
    lock = home / mark.generation / USE_LOCK
    held = try_lock(lock, fcntl.LOCK_EX)
    if held is None and lock.exists():
        return False
    (home / MARK).unlink()
    if held is not None:
        os.close(held)
    return True


def wipe_leftovers(home: Path) -> None:
    """Wipe every generation but the marked one, unless it is in use. The caller has the build lock."""
    current = _current(home)
    for generation in home.glob("g-*"):
        if generation.name == current:
            continue
        lock = generation / USE_LOCK
        held = try_lock(lock, fcntl.LOCK_EX)
        if held is None and lock.exists():
            continue  # a sick one with workers, or a killed builder's uv that still writes: the next time
        shutil.rmtree(generation, ignore_errors=True)
        if held is not None:
            os.close(held)


def retire(home: Path) -> None:
    """Remove the environment's folder if nothing is left in it but the build lock, which the caller has."""
    if read_mark(home) is None and not any(home.glob("g-*")):
        # Who waits for the lock finds its file gone and makes a new one, which then keeps the folder.
        (home / BUILD_LOCK).unlink(missing_ok=True)
        with suppress(OSError):
            home.rmdir()


# ── locks ───────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def building(
    home: Path, on_line: Callable[[str], None], cancelled: Callable[[], bool]
) -> Generator[None, None, None]:
    """Hold the build lock. A remover may unlink the file that is waited on, hence anew each time."""
    path = home / BUILD_LOCK
    told = False
    while (descriptor := try_lock(path, fcntl.LOCK_EX, create=True)) is None:
        if cancelled():
            raise CancelledError
        if not told:
            on_line("waiting for another process that builds the same environment")
            told = True
        time.sleep(LOCK_POLL_SECONDS)
    try:
        yield
    finally:
        os.close(descriptor)


def try_lock(path: Path, operation: int, *, create: bool = False) -> int | None:
    """Return a descriptor that holds the lock, or None when it is taken or its file is gone."""
    if create:
        make_private_folder(path.parent)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.stat(path)):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def lock_new(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def size_bytes(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except OSError:
                continue  # went while we looked
    return total
