"""How busy the GPUs are: looked at now and then while workers hold some, and when somebody asks.

What is seen goes to the log of the call that runs, as an event, and its peak into the certificate of a worker's death.
NVML tells of whole GPUs: on one that is shared, what others use there is counted, too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..model.pool import GpuUse
from ..wire import protocol
from . import devices, gpu_locks, jobs

if TYPE_CHECKING:
    from .pool_state import Pool, Worker
    from .service import Agent

_log = logging.getLogger(__name__)

FIRST_SECONDS = 1.0  # short calls are not looked at
EVERY_SECONDS = 5.0


class GpuWatch:
    """Of one agent. Owned by the loop's thread; NVML is asked in another, since it may take long."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._watching = False
        self._peaks: dict[str, dict[str, int]] = {}  # lease -> GPU -> bytes

    def watch(self) -> None:
        """Look now and then from now on, as long as calls hold GPUs."""
        if not self._watching and self._in_use():
            self._watching = True
            self._agent.reactor.after(FIRST_SECONDS, self._look)

    def peak(self, lease: str) -> int:
        """Return the most memory that was seen in use on the GPUs of a lease; 0 where none was looked at."""
        return sum(self._peaks.get(lease, {}).values())

    def tell(self) -> Callable[[], list[dict[str, Any]]]:
        """Note who holds which GPU; what is returned looks at them, in a thread, and tells it all as plain data."""
        gpus, folder = self._agent.host.gpus, self._agent.forking.locks
        ours: dict[str, list[dict[str, Any]]] = {gpu.uuid: [] for gpu in gpus}
        names = {lease: name for name, (lease, _) in self._agent.running.leases.items()}
        for pool, worker in self._holders():
            for uuid in worker.gpus:
                call = jobs.job_of(worker.lease) or names.get(worker.lease, "")
                held = {
                    "pool": pool.key,
                    "pid": worker.pid,
                    "gpus": min(1.0, pool.spec.shape.gpus),
                    "call": call,
                }
                ours.setdefault(uuid, []).append(held)

        def look() -> list[dict[str, Any]]:
            uses = {use.uuid: use for use in devices.utilisation()} if gpus else {}
            return [
                {
                    "uuid": gpu.uuid,
                    "name": gpu.name,
                    "memory_total_bytes": gpu.memory_total_bytes,
                    "memory_used_bytes": uses[gpu.uuid].memory_used_bytes,
                    "percent": uses[gpu.uuid].percent,
                    "held_by": ours[gpu.uuid],
                    "held_by_others": gpu_locks.others(gpu, folder),
                }
                for gpu in gpus
                if gpu.uuid in uses
            ]

        return look

    def _holders(self) -> list[tuple[Pool, Worker]]:
        pools = self._agent.pools.pools.values()
        return [(pool, worker) for pool in pools for worker in pool.workers.values() if worker.gpus]

    def _in_use(self) -> list[tuple[Pool, Worker]]:
        return [(pool, worker) for pool, worker in self._holders() if worker.lease]

    def _look(self) -> None:
        self._agent.reactor.in_thread(devices.utilisation, self._seen)

    def _seen(self, uses: tuple[GpuUse, ...] | None, error: BaseException | None) -> None:
        if error is not None:
            _log.error("looking at the GPUs failed", exc_info=error)
        in_use = self._in_use()
        peaks = {worker.lease: self._peaks.get(worker.lease, {}) for _, worker in in_use}
        self._peaks = peaks
        for pool, worker in in_use:
            seen: list[GpuUse] = []
            of = peaks[worker.lease]
            for use in uses or ():
                if use.uuid in worker.gpus:
                    of[use.uuid] = max(of.get(use.uuid, 0), use.memory_used_bytes)
                    seen.append(replace(use, peak_memory_bytes=of[use.uuid]))
            if seen:
                self._agent.processes.tell_worker(pool.key, worker.id, protocol.GpusSeen(tuple(seen)))
        self._watching = bool(in_use)
        if in_use:
            self._agent.reactor.after(EVERY_SECONDS, self._look)
