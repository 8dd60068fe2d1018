"""What an agent does by itself: removes what is kept too long or grows too large, and guards memory.

Tidying (the journal, job folders, results, bundles, environments, blobs) is slow, so it runs in a thread: it begins
with what is alive, as the loop's thread saw it, and touches nothing younger than a grace period. Guarding is quick
and runs in the loop, only while there are workers. Decisions about workers are the pools'; this module keeps the
timers, and nothing else.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..model.pool import WorkerState
from ..model.record import record
from ..wire import protocol
from ..worker.unpacked import prune
from . import abouts, memory, tools, trees
from . import pool_events as events
from .results import Results

if TYPE_CHECKING:
    from .service import Agent

_log = logging.getLogger(__name__)

FIRST_SECONDS = 30.0
EVERY_SECONDS = 600.0
GUARD_SECONDS = 0.5
LOW_MEMORY_TURNS = 4  # guards between two looks at the host's memory
BUSY_SECONDS = 0.5
GRACE_SECONDS = 600.0
RUNTIME_SECONDS = 7 * 86400.0  # from the last start of an agent out of a runtime until it is removed
KEPT_ROWS = 200_000
KEPT_BUNDLES = 200
KEPT_TREES = 1000
BATCH_ROWS = 50  # of jobs at once, where their size is the reason
ENVIRONMENTS_SHARE = 0.5  # of the cache's limit; blobs have what environments leave
RESULTS_SHARE = 0.25  # of the cache's limit


Done = Callable[[Any, "BaseException | None"], None]


@record(kw_only=True)
class Alive:
    """What must stay, as it was when tidying began.

    Attributes:
        names: jobs, calls and leases that have not ended.
        bundles: digests of local code that a worker, a job or a connected client may use.
        trees: digests of folders of data, likewise.
        environments: digests of environments that a pool stands on.
    """

    names: frozenset[str]
    bundles: frozenset[str]
    environments: frozenset[str]
    trees: frozenset[str] = frozenset()


class Housekeeping:
    """The timers of one agent. Owned by the loop's thread."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._guarding = False
        self._turns = 0
        self._tidying = False

    def start(self) -> None:
        """Begin to tidy now and then."""
        self._agent.reactor.after(FIRST_SECONDS, self._tidy_again)

    def _tidy_again(self) -> None:
        self.tidy()
        self._agent.reactor.after(EVERY_SECONDS, self._tidy_again)

    def tidy(self, done: Done = lambda _told, _error: None) -> None:
        """Tidy in a thread, then call `done(counts by what was removed, error or None)` in the loop's."""
        agent = self._agent
        if self._tidying:
            agent.reactor.after(BUSY_SECONDS, lambda: self.tidy(done))
            return
        self._tidying = True
        alive = alive_in(agent)

        def ended(told: Any, error: BaseException | None) -> None:
            self._tidying = False
            if error is not None:
                _log.error("tidying failed", exc_info=error)
            elif any(told.values()):
                _log.info("tidied: %s", ", ".join(f"{count} {what}" for what, count in told.items() if count))
            done(told, error)

        agent.reactor.in_thread(lambda: tidy(agent, alive), ended)

    def watch(self) -> None:
        """Guard memory from now on, as long as there are workers."""
        if not self._guarding and _has_workers(self._agent):
            self._guarding = True
            self._agent.reactor.after(GUARD_SECONDS, self._guard)

    def _guard(self) -> None:
        self._guarding = False
        self._turns += 1
        _stop_greedy_workers(self._agent)
        if not self._turns % LOW_MEMORY_TURNS and memory.runs_low():
            self._agent.happen(events.MemoryRanLow(time.monotonic()))
        self.watch()


def _has_workers(agent: Agent) -> bool:
    return any(pool.workers for pool in agent.pools.pools.values())


def _stop_greedy_workers(agent: Agent) -> None:
    """Kill the workers that hold more memory than their calls claimed."""
    limits = {
        worker.pid: (pool.key, worker.id, pool.spec.shape.memory_bytes)
        for pool in agent.pools.pools.values()
        if pool.spec.shape.memory_bytes
        for worker in pool.workers.values()
        if worker.pid and worker.state is not WorkerState.TERMINATING
    }
    if not limits:
        return
    for pid, used in memory.used_by_sessions(limits).items():
        key, number, limit = limits[pid]
        if used <= limit or memory.proportional(pid) <= limit:
            continue
        _log.warning(
            "worker %d of pool %s holds %d bytes and is killed; it may hold %d", number, key, used, limit
        )
        for entry in agent.leases.values():
            if entry.pool == key and entry.worker == number:
                entry.killed_for = "memory"
        agent.processes.tell_server(key, protocol.Signal(number, signal.SIGKILL))


