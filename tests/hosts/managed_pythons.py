"""Pythons that uv brings to a host that has no network: made of the one that runs this, served from a folder."""

from __future__ import annotations

import json
import os
import sys
import tarfile
from pathlib import Path

LEFT_OUT = {"__pycache__", "test", "tests", "site-packages", "idlelib", "ensurepip", "lib2to3", "tkinter"}
MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"
SETTINGS = Path(".config", "uv", "uv.toml")


def serve_pythons(folder: Path, home: Path) -> None:
    """Have uv bring Pythons from a folder, in whatever session has this home; there is none but of this minor."""
    major, minor, patch = sys.version_info[:3]
    archive, machine, libc = folder / "python.tar.gz", os.uname().machine, _libc()
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        tar.add(os.path.realpath(sys.executable), f"python/bin/python{MINOR}")
        library = Path(sys.base_prefix, "lib", f"python{MINOR}")
        tar.add(library, f"python/lib/python{MINOR}", filter=_needed)
    told = {
        "name": "cpython", "os": "linux", "arch": {"family": machine, "variant": None}, "libc": libc,
        "major": major, "minor": minor, "patch": patch, "prerelease": "", "build": "20260101", "variant": None,
        "url": archive.as_uri(), "sha256": None,
    }  # fmt: skip
    listing = folder / "pythons.json"
    listing.write_text(json.dumps({f"cpython-{major}.{minor}.{patch}-linux-{machine}-{libc}": told}))
    _configure(home, listing)


def serve_nothing(folder: Path, home: Path) -> None:
    """Have uv find a list of Pythons that has none."""
    listing = folder / "pythons.json"
    listing.write_text("{}")
    _configure(home, listing)


def _configure(home: Path, listing: Path) -> None:
    file = home / SETTINGS
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f'python-downloads-json-url = "{listing.as_uri()}"\n')


def _needed(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    parts = set(member.name.split("/"))
    return None if parts & LEFT_OUT or any(part.startswith("config-") for part in parts) else member


def _libc() -> str:
    return "gnu" if "CS_GNU_LIBC_VERSION" in os.confstr_names else "musl"
