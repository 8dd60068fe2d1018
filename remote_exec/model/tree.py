"""Data that travels, a folder or a single file: a manifest of names, kinds and content digests.

A tree has one entry at its top, which has the name that the folder or file has at home; all paths begin with it. Its
manifest is a blob like the files' contents, and a tree goes by its manifest's digest: equal digests, equal trees.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Any

from .bundle import BundleFile
from .errors import ProtocolError
from .record import record

VERSION = 1


@record(kw_only=True)
class Tree:
    """A manifest. Paths are relative, with forward slashes."""

    files: tuple[BundleFile, ...] = ()
    # all of them, empty ones too, each behind the one that holds it
    folders: tuple[str, ...] = ()
    # path, and what the link says: it stays inside of the tree
    links: tuple[tuple[str, str], ...] = ()

    @cached_property
    def manifest(self) -> bytes:
        """What travels of the tree beside its files' contents; names that are not UTF-8 are kept, too."""
        files = [[f.path, f.digest, f.size, f.executable] for f in sorted(self.files, key=lambda f: f.path)]
        content = [VERSION, sorted(self.folders), files, sorted(self.links)]
        return json.dumps(content, separators=(",", ":")).encode()

    @cached_property
    def digest(self) -> str:
        """``sha256:…`` of the manifest."""
        return f"sha256:{hashlib.sha256(self.manifest).hexdigest()}"

    @property
    def size_bytes(self) -> int:
        """The sum of the files' sizes."""
        return sum(file.size for file in self.files)

    @classmethod
    def of(cls, manifest: bytes) -> Tree:
        """Return the tree of a manifest. Whether its paths can be trusted is for who lays it out to see.

        Raises:
            ProtocolError: it is no manifest.
        """
        try:
            version, folders, files, links = json.loads(manifest)
            if version != VERSION:
                raise ValueError(f"version {version}")
            return cls(
                files=tuple(_file(*row) for row in files),
                folders=tuple(map(_text, folders)),
                links=tuple((_text(path), _text(target)) for path, target in links),
            )
        except (ValueError, TypeError) as error:
            raise ProtocolError(f"the manifest of a folder cannot be read: {error}") from None


def _file(path: Any, digest: Any, size: Any, executable: Any) -> BundleFile:
    return BundleFile(path=_text(path), digest=_text(digest), size=int(size), executable=bool(executable))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