def alive_in(agent: Agent) -> Alive:
    """Return what must stay. In the loop's thread."""
    pools = list(agent.pools.pools.values())
    specs = [job.spec for job in agent.jobs.values()]
    if not agent.recovered:  # a former agent's jobs have yet to be taken over
        left = (agent.journal.spec(record.name) for record in agent.journal.unfinished())
        specs += [spec for text in left if text and (spec := json.loads(text))]
    used = {worker.bundle or "" for pool in pools for worker in pool.workers.values()}
    used |= {waiting.bundle for pool in pools for waiting in pool.queue}
    used |= {spec["bundle"] for spec in specs}
    used |= {digest for client in agent.clients.connected.values() for digest in client.bundles}
    return Alive(
        names=frozenset({*agent.leases, *agent.running.records, *agent.jobs, *agent.job_waiters}),
        bundles=frozenset(used - {""}),
        environments=frozenset(pool.spec.environment.digest for pool in pools),
        trees=frozenset(
            {digest for spec in specs for digest in spec.get("trees", ())}
            | {digest for client in agent.clients.connected.values() for digest in client.trees}
        ),
    )


# --- tidying: in a thread ---------------------------------------------------------------------------------------


def tidy(agent: Agent, alive: Alive) -> dict[str, int]:
    """Remove what is too old or too large; return how many of each."""
    settings, now = agent.settings, time.time()
    results = Results(agent.journal)
    jobs = prune_jobs(agent, alive, ended_before=now - settings.retention_seconds)
    abouts.prune(agent.journal).result()
    folders = sweep_folders(agent, alive, older_than=now - settings.retention_seconds)
    old = results.prune(
        used_before=now - settings.retention_seconds,
        limit_bytes=int(settings.cache_bytes * RESULTS_SHARE),
    )
    environments = agent.environments.prune(
        alive.environments,
        older_than_seconds=settings.retention_seconds,
        limit_bytes=int(settings.cache_bytes * ENVIRONMENTS_SHARE),
    )
    left = settings.cache_bytes - sum(info.size_bytes for info in agent.environments.list())
    unpacked, blobs = prune_blobs(agent, alive, limit_bytes=max(0, left))
    return {
        "jobs": jobs,
        "folders": folders,
        "results": old,
        "environments": len(environments),
        "bundles": unpacked,
        "blobs": blobs,
        "runtimes": prune_runtimes(agent.layout.runtimes, used_before=now - RUNTIME_SECONDS),
        "uv_cache": int(
            tools.bound_cache(
                agent.layout.home / "cache" / "uv",
                agent.layout.tools,
                limit_bytes=int(settings.cache_bytes * ENVIRONMENTS_SHARE),
            )
        ),
        "tools": tools.prune(agent.layout.tools, used_before=now - settings.retention_seconds),
    }


def prune_jobs(agent: Agent, alive: Alive, *, ended_before: float) -> int:
    """Remove ended jobs that are too old or too many, and the oldest while all take too much room."""
    removed = 0
    while True:
        pruned = agent.journal.prune(
            ended_before=ended_before, max_rows=KEPT_ROWS, max_bytes=sys.maxsize, keep=alive.names
        ).result()
        remove_folders(agent.layout.jobs, pruned.jobs, alive=alive.names)
        removed += len(pruned.jobs)
        if not pruned.more:
            break
    while True:
        pruned = agent.journal.prune(
            ended_before=ended_before,
            max_rows=KEPT_ROWS,
            max_bytes=_bytes_for_journal(agent),
            keep=alive.names,
            batch_rows=BATCH_ROWS,
        ).result()
        remove_folders(agent.layout.jobs, pruned.jobs, alive=alive.names)
        removed += len(pruned.jobs)
        if not pruned.more:
            return removed


