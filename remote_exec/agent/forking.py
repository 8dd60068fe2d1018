"""Carries out what the pools instruct about forks: GPUs are locked first, and what goes wrong is written down.

A GPU that a worker gets is locked in a folder that all users' agents share. The descriptors of the locks travel to
the fork server and on to the worker; nobody else keeps one, so that the kernel frees the GPUs when the worker has
ended, however it did. That is also how a later agent knows what the workers hold that it adopts.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from typing import TYPE_CHECKING

from . import findings
from . import pool_events as events
from .devices import visible
from .gpu_locks import GpuLease, held_by, holders, lease_gpus, lock_folder, parts_of

if TYPE_CHECKING:
    from ..wire import protocol
    from .service import Agent

_log = logging.getLogger(__name__)

FINDINGS_NAME = "findings.jsonl"  # in the agent's home
NO_GPUS = GpuLease(gpus=(), descriptors=())


class Forking:
    """Of one agent. Owned by the loop's thread."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.locks = lock_folder(os.environ)

    def fork(self, instruction: events.ForkWorker) -> None:
        """Fork a worker, with its GPUs; tell the pools if others have them."""
        lease = self._lock(instruction) if instruction.gpus else NO_GPUS
        if lease is None:
            return
        self._agent.processes.fork(
            instruction.pool,
            instruction.worker,
            visible(lease.gpus) if lease.gpus else {},
            fresh=instruction.fresh,
            devices=lease.descriptors,
        )
        lease.close()

    def _lock(self, instruction: events.ForkWorker) -> GpuLease | None:
        gpus = [gpu for gpu in self._agent.host.gpus if gpu.uuid in instruction.gpus]
        gpus.sort(key=lambda gpu: instruction.gpus.index(gpu.uuid))
        parts = parts_of(self._agent.pools.pools[instruction.pool].spec.shape.gpus)
        try:
            lease = lease_gpus(len(gpus), self.locks, gpus=gpus, parts=parts)
            if lease is not None:
                return lease
            held = holders(gpus, self.locks, parts=parts)
            by = ", ".join(sorted(set(held.values()))) or "another agent of this machine"
            taken, why = tuple(held) or instruction.gpus, f"GPUs are taken by {by}"
        except OSError as error:
            taken, why = instruction.gpus, f"GPUs cannot be locked: {error}"
            _log.error("pool %s: %s", instruction.pool, why)
        agent, pool, worker = self._agent, instruction.pool, instruction.worker
        agent.reactor.soon(lambda: agent.happen(events.GpusTaken(time.monotonic(), pool, worker, taken, why)))
        return None

    def fork_server_ready(self, pool: str, message: protocol.ForkServerReady) -> None:
        """A fork server has spoken; a former agent's has workers, and they may hold GPUs."""
        agent = self._agent
        workers = tuple(
            (worker, pid, held_by(pid, self.locks, gpus=agent.host.gpus)) for worker, pid in message.workers
        )
        agent.happen(events.ForkServerStarted(time.monotonic(), pool, workers))
        for worker, pid, _ in workers:
            agent.processes.adopt(pool, worker, pid)
        for exited in message.exited:
            agent.note_past_death(exited)

    def preloaded(self, pool: str, message: protocol.Preloaded) -> None:
        """A fork server has imported what it could."""
        for name, reason in message.failed.items():
            _log.info("pool %s: preloading %s failed: %s", pool, name, reason)
        now = time.monotonic()
        event = events.ModulesPreloaded(now, pool, message.failed, message.hung, message.started)
        self._agent.happen(event)

    def note(self, instruction: events.NoteFinding) -> None:
        """Write down what was found out."""
        finding = instruction.finding
        modules = ", ".join(finding.modules) or "nothing"
        what = (
            f"{modules} left out of the imports" if finding.forks else f"no forks after importing {modules}"
        )
        _log.warning("pool %s: %s (%s)", instruction.pool, finding.reason, what)
        if instruction.lasting:
            with contextlib.suppress(OSError):  # a full disk: it will be found out again
                findings.append(self._agent.layout.home / FINDINGS_NAME, finding)
