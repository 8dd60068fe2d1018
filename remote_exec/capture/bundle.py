"""From local modules, or a whole working directory, to the bundle that travels.

A bundle's folders: each folder at home that must be on ``sys.path`` is an import root. One alone is the
bundle's own root ("."), several lie side by side under their number ("0", "1", …) in ``sys.path``'s order;
those inside the working directory stay where they are in it. Modules are laid out by import name, so that an
editable install that maps a name to another folder arrives importable. Reads files, runs nothing; owns no
state but its caches of stats (see index).
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path

from ..model.bundle import Bundle, BundleFile
from ..model.collector import collector_paused
from ..model.errors import ConfigurationError, SizeLimitExceeded
from ..model.record import record
from ..options.file_filter import CustomFileFilter
from .distributions import metadata_files
from .filters import IGNORED_BY, FileFilter
from .index import FileEntry, Index, open_index, stamp_now, stamp_of
from .local_code import Capture
from .locate import Module, Origin, origin_of_path
from .modules import Reach
from .tree import UNREADABLE, Part, Tree, walk

DEFAULT_LIMIT_BYTES = 500 * 1024 * 1024
_EXTENSIONS = tuple(importlib.machinery.EXTENSION_SUFFIXES)
_NAMED_BIGGEST = 5


def bundle_modules(
    reach: Reach, *, cache_dir: Path | None = None, limit_bytes: int = DEFAULT_LIMIT_BYTES
) -> Capture:
    """Bundle the local modules that a function reaches, whole packages each.

    Args:
        reach: what `modules.reach` found.
        cache_dir: folder that keeps digests from one process to the next; ``None`` keeps none.
        limit_bytes: the most that may travel.

    Raises:
        SizeLimitExceeded: naming the biggest files.
    """
    return _Plan(reach, cache_dir=cache_dir).capture(limit_bytes=limit_bytes)


def bundle_workdir(
    root: str | os.PathLike[str] | None = None,
    *,
    reach: Reach | None = None,
    file_filter: FileFilter | None = None,
    cache_dir: Path | None = None,
    limit_bytes: int = DEFAULT_LIMIT_BYTES,
) -> Capture:
    """Bundle a working directory, and the local modules reached that lie outside it.

    Args:
        root: the folder; unset: the filter's `workdir`, else the current one.
        reach: what `modules.reach` found; modules inside the folder travel even when ignored.
        file_filter: called with a folder and the names in it, as ``shutil.copytree`` calls its `ignore`.
        cache_dir: folder that keeps digests from one process to the next; ``None`` keeps none.
        limit_bytes: the most that may travel.

    Raises:
        ConfigurationError: `root` is no folder.
        SizeLimitExceeded: naming the biggest files.

    Example:
        >>> capture = bundle_workdir("src", file_filter=shutil.ignore_patterns("*.csv"))  # doctest: +SKIP
    """
    if root is None:
        root = file_filter.workdir if isinstance(file_filter, CustomFileFilter) else os.getcwd()
    folder = os.path.abspath(root)
    if not os.path.isdir(folder):
        raise ConfigurationError(
            f"include_local_workdir: {folder} is not a folder.",
            option="include_local_workdir",
            hint="Run in an existing folder, or name one as CustomFileFilter(workdir=...).",
        )
    nothing = Reach(local={}, third_party={}, missing={})
    plan = _Plan(reach or nothing, cache_dir=cache_dir, workdir=folder, file_filter=file_filter)
    return plan.capture(limit_bytes=limit_bytes)


@record(frozen=False)
class _Plan:
    """One capture in the making: import roots first, then files, then digests."""

    reach: Reach
    cache_dir: Path | None
    workdir: str | None = None
    file_filter: FileFilter | None = None
    # path in the bundle -> absolute path, entry, for files outside every tree
    _singles: dict[str, tuple[str, FileEntry]] = field(default_factory=dict[str, tuple[str, FileEntry]])
    _left_out: dict[str, str] = field(default_factory=dict[str, str])
    # folder in the bundle -> what lies there
    _trees: dict[str, tuple[Tree, Index]] = field(default_factory=dict[str, tuple[Tree, Index]])
    # import root -> its folder in the bundle, "" for the bundle's own root
    _prefixes: dict[str, str] = field(default_factory=dict[str, str])

    def capture(self, *, limit_bytes: int) -> Capture:
        with collector_paused():
            roots = self._place_roots()
            if self.workdir is not None:
                self._take_tree(self.workdir, self._prefixes[self.workdir], custom=self.file_filter)
            for module in self.reach.local.values():
                self._take_module(module)
            self._take_compiled()
            for root, path in metadata_files(self.reach.packages, roots=roots):
                place = "/".join(path.split(os.sep)[-2:])
                self._take_file(_join(self._prefixes[root], place), path)
            self._guard(limit_bytes)
            self._hash()
            return self._result(roots)

    def _place_roots(self) -> list[str]:
        """The import roots in the order of ``sys.path``; where each lies in the bundle is noted."""
        roots = {root for module in self.reach.packages for root in import_roots(module)}
        workdir = self.workdir
        path = [os.path.abspath(entry) for entry in sys.path]
        if workdir is not None:
            inside = [entry for entry in path if _is_inside(entry, workdir) and os.path.isdir(entry)]
            roots |= {entry for entry in inside if origin_of_path(entry) is Origin.LOCAL} | {workdir}
        place = {entry: number for number, entry in reversed(list(enumerate(path)))}
        ordered = sorted(roots, key=lambda root: (place.get(root, len(place)), root))
        container = {root: workdir if workdir and _is_inside(root, workdir) else root for root in ordered}
        containers = list(dict.fromkeys(container.values()))
        for root in ordered:
            base = "" if len(containers) == 1 else str(containers.index(container[root]))
            self._prefixes[root] = _join(base, os.path.relpath(root, container[root]))
        return ordered

    def _take_module(self, module: Module) -> None:
        """Add a module's own file wherever it lies, and the tree of a top-level package."""
        top = "." not in module.name
        place = module.name.replace(".", "/")
        if top:
            for folder in module.folders:
                custom = self.file_filter if self.workdir and _is_inside(folder, self.workdir) else None
                self._take_tree(folder, _join(self._prefixes[os.path.dirname(folder)], place), custom=custom)
        if module.file is None:
            return
        base = os.path.basename(module.file)
        place = f"{place}/{base}" if module.is_package else _module_path(module.name, base)
        root = self._root_of(module)
        self._take_file(_join(self._prefixes[root], place), module.file)

    def _take_compiled(self) -> None:
        """Add the packages' compiled modules: they are built, hence ignored, and import one another."""
        for package in self.reach.packages:
            place = package.name
            for folder in package.folders:
                prefix = _join(self._prefixes[os.path.dirname(folder)], place)
                for path, why in list(self._left_out.items()):
                    built = why.startswith(IGNORED_BY) and path.endswith(_EXTENSIONS)
                    if built and _is_inside(path, folder):
                        self._take_file(_join(prefix, os.path.relpath(path, folder)), path)

    def _root_of(self, module: Module) -> str:
        """The import root that a module is laid out under: of the portion that holds it, if one does."""
        top = self.reach.local[module.name.partition(".")[0]]
        roots = import_roots(top)
        assert module.file is not None  # noqa: S101 - the caller's check
        holding = [root for root in roots if _is_inside(module.file, root)]
        return (holding or roots)[0]

    def _take_tree(self, folder: str, prefix: str, *, custom: FileFilter | None = None) -> None:
        if any(relative in tree.parts for tree, relative in self._around(prefix)):
            return
        index = open_index(self.cache_dir, folder)
        with index.lock:
            tree = walk(folder, index=index, custom=custom)
        self._trees[prefix] = (tree, index)
        self._left_out.update(tree.left_out)

    def _around(self, place: str) -> Iterator[tuple[Tree, str]]:
        """The trees that a place in the bundle lies in, and its path relative to each."""
        for prefix, (tree, _) in self._trees.items():
            if not prefix or place == prefix or place.startswith(f"{prefix}/"):
                yield tree, place[len(prefix) :].removeprefix("/")

    def _take_file(self, place: str, path: str) -> None:
        """Add one file that is needed whatever the ignore rules say."""
        if any(tree.holds(relative) for tree, relative in self._around(place)):
            return
        try:
            place.encode()
            stamp = stamp_of(os.stat(path))
        except UnicodeEncodeError:
            self._left_out[path] = "its name is not valid UTF-8"
            return
        except OSError:
            self._left_out[path] = UNREADABLE
            return
        self._left_out.pop(path, None)
        known = _single_files.get(path)
        if known is None or known.stamp != stamp or not known.settled:
            known = _single_files[path] = FileEntry(stamp)
        self._singles[place] = (path, known)

    def _guard(self, limit_bytes: int) -> None:
        sizes = {place: entry.stamp[2] for place, (_, entry) in self._singles.items()}
        for prefix, (tree, _) in self._trees.items():
            for relative, part in tree.parts.items():
                before = _before(prefix, relative)
                sizes.update((before + name, entry.stamp[2]) for name, entry in part.files.items())
        total = sum(sizes.values())
        if total <= limit_bytes:
            return
        biggest = sorted(sizes.items(), key=lambda item: -item[1])[:_NAMED_BIGGEST]
        listed = ", ".join(f"{place} ({_shown(size)})" for place, size in biggest)
        raise SizeLimitExceeded(
            f"The local code to be sent is {_shown(total)} in {len(sizes)} files, more than "
            f"bundle_size_limit allows ({_shown(limit_bytes)}). The biggest: {listed}.",
            hint="Leave files out by a .gitignore, or by custom_file_filter=CustomFileFilter("
            'ignore_name_patterns=["*.bin"]) with include_local_workdir, or raise bundle_size_limit.',
        )

    def _hash(self) -> None:
        for tree, index in self._trees.values():
            with index.lock:
                index.hash_files(tree.unhashed)
                index.save()
        Index().hash_files(item for item in self._singles.values() if not item[1].digest)

    def _result(self, roots: list[str]) -> Capture:
        rows: list[BundleFile] = []
        singles = dict(self._singles)
        rule_files: list[str] = []
        parts: list[Part] = []
        for prefix, (tree, _) in sorted(self._trees.items()):
            for relative, part in tree.parts.items():
                rows.extend(_rows(part, _before(prefix, relative)))
            parts.extend(tree.parts.values())
            rule_files.extend(tree.rule_files)
            rule_files.extend(f"{part.folder}/.gitignore" for part in parts if part.entry.has_ignore_file)
            singles.update((_join(prefix, relative), link) for relative, link in tree.links.items())
        rows.extend(_listed("", {place: entry for place, (_, entry) in sorted(singles.items())}))
        files = [(f"{part.folder}/{name}", entry) for part in parts for name, entry in part.files.items()]
        unreadable = [path for path, entry in (*files, *singles.values()) if not entry.digest]
        self._left_out.update(dict.fromkeys(unreadable, UNREADABLE))
        bundle = Bundle(
            files=tuple(rows),
            import_roots=tuple(self._prefixes[root] or "." for root in roots) or (".",),
        )
        return Capture(
            bundle=bundle,
            origins=tuple(roots),
            left_out=tuple(sorted(self._left_out.items())),
            _parts=tuple(parts),
            _singles=tuple(singles.values()),
            _rule_files=tuple((path, stamp_now(path)) for path in rule_files),
            _settled=all(part.entry.settled for part in parts)
            and all(entry.settled for part in parts for entry in part.files.values())
            and all(entry.settled for _, entry in singles.values()),
        )


