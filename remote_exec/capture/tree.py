"""Walk one folder: which of its files travel, which do not and why; unchanged folders are not read again.

A folder whose own stamp and ignore rules are as the index knows them holds what it held: its entries are not
even listed, and no pattern is asked. Links are never followed out of the folder. Reads the file system, runs
nothing; what it learns goes into the index, whose lock the caller holds.
"""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass, field

from ..model.record import record
from .filters import ENVIRONMENT_MARKERS, FileFilter, Ignores, default_reason, ignores_above
from .index import FileEntry, FolderEntry, Index, Stamp, is_settled, stamp_of

UNREADABLE = "cannot be read"
CUSTOM = "custom_file_filter"


@dataclass(slots=True)
class Part:
    """One folder of a tree, and those of its files that travel."""

    # absolute
    folder: str
    entry: FolderEntry
    files: dict[str, FileEntry]


@record(frozen=False, kw_only=True)
class Tree:
    """What a walk found, the folders in an order that depends on their names alone."""

    root: str
    # by path relative to the root, "" for the root itself
    parts: dict[str, Part] = field(default_factory=dict[str, Part])
    # links to files inside: relative path -> absolute path, entry of the target
    links: dict[str, tuple[str, FileEntry]] = field(default_factory=dict[str, tuple[str, FileEntry]])
    # files whose digest is unknown or cannot be trusted yet
    unhashed: list[tuple[str, FileEntry]] = field(default_factory=list[tuple[str, FileEntry]])
    # ignore files outside the root, which decide without travelling
    rule_files: tuple[str, ...] = ()
    # absolute path, reason
    left_out: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def holds(self, relative: str) -> bool:
        """Whether a file, by its path relative to the root, is among those that travel."""
        folder, _, name = relative.rpartition("/")
        part = self.parts.get(folder)
        return (part is not None and name in part.files) or relative in self.links


def walk(root: str, *, index: Index, custom: FileFilter | None = None) -> Tree:
    """Find the files of a folder that travel; those in the result's `unhashed` are still to be read.

    Args:
        root: absolute path of the folder.
        index: what is known of it.
        custom: the user's own filter, asked about what the ignore rules have kept.
    """
    rules, rule_files = ignores_above(root)
    tree = Tree(root=root, rule_files=rule_files)
    stack = [("", rules)]
    while stack:
        relative, outer = stack.pop()
        folder = f"{root}/{relative}" if relative else root
        content = _content(folder, relative=relative, outer=outer, index=index)
        if content is None:
            tree.left_out.append((folder, UNREADABLE))
            continue
        entry, inner = content
        if relative and not ENVIRONMENT_MARKERS.isdisjoint((*entry.files, *entry.folders, *entry.left_out)):
            tree.left_out.append((folder, "a virtual environment"))
            continue
        tree.left_out.extend((f"{folder}/{name}", why) for name, why in entry.left_out.items())
        ignored: frozenset[str] = frozenset()
        if custom is not None:
            ignored = frozenset(custom(folder, [*entry.files, *entry.folders, *entry.links]))
            tree.left_out.extend((f"{folder}/{name}", CUSTOM) for name in sorted(ignored))
        prefix = f"{relative}/" if relative else ""
        stack.extend((prefix + name, inner) for name in reversed(entry.folders) if name not in ignored)
        _add_files(tree, folder, relative, entry=entry, ignored=ignored, index=index)
        for name in entry.links:
            if name not in ignored:
                _add_link(tree, f"{folder}/{name}", relative=prefix + name, index=index)
    if custom is None and len(index.folders) > len(tree.parts):
        # what is gone is dropped, so that an index does not grow with a project's history
        index.folders = {relative: index.folders[relative] for relative in tree.parts}
    return tree


