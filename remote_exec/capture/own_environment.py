"""The caller's own environment: its interpreter, and one text that changes whenever something is installed in it.

A worker that imported a package before it was upgraded must not serve calls made after. Packages are not read for
that: pip, uv and conda leave dated metadata. A file edited by hand inside site-packages is not seen. Owns one cache:
the last text, with the modification times of the folders that it was made from.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator

from ..model.digests import digest_of
from ..model.environment import EnvironmentKind, EnvironmentSpec

_INSTALLED_FOLDERS = ("site-packages", "dist-packages")
_DATED = (".dist-info", ".egg-info", ".egg-link", ".pth", ".py", ".so")

LOOK_SECONDS = 0.005  # nothing is installed faster than that; uv takes 20 ms at times

Times = tuple[tuple[str, int], ...]  # folder, modification time in ns


def own_environment() -> EnvironmentSpec:
    """Return the environment that this process runs in."""
    return EnvironmentSpec(
        kind=EnvironmentKind.INTERPRETER,
        python=f"{sys.version_info[0]}.{sys.version_info[1]}",
        name=sys.executable,
        installed=installed(),
    )


def installed() -> str:
    """Return 16 hexadecimal digits that change with what is installed on `sys.path`; nearly free when asked again."""
    global _last, _looked_at
    now = time.monotonic()
    if now - _looked_at < LOOK_SECONDS:
        return _last[1]
    _looked_at = now
    times = _times(sys.path)
    if times != _last[0]:
        _last = (times, installed_in(folder for folder, _ in times))
    return _last[1]


def installed_in(folders: Iterable[str]) -> str:
    """`installed` of some folders, without the cache."""
    entries = sorted(entry for folder in folders for entry in _entries(folder))
    return digest_of(repr(entries))[:16]


_last: tuple[Times, str] = ((), "")
_looked_at = float("-inf")


def _times(path: Iterable[str]) -> Times:
    found: list[tuple[str, int]] = []
    for folder in path:
        if folder.endswith(_INSTALLED_FOLDERS):
            try:
                found.append((folder, os.stat(folder).st_mtime_ns))
            except OSError:
                continue
    return tuple(found)


def _entries(folder: str) -> Iterator[tuple[str, int]]:
    """Yield what is installed in a folder; of packages the name alone, since bytecode written later dates them anew."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(_DATED):
                    yield entry.name, entry.stat().st_mtime_ns
                elif entry.name != "__pycache__":
                    yield entry.name, 0
    except OSError:  # it is not there, or changes at this moment
        return
