"""What can happen to pools (events, in the past tense) and what is then to be done (instructions)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

from ..model.job import DeathCertificate, Phase
from ..model.pool import PoolSpec


@dataclass(frozen=True)
class Resources:
    """What the host has to give."""

    cpus: float
    memory_bytes: int
    gpus: tuple[str, ...] = ()  # the name of each


@dataclass(frozen=True)
class Quotas:
    """The most that all calls together may hold; None is no bound but the host's."""

    cpus: float | None = None
    memory_bytes: float | None = None
    gpus: float | None = None


NO_QUOTAS = Quotas()


# --- events -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LeaseRequested:
    now: float
    lease: str
    client: int
    spec: PoolSpec
    bundle: str
    preload: tuple[str, ...]
    keep_alive_seconds: float
    max_workers: int


@dataclass(frozen=True)
class ClientLeft:
    now: float
    client: int


@dataclass(frozen=True)
class LeaseWithdrawn:
    now: float
    lease: str


@dataclass(frozen=True)
class EnvironmentReady:
    now: float
    pool: str
    python: str


@dataclass(frozen=True)
class EnvironmentFailed:
    now: float
    pool: str
    error: str
    text: str
    output: str = ""
    hint: str = ""


@dataclass(frozen=True)
class ForkServerStarted:
    now: float
    pool: str
    workers: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class ForkServerLost:
    now: float
    pool: str
    reason: str


@dataclass(frozen=True)
class ModulesPreloaded:
    now: float
    pool: str
    failed: dict[str, str]


@dataclass(frozen=True)
class WorkerForked:
    now: float
    pool: str
    worker: int
    pid: int


@dataclass(frozen=True)
class WorkerBecameReady:
    now: float
    pool: str
    worker: int
    lease: str = ""


@dataclass(frozen=True)
class LeaseReturned:
    now: float
    pool: str
    worker: int
    lease: str


@dataclass(frozen=True)
class WorkerDeparted:
    now: float
    pool: str
    worker: int
    certificate: DeathCertificate
    begun: int = 0
    item: int = 0


@dataclass(frozen=True)
class QuotasSet:
    """The configuration allows more, or less, than before."""

    now: float
    quotas: Quotas


@dataclass(frozen=True)
class MemoryRanLow:
    now: float


@dataclass(frozen=True)
class ReleaseAsked:
    """A user wants a pool's idle workers gone; an empty key means all pools."""

    now: float
    pool: str


@dataclass(frozen=True)
class TimePassed:
    now: float


Event = Union[
    LeaseRequested, LeaseWithdrawn, ClientLeft, EnvironmentReady, EnvironmentFailed, ForkServerStarted, ForkServerLost,
    ModulesPreloaded, WorkerForked, WorkerBecameReady, LeaseReturned, WorkerDeparted, QuotasSet, MemoryRanLow,
    ReleaseAsked, TimePassed,
]  # fmt: skip


# --- instructions -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PrepareEnvironment:
    pool: str
    spec: PoolSpec


@dataclass(frozen=True)
class StartForkServer:
    pool: str
    spec: PoolSpec
    python: str


@dataclass(frozen=True)
class PreloadModules:
    pool: str
    modules: tuple[str, ...]


@dataclass(frozen=True)
class ForkWorker:
    pool: str
    worker: int
    variables: dict[str, str]
    fresh: bool


@dataclass(frozen=True)
class AttachWorker:
    pool: str
    worker: int
    lease: str
    bundle: str
    warm: bool
    phases: tuple[Phase, ...]


@dataclass(frozen=True)
class StopWorker:
    pool: str
    worker: int


@dataclass(frozen=True)
class KillWorker:
    pool: str
    worker: int


@dataclass(frozen=True)
class StopForkServer:
    pool: str


@dataclass(frozen=True)
class TellWaits:
    lease: str
    phase: str
    why: str


@dataclass(frozen=True)
class RefuseLease:
    lease: str
    error: str
    text: str
    output: str = ""
    hint: str = ""


@dataclass(frozen=True)
class TellLost:
    lease: str
    certificate: DeathCertificate
    begun: int
    item: int


Instruction = Union[
    PrepareEnvironment, StartForkServer, PreloadModules, ForkWorker, AttachWorker, StopWorker, KillWorker,
    StopForkServer, TellWaits, RefuseLease, TellLost,
]  # fmt: skip


