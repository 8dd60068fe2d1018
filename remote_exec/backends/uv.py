"""Builds of uv for hosts: the one of this installation where that runs there, else one for the host's platform.

uv for other platforms comes from the user's own package index, by the uv that is here, and stays in a cache folder of
the client's (see `cache_folder`), where any number of processes may get it at once.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

from ..agent.builders import tool_environ
from ..agent.platforms import this_platform
from ..model.environment import mask_credentials
from ..model.errors import RuntimeEnvironmentError
from ..model.platform import Platform
from ..worker.private import make_private_folder

FETCH_SECONDS = 600.0
STALE_SECONDS = 3600.0  # what has been fetched for so long was left by a process that died
UNUSED_SECONDS = 90 * 86400.0
INSTALL = "install uv on the host, where PATH or ~/.local/bin has it: pip install --user uv"

# as uv names the platforms that it knows; for Linux, those builds are linked statically and run with any C library
_TRIPLES = {
    ("linux", "x86_64"): "x86_64-unknown-linux-musl",
    ("linux", "aarch64"): "aarch64-unknown-linux-musl",
    ("linux", "riscv64"): "riscv64-unknown-linux",
    ("darwin", "x86_64"): "x86_64-apple-darwin",
    ("darwin", "aarch64"): "aarch64-apple-darwin",
}


def uv_for(platform: Platform) -> Path:
    """Return a uv that runs on a platform, of the version that is here; got from the package index if need be.

    Raises:
        RuntimeEnvironmentError: there is no build for it, or the index was not reached.

    Example:
        >>> uv_for(Platform("linux", "aarch64", "musl", "1.2"))  # doctest: +SKIP
        PosixPath('/home/me/.cache/remote_exec/tools/uv-0.13.9-aarch64-unknown-linux-musl')
    """
    own = own_uv()
    if _own_runs_on(platform):
        return own
    triple = _TRIPLES.get((platform.system, platform.machine))
    if triple is None:
        raise RuntimeEnvironmentError(f"there is no build of uv for {platform}", hint=INSTALL)
    place = cache_folder() / f"uv-{own_version()}-{triple}"
    if not place.is_file():
        _fetch(own, triple, place)
    with contextlib.suppress(OSError):
        os.utime(place)
    return place


def cache_folder() -> Path:
    """Return where copies of uv for other platforms are kept: ``$XDG_CACHE_HOME/remote_exec/tools``."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(cache, "remote_exec", "tools")


def own_uv() -> Path:
    """Return where the uv of this installation lies."""
    from uv import find_uv_bin

    return Path(find_uv_bin())


@functools.cache
def own_version() -> str:
    """Return the version of the uv of this installation."""
    from importlib.metadata import version

    return version("uv")


def _own_runs_on(platform: Platform) -> bool:
    here = this_platform()
    if (here.system, here.machine, here.libc) != (platform.system, platform.machine, platform.libc):
        return False
    return platform == here or _oldest_version() <= platform.numbers


@functools.cache
def _oldest_version() -> tuple[int, ...]:
    """Return the oldest C library (on macOS, the oldest system) that the uv here runs with, as its wheel says."""
    from importlib.metadata import distribution

    tags = re.findall(
        r"(?:manylinux|musllinux|macosx)_(\d+)_(\d+)_", distribution("uv").read_text("WHEEL") or ""
    )
    found = [(int(major), int(minor)) for major, minor in tags]
    return min(found) if found else this_platform().numbers  # built on this machine, perhaps


def _fetch(uv: Path, triple: str, place: Path) -> None:
    """Have uv unpack its own wheel for another platform, and publish the executable; nothing in it is run."""
    make_private_folder(place.parent)
    _remove_old(place.parent)
    with _scratch(place.parent) as work:
        argv = [str(uv), "--color", "never", "pip", "install", "--python", sys.executable]
        argv += [
            "--target",
            str(work / "wheel"),
            "--python-platform",
            triple,
            "--no-deps",
            "--link-mode",
            "copy",
        ]
        argv += ["--only-binary", ":all:", f"uv=={own_version()}"]
        what = f"uv {own_version()} for {triple} could not be got from the package index"
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=FETCH_SECONDS,
                check=False,
                cwd=work,
                env=tool_environ(os.environ),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RuntimeEnvironmentError(f"{what}: {error}", hint=INSTALL) from error
        found = work / "wheel" / "bin" / "uv"
        if done.returncode != 0 or not found.is_file():
            output = mask_credentials(done.stderr.strip())
            raise RuntimeEnvironmentError(what, output=output, hint=INSTALL)
        found.chmod(0o700)
        os.replace(found, place)


@contextlib.contextmanager
def _scratch(folder: Path) -> Generator[Path, None, None]:
    work = Path(tempfile.mkdtemp(prefix=".fetching-", dir=folder))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _remove_old(folder: Path) -> None:
    """Remove what killed processes left, and builds that have not been sent for long."""
    now = time.time()
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            age = now - path.stat().st_mtime
            if path.name.startswith(".fetching-") and age > STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
            elif path.name.startswith("uv-") and age > UNUSED_SECONDS:
                path.unlink()


def digest_of(path: Path) -> str:
    """Return the digest of a build, as blobs are named."""
    return _digest(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _digest(path: Path, _modified: int) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
