"""What lies in the cache of this machine, thing by thing: how large, when last used, and what holds it there.

Read from the disk, whether an agent runs or not; one that runs only adds which workers use a thing.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..model.layout import Layout

KINDS = ("blobs", "bundles", "environments", "results", "runtimes", "downloads")


class Entry(NamedTuple):
    """One thing that is kept."""

    what: str  # one of KINDS
    id: str  # digest, key or name
    size_bytes: int
    used_at: float  # UTC, seconds since the epoch
    held_by: str  # what keeps it from being pruned; empty: nothing
    about: str


def entries(layout: Layout, pools: list[Any]) -> list[Entry]:
    """Return all that is kept, the largest first.

    Args:
        layout: where.
        pools: as the agent tells of them; empty where none runs.
    """
    from .kept import Reader

    journal = Reader(layout)
    found = [
        *_blobs(layout, journal),
        *_bundles(layout, pools),
        *_environments(layout, pools),
        *_results(journal),
        *_folders("runtimes", layout.runtimes, about="what runs on a host, carried there"),
        *_folders("downloads", layout.home / "cache" / "persistent", about="kept by functions themselves"),
    ]
    return sorted(found, key=lambda entry: entry.size_bytes, reverse=True)


def _blobs(layout: Layout, journal: Any) -> Iterator[Entry]:
    from ..agent.cache import BlobStore

    if not layout.blobs.is_dir():
        return
    jobs: Mapping[str, list[str]] = defaultdict(list)
    for digest, name in journal.read(
        "SELECT DISTINCT digest, name FROM parts JOIN jobs ON jobs.id = job_id WHERE digest IS NOT NULL"
    ):
        jobs[digest].append(f"job {name}")
    stored = dict(journal.read("SELECT digest, function FROM results WHERE digest IS NOT NULL"))
    for blob in BlobStore(layout.blobs).ls():
        holders = jobs.get(blob.digest, []) + (["local code"] if blob.linked else [])
        about = f"result of {stored[blob.digest]}" if blob.digest in stored else ""
        yield Entry("blobs", blob.digest, blob.size_bytes, blob.used_at, ", ".join(holders), about)


def _bundles(layout: Layout, pools: list[Any]) -> Iterator[Entry]:
    users: Mapping[str, list[int]] = defaultdict(list)
    for pool in pools:
        for worker in pool["workers"]:
            users[worker["bundle"].removeprefix("sha256:")].append(worker["pid"])
    for entry in _folders("bundles", layout.bundles, about="local code; its bytes are those of blobs"):
        pids = users.get(entry.id.partition("-")[0], ())
        yield entry._replace(held_by=", ".join(f"worker {pid}" for pid in pids))


def _environments(layout: Layout, pools: list[Any]) -> Iterator[Entry]:
    from ..agent.environments import EnvironmentStore

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


def _results(journal: Any) -> Iterator[Entry]:
    for key, function, size, used_at, hits in journal.read(
        "SELECT key, function, size, used_at, hits FROM results"
    ):
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
    from ..agent.generations import size_bytes

    return size_bytes(Path(entry.path))