def _bytes_for_journal(agent: Agent) -> int:
    """How large the journal may be, given the logs and the blobs that its jobs refer to."""
    referenced = agent.journal.referenced_blobs() | _blobs_of_trees(agent)
    blobs = (
        sum(info.size_bytes for info in agent.blobs.ls() if info.digest in referenced) if referenced else 0
    )
    logs = sum(_sizes(agent.layout.jobs).values())
    cached = Results(agent.journal).stats().inline_bytes  # these have a bound of their own
    return max(0, agent.settings.retention_bytes - blobs - logs) + cached


def remove_folders(folder: Path, names: Collection[str], *, alive: Collection[str] = ()) -> None:
    """Remove what jobs left on disk: the folder under a job's name, and one for each attempt."""
    gone = frozenset(names)
    for path in _folders(folder) if gone else ():
        base, _, number = path.name.rpartition(".")
        owner = base if number.isdigit() and base in gone else path.name
        if owner in gone and path.name not in alive:
            shutil.rmtree(path, ignore_errors=True)


def sweep_folders(agent: Agent, alive: Alive, *, older_than: float) -> int:
    """Remove folders that nothing refers to: old logs of attached calls, and what a killed agent left."""
    swept = 0
    grace = time.time() - GRACE_SECONDS
    for path, changed_at in _changes(agent.layout.jobs).items():
        base, _, number = path.name.rpartition(".")
        owner = base if number.isdigit() else path.name
        if changed_at > grace or path.name in alive.names or owner in alive.names:
            continue
        if agent.journal.get(path.name) is not None or agent.journal.get(owner) is not None:
            continue
        # a lease's folder holds the logs of calls that may be listed still
        if changed_at < older_than or number.isdigit():
            shutil.rmtree(path, ignore_errors=True)
            swept += 1
    return swept


def prune_blobs(
    agent: Agent, alive: Alive, *, limit_bytes: int, grace_seconds: float = GRACE_SECONDS
) -> tuple[int, int]:
    """Remove bundles and trees, then blobs, that were not used for longest; return how many of each."""
    rooted_trees = alive.trees | trees.used(agent)
    linked = (
        (agent.layout.bundles, KEPT_BUNDLES, alive.bundles),
        (agent.layout.trees, KEPT_TREES, rooted_trees),
    )
    full = agent.blobs.stats().size_bytes > limit_bytes  # what is linked to cannot be removed
    removed = 0
    for folder, most, roots in linked:
        kept = 0 if full else most
        removed += len(prune(folder, limit=kept, roots=roots, grace_seconds=grace_seconds))
    needed = agent.journal.referenced_blobs() | _blobs_of_trees(agent, rooted_trees)
    blobs = agent.blobs.prune(limit_bytes=limit_bytes, roots=needed, grace_seconds=grace_seconds)
    return removed, len(blobs)


def _blobs_of_trees(agent: Agent, used: frozenset[str] = frozenset()) -> set[str]:
    """The blobs of the trees that are used, and of those that results of jobs name."""
    return trees.blobs_of(used | trees.kept_by_jobs(agent.layout.jobs), agent.blobs)


def prune_runtimes(folder: Path, *, used_before: float) -> int:
    """Remove the runtimes of other versions that no agent was started from lately and nothing runs from now."""
    removed = 0
    for path in _folders(folder):
        with contextlib.suppress(OSError):
            if path.name.startswith(".") or path.stat().st_mtime > used_before:
                continue
            held = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                going = path.with_name(
                    f".unpacking-{path.name}"
                )  # what is left of it after a crash, a client removes
                os.rename(path, going)
                shutil.rmtree(going, ignore_errors=True)
                removed += 1
            finally:
                os.close(held)
    return removed


def _sizes(folder: Path) -> dict[Path, int]:
    """How much each folder in a folder holds, in bytes on disk."""
    return {path: sum(status.st_blocks * 512 for status in _statuses(path)) for path in _folders(folder)}


def _changes(folder: Path) -> dict[Path, float]:
    """When something in each folder in a folder was last changed."""
    return {
        path: max((status.st_mtime for status in _statuses(path)), default=0.0) for path in _folders(folder)
    }


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]


def _statuses(folder: Path) -> list[os.stat_result]:
    found: list[os.stat_result] = []
    for parent, _, names in os.walk(folder):
        for name in (".", *names):
            try:
                found.append(os.lstat(os.path.join(parent, name)))
            except FileNotFoundError:
                continue
    return found
