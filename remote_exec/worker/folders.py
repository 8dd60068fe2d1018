"""What there is in a folder, or a file, that is to travel as it is: names, files, links; nothing is left out.

A link that stays inside is kept as a link. One that leads out travels as the file that it leads to. What cannot
travel (a link to a folder elsewhere or to nothing, a socket, a device) is an error that names it.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from typing import NamedTuple

from ..model.errors import SerializationError
from .atomic import StrPath


class FoundFile(NamedTuple):
    """A file: where it stands in the tree, its absolute path, and its stat."""

    path: str
    source: str
    stat: os.stat_result

    @property
    def executable(self) -> bool:
        """Whether its owner may run it."""
        return bool(self.stat.st_mode & stat.S_IXUSR)


class Found(NamedTuple):
    """What is there; all paths begin with `name`."""

    name: str
    folders: list[str]
    files: list[FoundFile]
    links: list[tuple[str, str]]


def look(path: StrPath) -> Found:
    """Find out what is in a folder, or that it is a single file.

    Raises:
        SerializationError: it is not there, cannot be read, or something in it cannot travel.
    """
    given = os.path.abspath(path)
    root, name = os.path.realpath(given), os.path.basename(given) or "root"
    found = Found(name, [], [], [])
    try:
        status = os.stat(root)
        if stat.S_ISDIR(status.st_mode):
            found.folders.append(name)
            _look_into(root, found)
        else:
            found.files.append(_file(name, root, status))
    except OSError as error:
        raise refusal(error.filename or root, _reason(error)) from None
    return found


def refusal(path: StrPath, reason: str, hint: str = "") -> SerializationError:
    """Return the error that says why a file or folder cannot travel."""
    return SerializationError(
        f"{os.fspath(path)} cannot travel: {reason}", path=(os.fspath(path),), hint=hint
    )


def _look_into(root: str, found: Found) -> None:
    pending = [(root, found.name)]
    while pending:
        folder, place = pending.pop()
        for entry in _entries(folder):
            inside = f"{place}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                found.folders.append(inside)
                pending.append((entry.path, inside))
            elif not entry.is_symlink():
                found.files.append(_file(inside, entry.path, entry.stat(follow_symlinks=False)))
            elif stays_inside(inside, target := os.readlink(entry.path)):
                found.links.append((inside, target))
            else:
                found.files.append(_behind_link(inside, entry.path, target))


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from entries


def stays_inside(path: str, target: str) -> bool:
    """Whether a link at a path in a tree leads to a place in it: upwards first, if at all, and then downwards."""
    parts = target.split("/")
    ups = 0
    while ups < len(parts) and parts[ups] == "..":
        ups += 1
    if not target or any(part in ("", ".", "..") for part in parts[ups:]):
        return False
    return posixpath.dirname(path).count("/") >= ups


def _behind_link(place: str, path: str, target: str) -> FoundFile:
    try:
        status = os.stat(path)
    except OSError:
        raise refusal(path, f"it is a link to {target}, where nothing is that can be read") from None
    if stat.S_ISDIR(status.st_mode):
        raise refusal(
            path,
            f"it is a link to the folder {target}",
            "make it a relative link inside, or pass that folder, too",
        )
    return _file(place, path, status)


def _file(place: str, path: str, status: os.stat_result) -> FoundFile:
    if not stat.S_ISREG(status.st_mode):
        raise refusal(path, f"it is a {_kind(status.st_mode)}; only files, folders and links can")
    return FoundFile(place, path, status)


def _kind(mode: int) -> str:
    if stat.S_ISSOCK(mode):
        return "socket"
    if stat.S_ISFIFO(mode):
        return "named pipe"
    return "device"


def _reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    if isinstance(error, PermissionError):
        return "it cannot be read by this user"
    return error.strerror or str(error)
