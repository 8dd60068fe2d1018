"""What is installed here: which distribution provides an import, how to pin it, what it needs.

For `dependencies`, on the client. It reads installed metadata only: no network, no resolver. What it found
stays in this process until a folder of ``sys.path`` changes.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Set
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

NOT_SHIPPED = frozenset({"remote-exec"})  # workers have a facade of it in any case

_OF_PLATFORM = re.compile(r"\b(?:sys_platform|os_name|platform_(?:system|machine|version|release))\b")

PathState = tuple[tuple[str, int], ...]  # folder and modification time of each entry of sys.path


def providers(third_party: Mapping[str, Set[str]]) -> dict[str, set[str]]:
    """Return the distributions that provide each top-level import; no entry for one that none provides.

    Args:
        third_party: top-level name -> the dotted modules below it that are imported, which tell the
            distributions of a namespace (``google``) apart.
    """
    state = _path_state()
    found: dict[str, set[str]] = {}
    for top, dotted in third_party.items():
        if top in sys.stdlib_module_names:
            continue
        names = _providers_of(top, state)
        if len(names) > 1:
            names = _narrowed(names, dotted) or names
        if names := names - NOT_SHIPPED:
            found[top] = set(names)
    return found


def pin(name: str) -> str | Path | None:
    """Return what installs this very distribution elsewhere.

    A requirement line (``name==version``, or its URL when it was installed from one), the path of a wheel it
    was installed from, or None when it is an editable one: its code is local and travels as such.
    """
    distribution = metadata.distribution(name)
    text = distribution.read_text("direct_url.json")
    direct = cast("dict[str, Any]", json.loads(text)) if text else {}
    url = str(direct.get("url", ""))
    if direct.get("dir_info", {}).get("editable"):
        return None
    if vcs := direct.get("vcs_info"):
        return f"{name} @ {vcs['vcs']}+{url}@{vcs['commit_id']}"
    if url.startswith("file:"):
        path = Path(unquote(urlsplit(url).path))
        if path.suffix == ".whl" and path.is_file():
            return path
    elif url and "archive_info" in direct:
        return f"{name} @ {url}"
    return version_pin(name)


def version_pin(name: str) -> str:
    """Return the requirement of this very version, wherever it was installed from.

    A local version ("2.1+cpu") is on no public index; "==2.1" is met by it too.
    """
    return f"{name}=={Version(metadata.version(name)).public}"


def local_version(name: str) -> str:
    """Return the version that is installed if it is a local one, as "2.1+cpu"; else nothing."""
    version = metadata.version(name)
    return version if Version(version).local else ""


def platform_markers(names: Set[str]) -> dict[str, str]:
    """Return those that others of these need on some platforms only, this one among them, and the marker that says so.

    Whoever imports torch and triton has no triton to install where torch itself asks for none.
    """
    environment = cast("dict[str, str]", default_environment())
    markers: dict[str, set[str]] = {}
    for name in names:
        for need in _needs(name, frozenset(), environment=environment) or ():
            wanted = canonicalize_name(need.name)
            if wanted in names and wanted != name:
                markers.setdefault(wanted, set()).add(str(need.marker or ""))
    return {
        name: " or ".join(f"({marker})" if len(found) > 1 else marker for marker in sorted(found))
        for name, found in markers.items()
        if all(_OF_PLATFORM.search(marker) for marker in found)
    }


def closure(requirements: Iterable[Requirement]) -> tuple[set[str], bool]:
    """Return the names that these requirements bring, with all that those need, as far as is known here.

    The second value is false when some of them are not installed here, so that their needs are not known.
    """
    environment = cast("dict[str, str]", default_environment())
    todo = [_key(each) for each in requirements if each.marker is None or each.marker.evaluate(environment)]
    seen: set[tuple[str, frozenset[str]]] = set()
    complete = True
    while todo:
        item = todo.pop()
        if item in seen:
            continue
        seen.add(item)
        needs = _needs(*item, environment=environment)
        if needs is None:
            complete = False
        else:
            todo.extend(_key(each) for each in needs)
    return {name for name, _ in seen}, complete


def _key(requirement: Requirement) -> tuple[str, frozenset[str]]:
    return canonicalize_name(requirement.name), frozenset(requirement.extras)


def _needs(name: str, extras: frozenset[str], *, environment: Mapping[str, str]) -> list[Requirement] | None:
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return None
    needs: list[Requirement] = []
    for line in lines:
        try:
            need = Requirement(line)
        except InvalidRequirement:
            continue  # old metadata; the resolver will tell
        marker = need.marker
        if marker is None or any(marker.evaluate({**environment, "extra": each}) for each in ("", *extras)):
            needs.append(need)
    return needs


# ── which distribution provides an import ───────────────────────────────────────────────────────────────────


def _path_state() -> PathState:
    state: list[tuple[str, int]] = []
    for entry in sys.path:
        try:
            state.append((entry, os.stat(entry or ".").st_mtime_ns))
        except OSError:
            continue
    return tuple(state)


@lru_cache(maxsize=4096)
def _providers_of(top: str, state: PathState) -> frozenset[str]:
    """Try the likely one first: `packages_distributions` reads everything (0.2 s for 50 distributions)."""
    module = re.compile(rf"^{re.escape(top)}(/__init__\.py|\.py|\.[^/,]*\.so)(,|$)", re.MULTILINE)
    try:
        likely = metadata.distribution(top)
        if module.search(_paths(likely)):
            return frozenset({canonicalize_name(likely.metadata["Name"])})
    except (metadata.PackageNotFoundError, ValueError):
        pass
    return frozenset(canonicalize_name(name) for name in _all_packages(state).get(top, ()))


@lru_cache(maxsize=1)
def _all_packages(_state: PathState) -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def _narrowed(names: Set[str], dotted: Set[str]) -> frozenset[str]:
    """Keep those that hold what is imported: of each module, the longest prefix that any of them holds."""
    paths = {name: _paths(metadata.distribution(name)) for name in names}
    kept: set[str] = set()
    for module in dotted:
        parts = module.split(".")
        for length in range(len(parts), 1, -1):
            prefix = re.compile(rf"^{re.escape('/'.join(parts[:length]))}[/.]", re.MULTILINE)
            if holders := {name for name in names if prefix.search(paths[name])}:
                kept |= holders
                break
    return frozenset(kept)


def _paths(distribution: metadata.Distribution) -> str:
    """Return the distribution's files, one a line; RECORD as text, since parsing a large one takes long."""
    if record := distribution.read_text("RECORD"):
        return record
    return "\n".join(str(path) for path in distribution.files or ())
