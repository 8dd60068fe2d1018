"""Builds the sidebar and puts it into the wheel; without node or a registry the wheel is built without it, and says so.

Run by hatchling (see pyproject.toml). What was built lies beside the sources, in ``jupyter_ext/labextension_built``,
with a digest of what it was built from: it is built again only when that has changed. A source distribution brings it
along, so that a wheel made from one needs no node.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILT = "jupyter_ext/labextension_built"
INSTALLED = "share/jupyter/labextensions/remote-exec"
STAMP = "built_from"
OLDEST_NODE = (20, 19)  # of @jupyter/builder's bundler
SOURCES = (
    "package.json",
    "package-lock.json",
    "tsconfig.json",
    "tsconfig.build.json",
    "src",
    "style",
    "schema",
)


class LeftOutError(Exception):
    """The sidebar cannot be built on this machine; the text says why."""


class BuildHook(BuildHookInterface[Any]):
    """See the module's docstring."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it collects files."""
        sources, built = Path(self.root, "jupyter_ext/labextension"), Path(self.root, BUILT)
        told = json.loads((sources / "package.json").read_text(encoding="utf-8"))["version"]
        version_here = str(self.metadata.version)  # pyright: ignore[reportUnknownMemberType]
        if told != version_here:
            raise ValueError(f"package.json says version {told}, pyproject.toml {version_here}")
        digest = _digest(sources)
        if _stamp(built) != digest:
            try:
                _build(sources, built)
            except LeftOutError as error:
                self.app.display_warning(f"The JupyterLab sidebar is left out of this build: {error}")
                return
            (built / STAMP).write_text(digest, encoding="utf-8")
        if self.target_name == "wheel":
            build_data["shared_data"][BUILT] = INSTALLED
            build_data["shared_data"]["jupyter_ext/labextension/install.json"] = f"{INSTALLED}/install.json"


def _digest(sources: Path) -> str:
    digest = hashlib.sha256()
    for file in _files(sources):
        digest.update(file.relative_to(sources).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _files(sources: Path) -> Iterator[Path]:
    for name in SOURCES:
        path = sources / name
        yield from sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _stamp(built: Path) -> str:
    try:
        return (built / STAMP).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _build(sources: Path, built: Path) -> None:
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise LeftOutError("building it takes node and npm, which are not on the PATH")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if tuple(map(int, version.removeprefix("v").split(".")[:2])) < OLDEST_NODE:
        raise LeftOutError(f"building it takes node {'.'.join(map(str, OLDEST_NODE))}, and here is {version}")
    install = subprocess.run([npm, "ci"], cwd=sources, capture_output=True, text=True)
    if install.returncode:
        raise LeftOutError(f"`npm ci` failed: {install.stderr.strip().splitlines()[:3]}")
    shutil.rmtree(built, ignore_errors=True)
    build = subprocess.run([npm, "run", "build"], cwd=sources, capture_output=True, text=True)
    if build.returncode:
        raise RuntimeError(f"the sidebar does not build:\n{build.stdout}{build.stderr}")
