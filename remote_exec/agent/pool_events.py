"""What can happen to pools (events, in the past tense) and what is then to be done (instructions).

`now` is monotonic time in seconds; `pool` is a pool's key; leases and workers are named by their ids, GPUs by their
UUIDs.
"""

from __future__ import annotations

from typing import Union

from ..model.job import DeathCertificate, Phase
from ..model.pool import Asked, PoolSpec
from ..model.record import record
from .devices import Gpu
from .findings import Finding


@record
class Resources:
    """What the host has to give."""

    cpus: float
    memory_bytes: int
    gpus: tuple[Gpu, ...] = ()


@record
class Quotas:
    """The most that all calls together may hold; None is no bound but the host's."""

    cpus: float | None = None
    memory_bytes: float | None = None
    gpus: float | None = None


NO_QUOTAS = Quotas()
EVERY_CALL = 1 << 62  # in `TellLost.begun`: any call of the lease may have been begun, so none may run again


# --- events -------------------------------------------------------------------------------------------------


@record
class LeaseRequested:
    """A client, or the agent itself (client 0), wants a worker."""

    now: float
    lease: str
    client: int
    spec: PoolSpec
    bundle: str
    preload: tuple[str, ...]
    keep_alive_seconds: float
    max_workers: int
    group: str = ""
    group_size: int = 1
    asked: Asked = Asked()


@record
class ClientLeft:
    """A client is gone, and with it what it waited for; what it was granted ends by itself."""

    now: float
    client: int


@record
class LeaseWithdrawn:
    """A lease is not wanted any longer; harmless when it has been granted."""

    now: float
    lease: str


@record
class EnvironmentReady:
    """`python` is the environment's interpreter."""

    now: float
    pool: str
    python: str


@record
class EnvironmentFailed:
    """The environment cannot be had: the name of an error class, and its words."""

    now: float
    pool: str
    error: str
    text: str
    output: str = ""
    hint: str = ""


@record
class ForkServerStarted:
    """A fork server spoke; `workers` (id, pid, GPUs) are those it has from a former agent's time."""

    now: float
    pool: str
    workers: tuple[tuple[int, int, tuple[str, ...]], ...] = ()


@record
class ForkServerLost:
    """A fork server is gone, or could not be started, or has ended as it was told; `output`: its last words."""

    now: float
    pool: str
    reason: str
    output: str = ""


@record
class ImportStarted:
    """A fork server has begun to import a module."""

    now: float
    pool: str
    module: str


@record
class ModulesPreloaded:
    """A fork server has imported what it could.

    Attributes:
        failed: the modules that could not be imported, with the reason.
        hung: those whose import was given up since it took too long.
        threads: the threads of Python's that the imports have started and left, in words.
    """

    now: float
    pool: str
    failed: dict[str, str]
    hung: tuple[str, ...] = ()
    threads: tuple[str, ...] = ()


@record
class WorkerForked:
    """A worker has a process."""

    now: float
    pool: str
    worker: int
    pid: int


@record
class GpusTaken:
    """A worker was not forked: others on this machine hold `gpus`, as `why` says."""

    now: float
    pool: str
    worker: int
    gpus: tuple[str, ...]
    why: str


@record
class ForkFailed:
    """A worker was not forked, as `why` says; nothing of it is there."""

    now: float
    pool: str
    worker: int
    why: str


@record
class WorkerBecameReady:
    """A worker spoke; `lease` is what it serves already, for a former agent."""

    now: float
    pool: str
    worker: int
    lease: str = ""


@record
class LeaseReturned:
    """A worker serves its lease no longer."""

    now: float
    pool: str
    worker: int
    lease: str


@record
class WorkerDeparted:
    """A worker has been reaped; calls of its lease above `begun` were not begun."""

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
    """The host needs memory."""

    now: float


@record
class ReleaseAsked:
    """A user wants a pool's idle workers gone; an empty key means all pools."""

    now: float
    pool: str


@record
class KeepAsked:
    """A user wants a pool's workers warm for so long from now."""

    now: float
    pool: str
    seconds: float


@record
class TimePassed:
    """It is the time that `next_due` named, or later."""

    now: float


Event = Union[  # noqa: UP007 - evaluated when imported, on 3.10 too
    LeaseRequested, LeaseWithdrawn, ClientLeft, EnvironmentReady, EnvironmentFailed, ForkServerStarted,
    ForkServerLost, ImportStarted, ModulesPreloaded, WorkerForked, GpusTaken, ForkFailed, WorkerBecameReady,
    LeaseReturned, WorkerDeparted, QuotasSet, MemoryRanLow, ReleaseAsked, KeepAsked, TimePassed,
]  # fmt: skip


# --- instructions -------------------------------------------------------------------------------------------


@record
class PrepareEnvironment:
    """Build it; answer with `EnvironmentReady` or `EnvironmentFailed`."""

    pool: str
    spec: PoolSpec


@record
class StartForkServer:
    """Start it; answer with `ForkServerStarted` or `ForkServerLost`."""

    pool: str
    spec: PoolSpec
    python: str


@record
class PreloadModules:
    """Have the fork server import them, each in so many seconds; answer with `ModulesPreloaded`."""

    pool: str
    modules: tuple[str, ...]
    seconds: float


@record
class ForkWorker:
    """Fork, or start `fresh`; answer with `WorkerForked`, `WorkerBecameReady` or `WorkerDeparted`.

    Lock the GPUs for it first; where others hold some of them, answer with `GpusTaken`. Where that
    or the fork itself is not to be done, answer with `ForkFailed`.
    """

    pool: str
    worker: int
    gpus: tuple[str, ...]
    fresh: bool


@record
class AttachWorker:
    """Hand the lease's streams to the worker, and tell its client."""

    pool: str
    worker: int
    lease: str
    bundle: str
    warm: bool
    phases: tuple[Phase, ...]


@record
class StopWorker:
    """Have an idle worker end in good order; answer with `WorkerDeparted`."""

    pool: str
    worker: int


@record
class KillWorker:
    """End a worker that does not speak; answer with `WorkerDeparted`."""

    pool: str
    worker: int


@record
class StopForkServer:
    """Have it end; answer with `ForkServerLost`."""

    pool: str


@record
class KillForkServer:
    """End one that does not speak; answer with `ForkServerLost`."""

    pool: str
    reason: str


@record
class NoteFinding:
    """Write down what was found out about forking; `lasting`: for the next agents, too."""

    pool: str
    finding: Finding
    lasting: bool


@record
class TellWaits:
    """Tell a client in words what its lease waits for."""

    lease: str
    phase: str
    why: str


@record
class RecallLease:
    """Ask a client for its lease, since others wait; answer with `LeaseReturned` once nothing of it runs."""

    lease: str


@record
class RefuseLease:
    """Tell a client that it gets no worker: the name of an error class, and its words."""

    lease: str
    error: str
    text: str
    output: str = ""
    hint: str = ""


@record
class TellLost:
    """Tell a client that its worker died; calls above `begun` were not begun."""

    lease: str
    certificate: DeathCertificate
    begun: int
    item: int


Instruction = Union[  # noqa: UP007 - evaluated when imported, on 3.10 too
    PrepareEnvironment, StartForkServer, PreloadModules, ForkWorker, AttachWorker, StopWorker, KillWorker,
    StopForkServer, KillForkServer, NoteFinding, TellWaits, RecallLease, RefuseLease, TellLost,
]  # fmt: skip
