"""uv on this host: one that is installed here, or one of ours, brought by a client or by pip.

Ours lie in a folder of the agent's, each under its version and the digest of what was brought::

    <folder>/uv-0.5.1-0123456789abcdef/uv

A folder appears whole, by one rename, and is never changed. All state is on disk, so any thread and process may ask.
Builders ask it (`builders`) whenever they need uv; who brings it is the client's part.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path

from ..model.environment import mask_credentials
from ..model.errors import RuntimeEnvironmentError
from ..model.record import record
from ..worker.private import make_private_folder
from .interpreters import FileState, state_of

OLDEST = (0, 5)  # that knows all that `builders` asks for
PROBE_SECONDS = 20.0
PIP_SECONDS = 300.0
CLEAN_SECONDS = 120.0

_VERSION = re.compile(r"^\d+(\.\d+){1,3}[a-z0-9.]*$")
_DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")

_log = logging.getLogger(__name__)


@record
class Uv:
    """A uv that ran when it was last asked."""

    path: Path
    version: str


def find_uv(folder: Path | None, environ: Mapping[str, str]) -> Uv | None:
    """Return the uv to build with: one of the host's own that is new enough, else the newest of ours.

    Args:
        folder: where ours lie, if there are any.
        environ: PATH and HOME tell where to look.
    """
    for path in (*_installed(environ), *(_ours(folder) if folder else ())):
        state = state_of(path)
        version = _version(path, state) if state else ""
        if _numbers(version) >= OLDEST:
            if folder is not None and folder in path.parents:
                _note_use(path.parent)
            return Uv(path, version)
    return None


def take_in(folder: Path, version: str, digest: str, link: Callable[[Path], object]) -> Path:
    """Keep a uv that a client has sent, and return where it lies.

    Args:
        folder: where ours lie.
        version: its own.
        digest: of its bytes.
        link: makes an executable file of them at a path.

    Raises:
        ValueError: version or digest is none.
        RuntimeEnvironmentError: it does not run on this host.
    """
    if not _VERSION.match(version) or not _DIGEST.match(digest):
        raise ValueError("a tool is named by its version and the sha256 digest of its bytes")
    place = folder / f"uv-{version}-{digest[7:23]}"
    if not place.is_dir():
        with _new_folder(folder) as work:
            path = work / "uv"
            link(path)
            state = state_of(path)
            if not (state and _version(path, state)):
                raise RuntimeEnvironmentError(
                    f"the uv that was sent does not run on this host: {_reason(path)}"
                )
            _publish(work, place)
    return place / "uv"


def install(folder: Path, environ: Mapping[str, str]) -> Path:
    """Have this host's pip bring uv, and return where it lies.

    Raises:
        RuntimeEnvironmentError: there is no pip, or it could not.
    """
    wanted = f"uv>={'.'.join(map(str, OLDEST))}"
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    argv += ["--no-cache-dir", "--no-compile", "--only-binary", ":all:", "--no-deps"]
    argv += ["--target", "pip", wanted]
    with _new_folder(folder) as work:
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=PIP_SECONDS,
                check=False,
                cwd=work,
                env=dict(environ),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RuntimeEnvironmentError(f"pip could not install uv on this host: {error}") from error
        path = work / "uv"
        if done.returncode == 0:
            os.replace(work / "pip" / "bin" / "uv", path)
            shutil.rmtree(work / "pip")
        state = state_of(path)
        version = _version(path, state) if state else ""
        if not version:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it said nothing"]
            raise RuntimeEnvironmentError(
                f"pip could not install uv on this host: {mask_credentials(last[0])}"
            )
        place = folder / f"uv-{version}-pip"
        _publish(work, place)
    return place / "uv"


def prune(folder: Path, *, used_before: float) -> int:
    """Remove those of ours that nobody has used for long; return how many. A uv that runs goes on."""
    removed = 0
    for place in folder.glob("*") if folder.is_dir() else ():
        try:
            if place.stat().st_mtime < used_before:
                shutil.rmtree(place)
                removed += 1
        except OSError:
            _log.debug("tool %s went while it was looked at", place)
    return removed


def bound_cache(cache: Path, folder: Path, *, limit_bytes: int) -> bool:
    """Have uv empty its cache in the agent's folder when that takes too much room; say whether it was.

    Args:
        cache: uv's, where this host has one of its own; what environments share with it is theirs.
        folder: where our copies of uv lie.
        limit_bytes: how much it may hold beside.
    """
    if not cache.is_dir() or _unshared_bytes(cache) <= limit_bytes:
        return False
    uv = find_uv(folder, os.environ)
    if uv is None:
        return False
    argv = [
        str(uv.path),
        "cache",
        "clean",
        "--quiet",
        "--cache-dir",
        str(cache),
    ]  # waits for those that use it
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=CLEAN_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _unshared_bytes(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                status = os.lstat(os.path.join(parent, name))
                total += status.st_size if status.st_nlink == 1 else 0
    return total


# ── the host's own ──────────────────────────────────────────────────────────────────────────────────────────


def _installed(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield where uv may lie: a host's daemons have not the PATH of its users' shells."""
    if found := shutil.which("uv", path=environ.get("PATH", os.defpath)):
        yield Path(found)
    if home := environ.get("HOME"):
        yield Path(home, ".local", "bin", "uv")
        yield Path(home, ".cargo", "bin", "uv")


def _ours(folder: Path) -> list[Path]:
    """Return what lies in the folder, newest version first."""
    found = [place / "uv" for place in folder.glob("uv-*") if (place / "uv").is_file()]
    return sorted(found, key=lambda path: _numbers(path.parent.name.split("-")[1]), reverse=True)


def _version(path: Path, state: FileState) -> str:
    """Return what version a file says that it is; empty when it does not run."""
    if known := _known.get((path, state)):
        return known
    try:
        done = _run(path)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    words = done.stdout.split()
    if done.returncode != 0 or len(words) < 2 or not _VERSION.match(words[1]):
        return ""
    _known[path, state] = words[1]
    return words[1]


_known: dict[tuple[Path, FileState], str] = {}  # only what ran: what failed may work next time


def _reason(path: Path) -> str:
    try:
        done = _run(path)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return f"exit status {done.returncode}: {(done.stderr or done.stdout).strip()[:200]}"


def _run(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(path), "--version"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PROBE_SECONDS,
        check=False,
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


# ── our folder ──────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _new_folder(folder: Path) -> Generator[Path, None, None]:
    """Make a folder to fill beside those that are there; it goes, unless it was published."""
    make_private_folder(folder)
    work = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _publish(work: Path, place: Path) -> None:
    try:
        os.rename(work, place)
    except OSError:
        if not place.is_dir():  # else another was first
            raise


def _note_use(place: Path) -> None:
    with contextlib.suppress(OSError):
        os.utime(place)
