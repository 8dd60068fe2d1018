"""What was captured of local code: a bundle, and where its files lie at home.

Apart from `bundle`, which makes it, since a function without local modules is spared loading that.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import field
from functools import cached_property
from typing import TYPE_CHECKING

from ..model.bundle import Bundle
from ..model.record import record

if TYPE_CHECKING:
    from .index import FileEntry, Stamp
    from .tree import Part


@record(kw_only=True)
class Capture:
    """A bundle, where its files lie, and what stayed at home."""

    bundle: Bundle
    # absolute folder at home that each import root stands for
    origins: tuple[str, ...] = ()
    # absolute path, reason
    left_out: tuple[tuple[str, str], ...] = ()
    _parts: tuple[Part, ...] = field(default=(), repr=False)
    # absolute path, entry: files that are no part of a folder taken whole
    _singles: tuple[tuple[str, FileEntry], ...] = field(default=(), repr=False)
    # ignore files that do not travel; ``None`` for one that was not there
    _rule_files: tuple[tuple[str, Stamp | None], ...] = field(default=(), repr=False)
    # whether the stamps vouch for the content: not while something was written a moment ago
    _settled: bool = True

    @cached_property
    def sources(self) -> Mapping[str, str]:
        """Digest -> the absolute path of a file with that content."""
        found = {entry.digest: path for path, entry in self._singles}
        for part in self._parts:
            found.update((entry.digest, f"{part.folder}/{name}") for name, entry in part.files.items())
        found.pop("", None)
        return found

    def home_of(self, path: str) -> str | None:
        """The absolute path of a file with the content that the bundle has under a path; ``None``: there is none."""
        return self.sources.get(self._digests.get(path, ""))

    @cached_property
    def _digests(self) -> Mapping[str, str]:
        return {file.path: file.digest for file in self.bundle.files}

    def is_current(self) -> bool:
        """Whether nothing has changed since, by the stats of all files and folders (some microseconds each).

        False may also mean "too fresh to tell": what was captured within the clock's tick of its last change
        is worth one more capture, which reads again only what is that fresh.
        """
        if not self._settled:
            return False
        if not (self._parts or self._singles or self._rule_files):
            return True
        from .index import stamp_now, stamp_of

        look = os.stat
        try:
            for part in self._parts:
                before = f"{part.folder}/"
                if stamp_of(look(part.folder)) != part.entry.stamp:
                    return False
                for name, entry in part.files.items():
                    # a change of owner, mode or link count moves the second of these
                    now, stamp = look(before + name), entry.stamp
                    if (
                        now.st_mtime_ns != stamp[0]
                        or now.st_ctime_ns != stamp[1]
                        or now.st_size != stamp[2]
                        or now.st_ino != stamp[3]
                    ):
                        return False
            if self._singles and any(stamp_of(look(path)) != entry.stamp for path, entry in self._singles):
                return False
        except OSError:
            return False
        return not self._rule_files or all(stamp_now(path) == stamp for path, stamp in self._rule_files)


NOTHING = Capture(bundle=Bundle())