def _content(
    folder: str, *, relative: str, outer: Ignores, index: Index
) -> tuple[FolderEntry, Ignores] | None:
    """A folder's entries with what was decided about each, from the index if that holds; and its rules."""
    seen_ns = time.time_ns()
    known = index.folders.get(relative)
    try:
        stamp = stamp_of(os.stat(folder))
        if known is not None and known.settled and known.stamp == stamp:
            rules = outer.inside(folder, has_file=known.has_ignore_file)
            if known.rules == rules.key:
                return known, rules
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError:
        return None
    has_file = any(entry.name == ".gitignore" for entry in entries)
    rules = outer.inside(folder, has_file=has_file)
    # what was decided about a name holds while the rules do: only new names are asked about
    kept = known.files.keys() if known is not None and known.rules == rules.key else frozenset[str]()
    files: dict[str, FileEntry] = {}
    folders: list[str] = []
    links: list[str] = []
    left_out: dict[str, str] = {}
    for entry in entries:
        name = entry.name
        is_file = entry.is_file(follow_symlinks=False)
        why = None if is_file and name in kept else _reason(entry, rules)
        if why:
            left_out[name.encode("utf-8", "backslashreplace").decode()] = why
        elif is_file:
            # an entry with no stamp yet is like no file's, so the file is going to be read
            files[name] = (known.files.get(name) if known is not None else None) or FileEntry()
        else:
            (links if entry.is_symlink() else folders).append(name)
    fresh = FolderEntry(
        stamp=stamp,
        settled=is_settled(stamp, seen_ns=seen_ns),
        rules=rules.key,
        has_ignore_file=has_file,
        files=files,
        folders=tuple(folders),
        links=tuple(links),
        left_out=left_out,
    )
    index.remember_folder(relative, fresh)
    return fresh, rules


def _reason(entry: os.DirEntry[str], rules: Ignores) -> str | None:
    """Why an entry of a folder stays; ``None`` when it travels, as far as its name and kind can tell."""
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        return "its name is not valid UTF-8"
    is_folder = entry.is_dir(follow_symlinks=False)
    if not is_folder and not entry.is_file(follow_symlinks=False) and not entry.is_symlink():
        return "neither a file nor a folder"
    return default_reason(entry.name, is_folder=is_folder) or rules.reason(entry.path, is_folder=is_folder)


def _add_files(
    tree: Tree, folder: str, relative: str, *, entry: FolderEntry, ignored: frozenset[str], index: Index
) -> None:
    # names bound once, and no helper: this loop is what capturing an unchanged folder costs
    lstat, before, unhashed = os.lstat, f"{folder}/", tree.unhashed
    changed: dict[str, FileEntry] = {}
    vanished: list[str] = []
    for name, known in entry.files.items():
        if ignored and name in ignored:
            continue
        try:
            now = lstat(before + name)
        except OSError:
            tree.left_out.append((before + name, "vanished meanwhile"))
            vanished.append(name)
            continue
        stamp = (now.st_mtime_ns, now.st_ctime_ns, now.st_size, now.st_ino, now.st_mode)
        if stamp == known.stamp and known.settled:
            continue
        changed[name] = fresh = FileEntry(stamp)
        unhashed.append((before + name, fresh))
    if changed:
        entry = entry.with_files(entry.files | changed)
        index.folders[relative] = entry
    files = entry.files
    if ignored or vanished:
        skipped = ignored.union(vanished)
        files = {name: file for name, file in files.items() if name not in skipped}
    tree.parts[relative] = Part(folder, entry, files)


def _add_link(tree: Tree, path: str, *, relative: str, index: Index) -> None:
    """Take a link to a file inside the root as that file; any other stays, with its reason."""
    why, stamp = _link_target(path, os.path.realpath(tree.root))
    if why:
        tree.left_out.append((path, why))
        return
    entry = index.links.get(relative)
    if entry is None or entry.stamp != stamp or not entry.settled:
        entry = index.links[relative] = FileEntry(stamp)
        tree.unhashed.append((path, entry))
    tree.links[relative] = (path, entry)


def _link_target(path: str, real_root: str) -> tuple[str | None, Stamp]:
    nowhere: Stamp = (0, 0, 0, 0, 0)
    try:
        target = os.path.realpath(path, strict=True)
        found = os.stat(target)
    except OSError:
        return "a link that leads nowhere", nowhere
    if not target.startswith(real_root + os.sep):
        return "a link to outside the folder", nowhere
    if not stat.S_ISREG(found.st_mode):
        return "a link to what is no file", nowhere
    *folders, name = target[len(real_root) + 1 :].split(os.sep)
    reasons = [default_reason(name, is_folder=False)]
    reasons.extend(default_reason(folder, is_folder=True) for folder in folders)
    return next(filter(None, reasons), None), stamp_of(found)
