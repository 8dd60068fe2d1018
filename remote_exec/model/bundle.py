"""The local code that travels with a function: a manifest of paths and content digests."""

from __future__ import annotations

import json
from functools import cached_property

from .digests import digest_of
from .record import record


@record(kw_only=True)
class BundleFile:
    """One file of a bundle."""

    # relative, with forward slashes, never absolute, never with ".." in it
    path: str
    # "sha256:…" of the content
    digest: str
    size: int
    executable: bool = False


@record(kw_only=True)
class Bundle:
    """A manifest, and the folders in it that go onto ``sys.path``, in order."""

    files: tuple[BundleFile, ...] = ()
    # relative folders; "." is the bundle's root
    import_roots: tuple[str, ...] = (".",)

    @cached_property
    def digest(self) -> str:
        """``sha256:…`` over what is unpacked, wherever it came from; the empty bundle's is the empty string."""
        if not self.files:
            return ""
        rows = [[f.path, f.digest, f.executable] for f in sorted(self.files, key=lambda f: f.path)]
        text = json.dumps([rows, self.import_roots], separators=(",", ":"))
        return f"sha256:{digest_of(text)}"

    @property
    def size_bytes(self) -> int:
        """The sum of the files' sizes."""
        return sum(f.size for f in self.files)
