"""What a pool of warm workers is asked to be, and what it tells of itself."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import Enum

from .cost import Price
from .digests import digest_of
from .environment import EnvironmentSpec
from .record import record

MOST_ASKED = 3


class WorkerState(str, Enum):
    """A worker's life: forked, waiting, leased, on its way out."""

    STARTING = "Starting"
    AVAILABLE = "Available"
    IN_USE = "InUse"
    TERMINATING = "Terminating"


@record(kw_only=True)
class Shape:
    """What one worker is given. Zero means: no claim, and no limit."""

    cpus: float = 0.0
    memory_bytes: int = 0
    gpus: float = 0.0  # whole ones; below 1: a share of one
    gpu_type: str = ""

    @property
    def shares_gpu(self) -> bool:
        """Whether it asks for a part of one GPU only, beside others."""
        return 0.0 < self.gpus < 1.0

    def vies_with(self, other: Shape) -> bool:
        """Whether both claim some of the same kind of thing."""
        return bool(
            (self.cpus and other.cpus)
            or (self.memory_bytes and other.memory_bytes)
            or (self.gpus and other.gpus)
        )


@record(kw_only=True)
class PoolSpec:
    """Everything that makes two workers exchangeable. Its key is the pool's identity."""

    environment: EnvironmentSpec
    # environment variables of the worker: the whole environment when `inherit` is false, additions else.
    # They may be secret: this object is never logged or stored, only its key is.
    variables: dict[str, str]
    inherit: bool = True
    shape: Shape = Shape()
    # anything else that must not be shared: pre-execution commands, one instance of a remote class, ...
    private: str = ""

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits."""
        parts = [
            self.environment.digest,
            sorted(self.variables.items()),
            self.inherit,
            asdict(self.shape),
            self.private,
        ]
        return digest_of(json.dumps(parts, sort_keys=True))[:16]


@record(kw_only=True)
class Asked:
    """Who has asked for a pool's workers, in words for lists: functions and notebooks, the last ones first."""

    by: tuple[str, ...] = ()
    instance_type: str = ""

    def after(self, former: Asked) -> Asked:
        """Return this with those who have asked before."""
        return Asked(
            by=tuple(dict.fromkeys((*self.by, *former.by)))[:MOST_ASKED],
            instance_type=self.instance_type or former.instance_type,
        )


@record(kw_only=True)
class GpuUse:
    """How busy one GPU is, whoever uses it."""

    uuid: str
    memory_used_bytes: int
    percent: int  # of the last sample period; 0 where the device does not say
    peak_memory_bytes: int = 0  # the most that was seen in use since a call has it


@record(kw_only=True)
class WorkerInfo:
    """One worker, as lists show it."""

    id: int
    pid: int
    state: WorkerState
    reuses: int
    idle_seconds: float
    bundle: str = ""
    gpus: tuple[str, ...] = ()  # UUIDs
    keep_alive_seconds: float = 0.0  # how long it may be idle
    price: Price | None = None  # at which it was leased last


@record(kw_only=True)
class PoolInfo:
    """One pool, as lists show it."""

    key: str
    asked_by: tuple[str, ...]
    instance_type: str
    environment: str
    python: str  # its path
    python_version: str
    keep_alive_seconds: float
    max_workers: int
    queued: int
    shape: Shape
    workers: tuple[WorkerInfo, ...]
    note: str = ""