def _rows(part: Part, before: str) -> tuple[BundleFile, ...]:
    """A folder's files as they stand in the bundle; made once for a folder that does not change."""
    known = part.entry.rows
    whole = part.files is part.entry.files
    if whole and known is not None and known[0] == before:
        return known[1]
    rows = _listed(before, part.files)
    if whole and all(entry.settled for entry in part.files.values()):
        part.entry.rows = (before, rows)
    return rows


def _listed(before: str, files: Mapping[str, FileEntry]) -> tuple[BundleFile, ...]:
    return tuple(
        [
            BundleFile(
                path=before + name,
                digest=entry.digest,
                size=entry.stamp[2],
                executable=entry.stamp[4] & 0o100 != 0,
            )
            for name, entry in files.items()
            if entry.digest
        ]
    )


def _before(prefix: str, relative: str) -> str:
    folder = _join(prefix, relative)
    return f"{folder}/" if folder else ""


# single modules and generated ones: few, so they are hashed anew by each process
_single_files: dict[str, FileEntry] = {}


def import_roots(module: Module) -> list[str]:
    """The folders at home that must be on ``sys.path`` for a top-level module to be importable."""
    places = list(module.folders) or ([module.file] if module.file else [])
    return list(dict.fromkeys(os.path.dirname(place) for place in places))


def _module_path(name: str, base: str) -> str:
    """Where a plain module's file goes: by its import name, with its own suffix."""
    last = name.rpartition(".")[2]
    suffix = next((each for each in importlib.machinery.all_suffixes() if base.endswith(each)), "")
    return name.replace(".", "/") + (base[len(last) :] if base.startswith(f"{last}.") else suffix)


def _is_inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part not in {"", "."})


def _shown(size_bytes: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} GB"
