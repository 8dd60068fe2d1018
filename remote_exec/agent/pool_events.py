"""What can happen to pools (events, in the past tense) and what is then to be done (instructions)."""

from __future__ import annotations

from typing import Union

from ..model.job import DeathCertificate, Phase
from ..model.pool import PoolSpec
from ..model.record import record


@record
class Resources:
    """What the host has to give."""

    cpus: float
    memory_bytes: int
    gpus: tuple[str, ...] = ()  # the name of each


@record
class Quotas:
    """The most that all calls together may hold; None is no bound but the host's."""

    cpus: float | None = None
    memory_bytes: float | None = None
    gpus: float | None = None


NO_QUOTAS = Quotas()


# --- events -------------------------------------------------------------------------------------------------


@record
class LeaseRequested:
    now: float
    lease: str
    client: int
    spec: PoolSpec
    bundle: str
    preload: tuple[str, ...]
    keep_alive_seconds: float
    max_workers: int


@record
class ClientLeft:
    now: float
    client: int


@record
class LeaseWithdrawn:
    now: float
    lease: str


@record
class EnvironmentReady:
    now: float
    pool: str
    python: str


@record
class EnvironmentFailed:
    now: float
    pool: str
    error: str
    text: str
    output: str = ""
    hint: str = ""


@record
class ForkServerStarted:
    now: float
    pool: str
    workers: tuple[tuple[int, int], ...] = ()


@record
class ForkServerLost:
    now: float
    pool: str
    reason: str


@record
class ModulesPreloaded:
    now: float
    pool: str
    failed: dict[str, str]


@record
class WorkerForked:
    now: float
    pool: str
    worker: int
    pid: int


@record
class WorkerBecameReady:
    now: float
    pool: str
    worker: int
    lease: str = ""


@record
class LeaseReturned:
    now: float
    pool: str
    worker: int
    lease: str


@record
class WorkerDeparted:
    now: float
    pool: str
    worker: int
    certificate: DeathCertificate
    begun: int = 0
    item: int = 0


@record
class QuotasSet:
    """The configuration allows more, or less, than before."""

    now: float
    quotas: Quotas


@record
class MemoryRanLow:
    now: float


@record
class ReleaseAsked:
    """A user wants a pool's idle workers gone; an empty key means all pools."""

    now: float
    pool: str


@record
class TimePassed:
    now: float


Event = Union[
    LeaseRequested, LeaseWithdrawn, ClientLeft, EnvironmentReady, EnvironmentFailed, ForkServerStarted, ForkServerLost,
    ModulesPreloaded, WorkerForked, WorkerBecameReady, LeaseReturned, WorkerDeparted, QuotasSet, MemoryRanLow,
    ReleaseAsked, TimePassed,
]  # fmt: skip


# --- instructions -------------------------------------------------------------------------------------------


@record
class PrepareEnvironment:
    pool: str
    spec: PoolSpec


@record
class StartForkServer:
    pool: str
    spec: PoolSpec
    python: str


@record
class PreloadModules:
    pool: str
    modules: tuple[str, ...]


@record
class ForkWorker:
    pool: str
    worker: int
    variables: dict[str, str]
    fresh: bool


@record
class AttachWorker:
    pool: str
    worker: int
    lease: str
    bundle: str
    warm: bool
    phases: tuple[Phase, ...]


@record
class StopWorker:
    pool: str
    worker: int


@record
class KillWorker:
    pool: str
    worker: int


@record
class StopForkServer:
    pool: str


@record
class TellWaits:
    lease: str
    phase: str
    why: str


@record
class RefuseLease:
    lease: str
    error: str
    text: str
    output: str = ""
    hint: str = ""


@record
class TellLost:
    lease: str
    certificate: DeathCertificate
    begun: int
    item: int


Instruction = Union[
    PrepareEnvironment, StartForkServer, PreloadModules, ForkWorker, AttachWorker, StopWorker, KillWorker,
    StopForkServer, TellWaits, RefuseLease, TellLost,
]  # fmt: skip


