"""What a call that lasts uses of processors, memory and GPUs, looked at every few seconds, as metrics of its own.

Short calls are not looked at. Each look is a thread's that ends with it, since the kernel may take its time to count
the pages of a large process; and it takes a hundredth of one processor at the most.
"""

from __future__ import annotations

import math
import os
import threading
import time
from typing import TYPE_CHECKING

from .metrics import told_apart

if TYPE_CHECKING:
    from ..model.pool import GpuUse
    from .lease import Lease
    from .metrics import Row

CALL_SECONDS = 5.0  # how long a call has run when it is looked at first, ...
JOB_SECONDS = 0.5  # ... and a durable job
SOON_SECONDS = 1.0  # from the first look to the second, which tells of processors
EVERY_SECONDS = 5.0
SHARE = 0.01

PREFIX = "system/"


class Sampler:
    """Looks at this process and all that it has started. `tick` is for the attendant's thread."""

    def __init__(self) -> None:
        self._due = 0.0
        self._before: tuple[int, float, float] | None = None  # call, when, its processor seconds until then

    def tick(self, lease: Lease, rank: int) -> None:
        """Look, if it is time to."""
        call, now = lease.running, time.monotonic()
        if not call or now < self._due:
            return
        if time.time() - lease.started_at < (JOB_SECONDS if lease.attach.job else CALL_SECONDS):
            return
        self._due = math.inf
        threading.Thread(
            target=self._look, args=(lease, call, rank), name="remote_exec-sampler", daemon=True
        ).start()

    def _look(self, lease: Lease, call: int, rank: int) -> None:
        from . import usage

        began = time.monotonic()
        pause = EVERY_SECONDS
        try:
            use = usage.sample([os.getpid()]).workers[os.getpid()]
            now = time.monotonic()
            found = {"memory_bytes": float(use.memory_bytes)}
            if self._before is not None and self._before[0] == call:
                _, at, seconds = self._before
                found["cpu_percent"] = round(100 * max(0.0, use.cpu_seconds - seconds) / (now - at), 1)
            else:
                pause = SOON_SECONDS
            self._before = call, now, use.cpu_seconds
            if lease.running == call:
                lease.metrics.add(call, _rows(found, rank))
        finally:
            now = time.monotonic()
            self._due = now + max(pause, (now - began) / SHARE)


def log_gpus(lease: Lease, gpus: tuple[GpuUse, ...], rank: int) -> None:
    """Log how busy the GPUs of a lease are, which the agent has found out."""
    found: dict[str, float] = {}
    for number, gpu in enumerate(gpus):
        found[f"gpu{number}_percent"] = float(gpu.percent)
        found[f"gpu{number}_memory_bytes"] = float(gpu.memory_used_bytes)
    lease.metrics.add(lease.running, _rows(found, rank))


def _rows(found: dict[str, float], rank: int) -> list[Row]:
    now = round(time.time(), 3)
    return [[told_apart(f"{PREFIX}{name}", rank), now, None, value] for name, value in found.items()]
