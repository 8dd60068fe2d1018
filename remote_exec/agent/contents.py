"""What lies in the cache of a host, thing by thing: how large, when last used, and what holds it there.

Read from the disk, whether an agent runs or not; one that runs only adds which workers use a thing.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..model.layout import Layout

KINDS = ("blobs", "bundles", "folders", "environments", "results", "runtimes", "downloads")


class Entry(NamedTuple):
    """One thing that is kept."""

    what: str  # one of KINDS
    id: str  # digest, key or name
    size_bytes: int
    used_at: float  # UTC, seconds since the epoch
    held_by: str  # what keeps it from being pruned; empty: nothing
    about: str


class Noted(NamedTuple):
    """What the journal knows of it."""

    blobs: Sequence[tuple[Any, ...]]  # digest, name of a job that needs it
    results: Sequence[tuple[Any, ...]]  # key, function, size, last use, hits, digest of its blob


def noted_in(read: Callable[[str], Sequence[tuple[Any, ...]]]) -> Noted:
    """Ask the journal."""
    return Noted(
        read(
            "SELECT DISTINCT digest, name FROM parts JOIN jobs ON jobs.id = job_id WHERE digest IS NOT NULL"
        ),
        read("SELECT key, function, size, used_at, hits, digest FROM results"),
    )


def contents(layout: Layout, noted: Noted, pools: Sequence[Any]) -> list[Entry]:
    """Return all that is kept, the largest first.

    Args:
        layout: where.
        noted: what the journal knows of it.
        pools: as the agent tells of them; empty where none runs.
    """
    found = [
        *_blobs(layout, noted),
        *_bundles(layout, pools),
        *_trees(layout),
        *_environments(layout, pools),
        *_results(noted),
        *_folders("runtimes", layout.runtimes, about="what runs on a host, carried there"),
        *_folders("downloads", layout.home / "cache" / "persistent", about="kept by functions themselves"),
    ]
    return sorted(found, key=lambda entry: entry.size_bytes, reverse=True)


def _blobs(layout: Layout, noted: Noted) -> Iterator[Entry]:
    from ..worker.blobs import BlobStore

    if not layout.blobs.is_dir():
        return
    jobs: Mapping[str, list[str]] = defaultdict(list)
    for digest, name in noted.blobs:
        jobs[digest].append(f"job {name}")
    stored = {digest: function for _, function, _, _, _, digest in noted.results if digest is not None}
    for blob in BlobStore(layout.blobs).ls():
        holders = jobs.get(blob.digest, []) + (["local code or data"] if blob.linked else [])
        about = f"result of {stored[blob.digest]}" if blob.digest in stored else ""
        yield Entry("blobs", blob.digest, blob.size_bytes, blob.used_at, ", ".join(holders), about)


def _bundles(layout: Layout, pools: Sequence[Any]) -> Iterator[Entry]:
    users: Mapping[str, list[int]] = defaultdict(list)
    for pool in pools:
        for worker in pool["workers"]:
            users[worker["bundle"].removeprefix("sha256:")].append(worker["pid"])
    for entry in _folders("bundles", layout.bundles, about="local code; its bytes are those of blobs"):
        pids = users.get(entry.id.partition("-")[0], ())
        yield entry._replace(held_by=", ".join(f"worker {pid}" for pid in pids))


def _trees(layout: Layout) -> Iterator[Entry]:
    from ..worker.holding import held_in

    held = held_in(layout.tree_users)
    for entry in _folders("folders", layout.trees, about="data of calls; its bytes are those of blobs"):
        yield entry._replace(held_by="a process that uses it" if entry.id in held else "")


def _environments(layout: Layout, pools: Sequence[Any]) -> Iterator[Entry]:
    from .environments import EnvironmentStore

    if not layout.environments.is_dir():
        return
    store = EnvironmentStore(layout.environments, None, layout.blobs.joinpath)  # it builds none
    for one in store.list():
        hex_digits = one.digest.partition(":")[2]
        holders = [f"pool {pool['key']}" for pool in pools if _stands_on(pool["python"], hex_digits)]
        held_by = ", ".join(holders) or ("in use" if one.in_use else "")
        yield Entry("environments", one.digest, one.size_bytes, one.last_used_at, held_by, one.summary)


def _stands_on(python: str, hex_digits: str) -> bool:
    return any(len(part) >= 32 and hex_digits.startswith(part) for part in Path(python).parts)


def _results(noted: Noted) -> Iterator[Entry]:
    for key, function, size, used_at, hits, _ in noted.results:
        yield Entry("results", key, size, used_at, "", f"{function}, {hits} hits")


def _folders(what: str, folder: Path, *, about: str) -> Iterator[Entry]:
    if folder.is_dir():
        for one in os.scandir(folder):
            if not one.name.startswith("."):
                used_at = one.stat(follow_symlinks=False).st_mtime
                yield Entry(what, one.name, _size(one), used_at, "", about)


def _size(entry: os.DirEntry[str]) -> int:
    if not entry.is_dir(follow_symlinks=False):
        return entry.stat(follow_symlinks=False).st_size
    from .generations import size_bytes

    return size_bytes(Path(entry.path))
