"""Every message of the control streams, by who sends it to whom."""

from __future__ import annotations

from dataclasses import field
from typing import Any, ClassVar

from ..model.bundle import Bundle
from ..model.cost import Instance
from ..model.job import AttemptRecord, DeathCertificate, JobRecord, Phase
from ..model.pool import GpuUse, PoolInfo, PoolSpec
from .messages import message

PROTOCOL = 1
LOOKER = "0"  # the version that those say who only look: older than any, so that no agent gives way to it

# --- client to agent ----------------------------------------------------------------------------------------


@message
class Hello:
    """First message of a client. Versions must understand each other's, so unknown fields are passed over."""

    LENIENT: ClassVar[bool] = True

    protocol: int
    version: str
    runtime: str  # digest of the carried runtime
    python: str
    pid: int
    # the agent's, as the client's configuration has them
    settings: dict[str, Any] = field(default_factory=lambda: dict[str, Any]())
    interpreter: str = ""  # where its Python lies, on its own machine


@message
class RequestLease:
    """Ask for a worker. Two descriptors come along: the worker's ends of the call stream and of its fd socket.

    The client may write its first frames before it is answered: they wait in the socket. A refused lease ends in
    a `LeaseRefused` and the end of the call stream.
    """

    lease: str  # chosen by the client, time-ordered, unique
    pool: PoolSpec
    bundle: str  # digest, or "" for none
    import_roots: tuple[str, ...]  # folders of the bundle that go onto sys.path
    preload: tuple[str, ...]  # third-party modules that the function imports
    keep_alive_seconds: float
    max_workers: int
    uv: str = ""  # where the client's uv lies, on its own machine
    streams: int = 2  # descriptors that come along: call stream, and fd socket where arenas can be used
    log_limit_bytes: int = 0  # how much of its output is kept; 0: the agent's own limit
    group: str = ""  # leases of one group are granted together or not at all, ...
    group_size: int = 1  # ... once so many of them have been asked for
    # the call stream is a connection of its own, and may be broken off for so long; 0: its descriptors come along
    linger_seconds: float = 0.0
    instance: Instance = Instance()  # as what the client's configuration has the worker
    asked_by: str = ""  # what its first call is of, for lists of pools


@message
class CancelCall:
    """Stop one call of a lease: interrupt, then terminate, then kill."""

    lease: str
    call: int


@message
class WithdrawCalls:
    """Do not begin the calls of a lease up to this number that have not begun; its client hears which these are."""

    lease: str
    upto: int


@message
class Request:
    """A question, answered by `Reply` with the same id. `what` names it, `arguments` is JSON."""

    id: int
    what: str
    arguments: dict[str, Any]


@message
class OfferBundle:
    """Ask which blobs of a bundle the host lacks; answered by `Reply` with ``missing``."""

    id: int
    bundle: Bundle


@message
class PutBlob:
    """A piece of a blob, in the body; `last` commits it. Answered by `Reply` when last."""

    id: int
    digest: str
    last: bool
    packed: bool = False  # the body is compressed: see `frames.expanded`


# --- either way ---------------------------------------------------------------------------------------------


@message
class Goodbye:
    """A control stream from afar ends in good order: one that only breaks off may go on."""


@message
class Position:
    """So many bytes of a control stream have been received, see `resume`."""

    received: int
    answer: bool = False  # say the same of the other direction: it is to be known whether anybody is there


# --- agent to client ----------------------------------------------------------------------------------------


@message
class Welcome:
    """Answer to `Hello`. `accepted` false: the agent gives way to the newer client, who starts another."""

    LENIENT: ClassVar[bool] = True

    protocol: int
    version: str
    runtime: str
    pid: int
    accepted: bool
    python: str = ""  # of the agent, as "3.11": a host has this one at least
    cpus: float = 1.0  # that the host has for its workers


@message
class LeaseGranted:
    """The call stream is a worker's now."""

    lease: str
    worker: int
    pid: int
    phases: tuple[Phase, ...]
    warm: bool


@message
class LeaseWaits:
    """Why a lease is not granted yet, in words; sent when it changes."""

    lease: str
    phase: str  # queue, environment, start
    why: str


@message
class LeaseRecalled:
    """Others wait for workers: give this one back when it has nothing in flight."""

    lease: str


@message
class LeaseRefused:
    """There will be no worker: the name of an error class of ours, and its words."""

    lease: str
    error: str
    text: str
    output: str = ""
    hint: str = ""


@message
class WorkerLost:
    """The worker of a lease died; calls numbered above `begun` were not begun."""

    lease: str
    begun: int
    item: int
    certificate: DeathCertificate
    rest: tuple[str, str] = ("", "")  # what it printed last: stdout and stderr, as `output.to_text` has it


@message
class Reply:
    """Answer to a request; `error` is empty when it was carried out."""

    id: int
    value: Any = None
    error: str = ""
    text: str = ""
    more: bool = False


# --- agent to fork server -----------------------------------------------------------------------------------


@message
class Preload:
    """Import these modules, so that workers are forked with them; each in so many seconds, 0: as it takes."""

    modules: tuple[str, ...]
    seconds: float = 0.0


@message
class Fork:
    """Fork a worker. Descriptors come along: the worker's end of its control stream, then its locks of devices."""

    worker: int
    variables: dict[str, str]
    fresh: bool = False  # by a new interpreter, where a fork of this one is not sound
    devices: int = 0  # how many locks


