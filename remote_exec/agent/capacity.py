"""How much of the host there is, how much of it calls may hold, and whether one more worker fits.

Pure arithmetic; which workers there are is `pools`' to say.
"""

from __future__ import annotations

from collections.abc import Collection

from ..model.pool import Shape
from .pool_events import NO_QUOTAS, Quotas, RefuseLease, Resources
from .pool_state import Worker

Held = tuple[Shape, Worker]  # what a worker's pool gives each of its workers, and the worker

ROUNDING = 1e-9  # ten times a tenth of a cpu is a cpu


class Capacity:
    """The host's resources under the user's quotas.

    Args:
        resources: what the host has.
    """

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.quotas: Quotas = NO_QUOTAS

    def room(self, shape: Shape, held: Collection[Held]) -> tuple[int, ...] | None:
        """Return the GPUs that one more worker of this shape gets, or None when it does not fit beside `held`."""
        cpus = sum(taken.cpus for taken, _ in held)
        memory = sum(taken.memory_bytes for taken, _ in held)
        if shape.cpus and cpus + shape.cpus > _lower(self.resources.cpus, self.quotas.cpus) + ROUNDING:
            return None
        memory_limit = _lower(self.resources.memory_bytes, self.quotas.memory_bytes)
        if shape.memory_bytes and memory + shape.memory_bytes > memory_limit:
            return None
        return self._free_gpus(shape, held) if shape.gpus else ()

    def refusal(self, lease: str, shape: Shape) -> RefuseLease | None:
        """Return the refusal of a lease that could not be granted even on an idle host."""
        host, quotas, hint = self.resources, self.quotas, "ask for less, or use another instance_type"
        text, gpus = "", len(self._of_type(shape.gpu_type))
        if shape.cpus > host.cpus:
            text = f"cpus={shape.cpus:g} was asked for; this host has {host.cpus:g}"
        elif shape.memory_bytes > host.memory_bytes:
            text = f"memory={shape.memory_bytes:,} bytes was asked for; this host has {host.memory_bytes:,}"
        elif shape.gpus > gpus:
            what = f" of type {shape.gpu_type!r}" if shape.gpu_type else ""
            text = f"gpus={shape.gpus}{what} was asked for; this host has {gpus}"
        else:
            hint = "ask for less, or raise the quota in the configuration"
            for name, asked, quota in (
                ("cpus", shape.cpus, quotas.cpus),
                ("memory", shape.memory_bytes, quotas.memory_bytes),
                ("gpus", shape.gpus, quotas.gpus),
            ):
                if quota is not None and asked > quota:
                    allowed = f"the option quotas allows {quota:,.12g} on this host"
                    text = f"{name}={asked:,} was asked for; {allowed}"
        return RefuseLease(lease, "ResourceLimitExceeded", text, hint=hint) if text else None

    def _free_gpus(self, shape: Shape, held: Collection[Held]) -> tuple[int, ...] | None:
        taken: set[int] = set()
        for _, worker in held:
            if worker.gpus is None:  # a former agent's: it holds some, and nobody knows which
                return None
            taken.update(worker.gpus)
        free = [index for index in self._of_type(shape.gpu_type) if index not in taken]
        left = _lower(len(self.resources.gpus), self.quotas.gpus) - len(taken)
        return tuple(free[: shape.gpus]) if shape.gpus <= min(len(free), left) else None

    def _of_type(self, gpu_type: str) -> list[int]:
        return [i for i, name in enumerate(self.resources.gpus) if gpu_type.lower() in name.lower()]


def _lower(host: float, quota: float | None) -> float:
    return host if quota is None else min(host, quota)
