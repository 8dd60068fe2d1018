"""What an image holds, found out without running it: its Pythons, and its users' numbers.

A container that is made and never started shows its files. A Python's version is in the name of the file that
``python3`` leads to: so it is in Debian's, Alpine's, conda's, uv's and the official images.
"""

from __future__ import annotations

import contextlib
import io
import posixpath
import re
import tarfile
from collections.abc import Iterator
from typing import Any

from ...model.errors import HostUnavailable
from ...model.record import record
from .engine import Engine

OLDEST = (3, 10)
NEWEST = (3, 15)
USUAL_FOLDERS = ("/usr/local/bin", "/usr/bin", "/opt/conda/bin", "/opt/venv/bin", "/bin")
NAMED = re.compile(r"/python(\d)\.(\d+)$")
LARGEST_FILE = 1 << 20


@record(kw_only=True)
class Python:
    """One that an image has.

    Attributes:
        path: where it lies.
        version: major and minor.
    """

    path: str
    version: tuple[int, int]


def find_python(engine: Engine, container: str, image: dict[str, Any], *, wanted: tuple[int, int]) -> Python:
    """Return the Python for the agent: of the wanted version, else the newest.

    Args:
        engine: the engine.
        container: one of the image; it need not run.
        image: what the engine knows of the image.
        wanted: this client's version.

    Raises:
        HostUnavailable: there is none that is new enough; the message names those that were found.
    """
    found: list[Python] = []
    for python in _pythons(engine, container, image, wanted):
        if python.version == wanted:
            return python
        found.append(python)
    fit = [python for python in found if python.version >= OLDEST]
    if fit:
        return max(fit, key=lambda python: python.version)
    oldest = ".".join(map(str, OLDEST))
    told = ", ".join(f"{python.path} ({'.'.join(map(str, python.version))})" for python in found) or "none"
    name = (image.get("RepoTags") or [image["Id"][:19]])[0]
    raise HostUnavailable(
        f"the image {name} has no Python {oldest} or newer; found: {told}",
        hint=f"use an image such as python:{wanted[0]}.{wanted[1]}-slim, or install one in a Dockerfile",
    )


def _pythons(
    engine: Engine, container: str, image: dict[str, Any], wanted: tuple[int, int]
) -> Iterator[Python]:
    """Yield those that are found, each file once; the likeliest to be wanted first, since each look takes a while."""
    variables = dict(text.partition("=")[::2] for text in image["Config"].get("Env") or ())
    folders = [folder for folder in variables.get("PATH", "").split(":") if folder.startswith("/")]
    minors = [minor for minor in range(NEWEST[1], OLDEST[1] - 1, -1) if minor != wanted[1]]
    names = [f"python{wanted[0]}.{wanted[1]}", "python3", "python", *(f"python3.{minor}" for minor in minors)]
    there = [
        folder
        for folder in dict.fromkeys((*folders, *USUAL_FOLDERS))
        if engine.stat(container, folder) is not None
    ]
    seen: set[str] = set()
    for name in names:
        for folder in there:
            path = posixpath.join(folder, name)
            at = engine.stat(container, path)
            real = (at["linkTarget"] or path) if at is not None else ""
            version = NAMED.search(real)
            if version and real not in seen:
                seen.add(real)
                yield Python(path=path, version=(int(version[1]), int(version[2])))


def find_user(engine: Engine, container: str, user: str) -> tuple[int, int]:
    """Return the uid and gid of ``name``, ``uid``, ``name:group`` or ``uid:gid`` in a container.

    Raises:
        HostUnavailable: the image knows no such name.
    """
    name, _, group = user.partition(":")
    accounts = _rows(engine, container, "/etc/passwd")
    account = next((row for row in accounts if name in (row[0], row[2])), None)
    if account is None and not name.isdigit():
        raise HostUnavailable(
            f"the image knows no user {name!r}", hint="name one that it has, or a number, by user"
        )
    uid = int(account[2]) if account else int(name)
    if not group:
        return uid, int(account[3]) if account else uid
    if group.isdigit():
        return uid, int(group)
    for row in _rows(engine, container, "/etc/group"):
        if row[0] == group:
            return uid, int(row[2])
    raise HostUnavailable(f"the image knows no group {group!r}", hint="name one that it has, or a number")


def _rows(engine: Engine, container: str, path: str) -> list[list[str]]:
    """Return the rows of a file of accounts; none where it is not there."""
    with engine.asking(f"cannot read {path} of a container"), contextlib.ExitStack() as stack:
        if engine.stat(container, path) is None:
            return []
        pieces, _ = engine.api.get_archive(container, path)
        stack.callback(pieces.close)
        whole = io.BytesIO(b"".join(pieces))
    with tarfile.open(fileobj=whole) as archive:
        member = next(iter(archive), None)
        file = archive.extractfile(member) if member is not None and member.size < LARGEST_FILE else None
        text = file.read().decode(errors="replace") if file is not None else ""
    rows = [line.split(":") for line in text.splitlines()]
    return [row for row in rows if len(row) > 3 and row[2].isdigit()]