@message
class Adopt:
    """Hand a worker that is there already to this agent. One descriptor comes along, as with `Fork`."""

    worker: int


@message
class Signal:
    """Send a signal to a worker's whole session."""

    worker: int
    signal: int


@message
class StopForkServer:
    """End all workers, and end."""


# --- fork server to agent -----------------------------------------------------------------------------------


@message
class ForkServerReady:
    """First message; repeated to each agent that adopts the fork server."""

    pid: int
    python: str
    workers: tuple[tuple[int, int], ...]  # worker id, pid
    exited: tuple[WorkerExited, ...] = ()  # of late; a former agent may not have heard of them


@message
class ImportStarted:
    """A module of a `Preload` is being imported now."""

    module: str


@message
class Preloaded:
    """What became of a `Preload`: modules that could not be imported, with the reason."""

    failed: dict[str, str]
    seconds: float
    threads: int
    hung: tuple[str, ...] = ()  # modules that were given up
    started: tuple[str, ...] = ()  # the threads of Python's that the imports have left, in words


@message
class Forked:
    """A worker has been forked."""

    worker: int
    pid: int


@message
class WorkerExited:
    """A worker has been reaped."""

    worker: int
    pid: int
    signal: int | None
    exit_code: int | None
    peak_memory: int
    last_lines: tuple[str, ...]
    # what it printed and nobody had taken in: stdout and stderr, as `output.to_text` has it
    rest: tuple[str, str]
    lease: str  # for which all that follows holds
    begun: int
    item: int
    running: bool  # the call that was begun last had not been answered
    function: str
    started_at: float
    about: str = ""  # JSON: what is told of that call, see `About.noted`


# --- agent to worker ----------------------------------------------------------------------------------------


@message
class Attach:
    """Serve this lease. Its descriptors come along, as in `RequestLease`."""

    lease: str
    bundle_path: str
    import_roots: tuple[str, ...]
    jobs_folder: str
    log_limit_bytes: int
    streams: int
    job: str = ""  # the agent itself is the client, on behalf of this job
    phases: tuple[Phase, ...] = ()  # what the lease has waited for: a part of its first call's way
    linger_seconds: float = 0.0  # how long the stream may be broken off; connections come by `StreamArrived`
    instance: Instance = Instance()


@message
class StreamArrived:
    """A connection that carries a lease's call stream on comes along. The client has so many bytes of the stream."""

    lease: str
    received: int
    answer: bool  # it waits to be told how much has come here


@message
class StreamLost:
    """The client of a lease will not come back, or not soon."""

    lease: str
    idle: bool = False  # it matters only if its connection is broken here, too, and nothing runs


@message
class Interrupt:
    """Interrupt a call of the lease, running or not begun."""

    lease: str
    call: int
    reason: str = "cancelled"


@message
class GpusSeen:
    """How busy the worker's GPUs are, for the log."""

    gpus: tuple[GpuUse, ...]


@message
class DumpStack:
    """Tell what the worker is doing now; answered by `Stack`."""

    id: int


@message
class StopWorker:
    """End in good order."""


# --- worker to agent ----------------------------------------------------------------------------------------


@message
class WorkerReady:
    """First message of a worker, to each agent that adopts it."""

    worker: int
    pid: int
    lease: str = ""


@message
class LeaseEnded:
    """The client said goodbye, or is gone and nothing of it runs any longer: the worker is free."""

    lease: str


@message
class CallRunning:
    """A call has been running for a while; sent once for each, so that it is listed."""

    lease: str
    call: int
    name: str
    function: str
    started_at: float
    phases: tuple[Phase, ...] = ()  # before it
    instance: Instance = Instance()
    tags: tuple[tuple[str, str], ...] = ()
    about: str = ""  # JSON: what whoever looks at it is told, see `About.told`


@message
class CallsEnded:
    """Calls that have ended since the last such message, the short and silent ones summed up."""

    records: tuple[JobRecord, ...]
    attempts: tuple[AttemptRecord, ...] = ()  # of those that were long on their way
    failures: dict[str, str] = field(default_factory=lambda: dict[str, str]())  # JSON, by the record's name
    summed: tuple[str, ...] = ()  # names that were listed, of calls that have no record but their array's
    abouts: tuple[tuple[str, tuple[str, ...]], ...] = ()  # what is told of records, as JSON, with their names


@message
class CallOrphaned:
    """The client is gone while this call runs or waits: from now on it is a job."""

    lease: str
    call: int
    name: str
    function: str
    started_at: float
    phases: tuple[Phase, ...] = ()
    instance: Instance = Instance()
    tags: tuple[tuple[str, str], ...] = ()
    about: str = ""


@message
class OrphanEnded:
    """The outcome of an orphaned call; the body is the pickled value, or the failure's JSON."""

    lease: str
    record: JobRecord
    ok: bool
    attempt: AttemptRecord | None = None
    blob: str = ""  # where the pickled value lies instead
    about: str = ""


@message
class CallStopped:
    """An interrupted call has ended."""

    lease: str
    call: int


@message
class Stack:
    """Answer to `DumpStack`."""

    id: int
    text: str


# --- asked through Request, told in Reply -------------------------------------------------------------------


@message
class HostInfo:
    """What an agent tells of its host."""

    pid: int
    version: str
    runtime: str
    started_at: float
    cpus: float
    memory_bytes: int
    gpus: tuple[str, ...]
    home: str
    clients: int
    pools: tuple[PoolInfo, ...]
