"""How much of the host there is, how much of it calls may hold, and whether one more worker fits.

Pure arithmetic; which workers there are is `pools`' to say. GPUs that others on this machine hold are only known by
trying: one that was found taken counts as taken for a while, and then it is tried again.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from ..model.pool import PoolSpec, Shape
from .devices import VISIBLE, Gpu, allowed
from .gpu_locks import WHOLE, parts_of
from .pool_events import NO_QUOTAS, GpusTaken, Quotas, RefuseLease, Resources
from .pool_state import Worker

Held = tuple[Shape, Worker]  # what a worker's pool gives each of its workers, and the worker

ROUNDING = 1e-9  # ten times a tenth of a cpu is a cpu
TAKEN_SECONDS = 2.0  # nobody tells when another user's lease of a GPU ends


class Capacity:
    """The host's resources under the user's quotas.

    Args:
        resources: what the host has.

    Attributes:
        taken_why: who has the GPUs that were last found taken; empty since one was granted.
    """

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.quotas: Quotas = NO_QUOTAS
        self.taken_why = ""
        self._taken: dict[str, float] = {}  # GPUs that others hold, and until when we believe it

    def room(self, spec: PoolSpec, held: Collection[Held]) -> tuple[str, ...] | None:
        """Return the GPUs that one more worker of this pool gets, or None when it does not fit beside `held`."""
        if self.lacking(spec, held):
            return None
        return tuple(self._free_gpus(spec, held)[: math.ceil(spec.shape.gpus)])

    def lacking(self, spec: PoolSpec, held: Collection[Held]) -> str:
        """Return what there is too little of for one more worker of this pool; empty: it fits."""
        shape = spec.shape
        cpus = sum(taken.cpus for taken, _ in held)
        memory = sum(taken.memory_bytes for taken, _ in held)
        if shape.cpus and cpus + shape.cpus > _lower(self.resources.cpus, self.quotas.cpus) + ROUNDING:
            return "cpus"
        limit = _lower(self.resources.memory_bytes, self.quotas.memory_bytes)
        if shape.memory_bytes and memory + shape.memory_bytes > limit:
            return "memory"
        if not shape.gpus:
            return ""
        allowed_more = _lower(len(self.resources.gpus), self.quotas.gpus) - _claimed(held)
        lacks = shape.gpus > allowed_more + ROUNDING or shape.gpus > len(self._free_gpus(spec, held))
        return "gpus" if lacks else ""

    def refusal(self, lease: str, spec: PoolSpec, count: int = 1) -> RefuseLease | None:
        """Return the refusal of a lease that, with its group of `count`, could not be had even on an idle host."""
        host, quotas, hint = self.resources, self.quotas, "ask for less, or use another instance_type"
        shape, text, gpus = spec.shape, "", len(self._wanted(spec))
        most = gpus * (WHOLE // parts_of(shape.gpus)) if shape.shares_gpu else gpus // (shape.gpus or 1)
        each = f" for each of {count} workers" if count > 1 else ""
        if shape.cpus * count > host.cpus:
            text = f"cpus={shape.cpus:g}{each} was asked for; this host has {host.cpus:g}"
        elif shape.memory_bytes * count > host.memory_bytes:
            text = f"memory={shape.memory_bytes:,} bytes{each} was asked for; this host has {host.memory_bytes:,}"
        elif shape.gpus and count > most:
            what = f" of type {shape.gpu_type!r}" if shape.gpu_type else ""
            text = f"gpus={shape.gpus:g}{what}{each} was asked for; this host has {gpus}"
            if VISIBLE in spec.variables:
                text += f" of those that {VISIBLE} names"
        else:
            hint = "ask for less, or raise the quota in the configuration"
            for name, asked, quota in (
                ("cpus", shape.cpus, quotas.cpus),
                ("memory", shape.memory_bytes, quotas.memory_bytes),
                ("gpus", shape.gpus, quotas.gpus),
            ):
                if quota is not None and asked * count > quota:
                    limit = f"the option quotas allows {quota:,.12g} on this host"
                    text = f"{name}={asked:,.15g}{each} was asked for; {limit}"
        return RefuseLease(lease, "ResourceLimitExceeded", text, hint=hint) if text else None

    def gpus_taken(self, event: GpusTaken) -> None:
        """Others on this machine hold some GPUs."""
        self.taken_why = event.why
        self._taken.update(dict.fromkeys(event.gpus, event.now + TAKEN_SECONDS))

    def gpus_granted(self) -> None:
        """GPUs were had, so it is not only others that anyone waits for."""
        self.taken_why = ""

    def next_try(self) -> float | None:
        """Return when a GPU that others held is to be tried again; None: there is none."""
        return min(self._taken.values(), default=None)

    def try_again(self, now: float) -> bool:
        """Believe no longer that others hold what has not been tried for a while; tell whether there is any."""
        due = [gpu for gpu, until in self._taken.items() if until <= now]
        for gpu in due:
            del self._taken[gpu]
        return bool(due)

    def _free_gpus(self, spec: PoolSpec, held: Collection[Held]) -> list[str]:
        """Return the GPUs that are free; those of which a share is, fullest first: so others stay whole."""
        left = {gpu.uuid: WHOLE for gpu in self._wanted(spec) if gpu.uuid not in self._taken}
        for shape, worker in held:
            for uuid in worker.gpus:
                if uuid in left:
                    left[uuid] -= parts_of(shape.gpus)
        parts = parts_of(spec.shape.gpus)
        return sorted((uuid for uuid in left if left[uuid] >= parts), key=left.__getitem__)

    def _wanted(self, spec: PoolSpec) -> list[Gpu]:
        """Return the GPUs that would do: of the type asked for, and among those that the caller may see."""
        visible = allowed(self.resources.gpus, spec.variables.get(VISIBLE))
        return [gpu for gpu in visible if spec.shape.gpu_type.lower() in gpu.name.lower()]


def _claimed(held: Collection[Held]) -> float:
    return sum(min(shape.gpus, len(worker.gpus)) for shape, worker in held)


def _lower(host: float, quota: float | None) -> float:
    return host if quota is None else min(host, quota)
