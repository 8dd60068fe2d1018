"""The metadata of the user's own distributions, which travels with their code.

``importlib.metadata.version(__name__)`` is how packages learn their version, and entry points how they find
plug-ins. For an editable install these lie in site-packages, away from the code. Reads folders and small
files; owns one cache, of the editable installs found, keyed by the stat of site-packages.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import unquote, urlsplit

from .locate import Module

_CARRIED = ("METADATA", "PKG-INFO", "entry_points.txt")


def metadata_files(packages: Sequence[Module], *, roots: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The metadata files that belong to local modules: the import root each goes under, its absolute path.

    Args:
        packages: the top-level modules that travel.
        roots: the import roots they lie in.
    """
    if not packages:
        return
    for root in roots:
        for folder in _metadata_beside(root):
            yield from ((root, path) for path in _carried(folder))
    for project, folder in _editable_installs():
        for root in roots:
            if root == project or root.startswith(project + os.sep):
                yield from ((root, path) for path in _carried(folder))
                break


def _carried(folder: str) -> Iterator[str]:
    return (path for name in _CARRIED if os.path.isfile(path := os.path.join(folder, name)))


def _metadata_beside(root: str) -> list[str]:
    # what ``setup.py develop`` and a build leave beside the packages
    with suppress(OSError):
        return sorted(os.path.join(root, name) for name in os.listdir(root) if name.endswith(".egg-info"))
    return []


def _editable_installs() -> list[tuple[str, str]]:
    """Project folder and metadata folder of each editable install on the path."""
    found: list[tuple[str, str]] = []
    for entry in sys.path:
        with suppress(OSError):
            changed_ns = os.stat(entry).st_mtime_ns
            known = _known.get(entry)
            if known is None or known[0] != changed_ns:
                known = _known[entry] = (changed_ns, _editable_installs_in(entry))
            found.extend(known[1])
    return found


_known: dict[str, tuple[int, list[tuple[str, str]]]] = {}


def _editable_installs_in(site_folder: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name in sorted(os.listdir(site_folder)):
        if not name.endswith(".dist-info"):
            continue
        folder = os.path.join(site_folder, name)
        try:
            with open(os.path.join(folder, "direct_url.json"), "rb") as file:
                record: dict[str, Any] = json.load(file)
        except (OSError, ValueError):
            continue
        if record.get("dir_info", {}).get("editable"):
            found.append((unquote(urlsplit(str(record["url"])).path).rstrip("/"), folder))
    return found
