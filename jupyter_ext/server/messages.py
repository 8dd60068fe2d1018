"""What the panel and the server tell each other: JSON, field by field as the classes here.

All paths are below ``<base_url>jupyter_ext/``. Times are UTC, seconds since the epoch; lengths of time are seconds;
sizes are bytes; null is "not known" or "not yet". Names, log texts and messages are data: never to be taken for HTML.

====================================  ===========================================================================
HTTP                                  answer (an error: `Problem`, with its HTTP status)
====================================  ===========================================================================
GET jobs?PARAMETERS                   `Jobs`; the parameters are those of `LookAtJobs`, `states` separated by commas
GET jobs/NAME?host=H                  `JobDetail`; without `host` the job is looked for
GET jobs/NAME/logs?host=H&from=O      `LogPiece` from the offset `O` on; without `from` from the beginning
GET jobs/NAME/logs?host=H&download=1  text/plain, an attachment: all that is kept
POST jobs/NAME/cancel?host=H          `Cancelled`
POST cancel-all                       `CancelledAll`: all that run or wait, on all hosts that are connected
POST jobs/NAME/rerun?host=H           201 `Rerun`; 409 where the journal has not got what is needed
POST jobs/NAME/shell?host=H           201 `Shell`: a terminal of Jupyter's in its process; 409 where that cannot be
GET hosts                             `Hosts`
POST pools/KEY/keep?host=H            body ``{"seconds": 3600}``: its workers stay warm so long from now; `Pool`
POST pools/KEY/release?host=H         its idle workers end; `Released`
GET instance-types?path=P             `InstanceTypes`; `path` is a notebook's, as the contents API has it
GET status                            `Status`
websocket changes                     what is looked at, as it changes: see below
====================================  ===========================================================================

NAME, KEY and H are percent-encoded (`encodeURIComponent`). POST needs the XSRF header, as `ServerConnection` sends it.

One websocket for each page. The client says what it looks at, under numbers of its own (`id`); saying another thing
under the same number (another window, another filter) puts the former in its place:

======================================================================  =========================================
from the client                                                         answered by
======================================================================  =========================================
``{"type": "look", "id": 1, "at": "jobs", ...LookAtJobs}``              snapshot: `Jobs`; changes: `JobChanges`
``{"type": "look", "id": 2, "at": "job", "host": H, "name": N}``        snapshot: `JobDetail`; never changes:
                                                                        another snapshot
``{"type": "look", "id": 3, "at": "logs", "host": H, "name": N,         snapshot: `LogPiece` from there on; changes:
"from": O}``                                                            `LogPiece` that follow; after one with
                                                                        ``end`` none comes
``{"type": "look", "id": 6, "at": "metrics", "host": H, "name": N}``    snapshot: `Metrics`; changes: `Metrics` with the
                                                                        series that have changed; after one with
                                                                        ``end`` none comes
``{"type": "look", "id": 4, "at": "hosts"}``                            snapshot: `Hosts`, each time
``{"type": "look", "id": 5, "at": "status"}``                           snapshot: `Status`, each time; `ended` names
                                                                        the jobs that ended since the last one
``{"type": "leave", "id": 1}``                                          nothing
======================================================================  =========================================

======================================================================  =========================================
from the server (`Sent`)                                                meaning
======================================================================  =========================================
``{"type": "snapshot", "id", "at", "sequence", "value"}``               forget what was there: this is all of it
``{"type": "changes", "id", "at", "sequence", "value"}``                goes on from the frame with ``sequence - 1``
``{"type": "problem", "id", "at", "sequence", "problem"}``              it cannot be told now; a snapshot comes when
                                                                        it can, except after status 400 and 404
======================================================================  =========================================

`sequence` counts the frames of one look, from 1; it begins anew with each look. A client that misses one looks again.
At most five frames a second come for one look, and the server keeps no queue: a slow client gets fewer frames, each
with all that has changed since the last; when much has, a snapshot. After a reconnection the client says again what it
looks at (logs: from the offset that it has).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
AgentState = Literal["running", "none", "unreachable"]
At = Literal["jobs", "job", "logs", "metrics", "hosts", "status"]

UNFINISHED: tuple[State, ...] = ("queued", "running")

MOST_JOBS = 200
"""How many jobs one page or window can hold."""
FRAME_SECONDS = 0.2
"""How much time passes at least between two frames of one look."""


# --- jobs -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bar:
    """One progress bar; `total` is null where it has no known end."""

    desc: str
    done: float
    total: float | None
    rate: float | None  # a second


@dataclass(frozen=True)
class Price:
    """What a worker costs."""

    per_hour: float
    currency: str  # ""


@dataclass(frozen=True)
class Bill(Price):
    """For how long a job has held workers that have a price."""

    seconds: float  # in attempts that have ended
    since: float | None  # since when it holds the worker that it has now


@dataclass(frozen=True)
class Job:
    """One job or call, as lists show it."""

    key: str  # unique over all hosts
    host: str  # "local", or the name of another host
    name: str  # unique on its host
    kind: Literal["job", "call", "array"]  # durable; a call that its caller waits for; many calls in one row
    function: str
    state: State
    cause: str  # why it ended: "none", "user_error", "cancelled", "out_of_memory", "host_lost"...
    summary: str  # one line: the exception's type and message, or empty
    created_at: float
    started_at: float | None
    ended_at: float | None
    instance_type: str
    attempts: int
    count: int  # how many calls an array has; 1
    failed: int  # how many of them failed
    tags: dict[str, str]
    notebook: str  # that it is of, where that is recorded; ""; the tag "cell" has a cell's number
    progress: list[Bar]  # while it runs, the outermost first
    bill: Bill | None  # where its instance type had a price


@dataclass(frozen=True)
class Group:
    """Neighbours in a grouped list."""

    name: str  # of the host or notebook; "" where there is none
    first: int  # index of its first job in the whole list
    count: int


@dataclass(frozen=True)
class Jobs:
    """A window of the list of jobs, newest first (within each group, if there are groups)."""

    jobs: list[Job]
    first: int  # index of the window's first job in the whole list
    total: int  # length of the whole list: of the jobs that the filter lets through
    groups: list[Group]  # empty unless it is grouped
    counts: dict[State, int]  # of all jobs, whatever the filter; each state is there
    agent: AgentState  # this machine's; without one, it is what is kept on the disk
    hosts: list[str]  # which ones jobs are listed of
    more: bool  # there are older ones, which are not listed


@dataclass(frozen=True)
class JobChanges:
    """What is otherwise in a window of the list."""

    order: list[str] | None  # keys of the jobs in the window, where that has changed
    changed: list[Job]  # those that are new in the window or otherwise
    first: int
    total: int
    groups: list[Group]
    counts: dict[State, int]
    agent: AgentState
    hosts: list[str]
    more: bool


@dataclass(frozen=True)
class Phase:
    """One named span on the way of an attempt, before its function ran."""

    name: str
    seconds: float
    detail: str


@dataclass(frozen=True)
class Death:
    """How the worker of an attempt died."""

    message: str
    pid: int
    signal: int | None
    exit_code: int | None
    peak_memory: int  # 0: not known
    peak_gpu_memory: int
    oom_evidence: str
    last_lines: list[str]


@dataclass(frozen=True)
class Attempt:
    """One try at running a job."""

    number: int
    state: State
    cause: str
    worker_pid: int
    started_at: float | None
    ended_at: float | None
    phases: list[Phase]
    death: Death | None


@dataclass(frozen=True)
class Environment:
    """What a job runs in."""

    kind: str  # "uv", "here", "image"...; "" where it is not recorded
    python: str
    requirements: list[str]


@dataclass(frozen=True)
class GpuUse:
    """What a job uses of one GPU."""

    uuid: str
    percent: int
    memory_used_bytes: int
    peak_memory_bytes: int


@dataclass(frozen=True)
class Result:
    """What is told of a value without loading it."""

    size_bytes: int  # 0: it is not kept
    type: str  # "builtins.dict", "numpy.ndarray"; "" where that cannot be told
    text: str  # its repr where it is plain data (numbers, strings, lists...) and short; ""


@dataclass(frozen=True)
class Frame:
    """One frame of a traceback."""

    filename: str
    lineno: int
    name: str
    line: str
    source: str  # the lines around, from line `source_start` on; ""
    source_start: int
    locals: dict[str, str] | None  # name -> repr; null: not kept


@dataclass(frozen=True)
class Failure:
    """An exception with its chain."""

    type: str  # "builtins.ValueError"
    message: str
    notes: list[str]
    frames: list[Frame]  # outermost first
    cause: Failure | None  # raise ... from cause
    context: Failure | None  # it was raised while handling this; null where it is the cause
    members: list[Failure]  # of an exception group


@dataclass(frozen=True)
class JobDetail:
    """All of one job."""

    job: Job
    why: str  # what it waits for; ""
    attempts: list[Attempt]
    environment: Environment
    gpus: list[GpuUse]
    code: str  # source of what ran, where it is recorded; ""
    result: Result | None  # once it has succeeded, where that is kept
    failure: Failure | None  # once it has failed, where that is kept
    traceback: str  # the failure as Python prints it; ""
    can_rerun: bool
    why_not_rerun: str  # one sentence; "" where it can


@dataclass(frozen=True)
class LogRecord:
    """One piece of output; not a line: text may begin and end anywhere, and has ANSI escapes and carriage returns."""

    time: float
    stream: Literal[
        "out", "err", "log", "gap"
    ]  # "log": of `logging`; "gap" says in its text how much is left out
    text: str


@dataclass(frozen=True)
class LogPiece:
    """Part of a log."""

    records: list[LogRecord]
    next: str  # offset to go on from; an opaque text
    end: bool  # the job has ended and this was the last


Sample = tuple[float, int | None, float | None, float | None, float | None, str]
"""What a chart is drawn of: time, step, value, the least and the most, and "NaN", "Infinity" or "-Infinity".

It stands for one point or for several neighbours: time, step and value are the last one's. Value, least and most are of
those that are finite, null where none is; the text is the last of those that are not, empty where all are finite.
"""


@dataclass(frozen=True)
class MetricSeries:
    """One metric, or how it goes on."""

    name: str  # "loss", "system/memory_bytes", "loss (rank 1)"
    first: int  # index in the whole series: the samples from there on are forgotten, and these put in their place
    samples: list[Sample]  # a few hundred at most in the whole series, whatever was logged
    count: int  # of all points that they stand for
    odd: int  # how many of those are not finite
    last: float | str  # the newest value, or "NaN", "Infinity" or "-Infinity"


@dataclass(frozen=True)
class Metrics:
    """What a job has logged in numbers, and what it was seen to use."""

    series: list[MetricSeries]  # in the order in which they were logged first
    left_out: int  # how many more there are than are told
    end: bool  # the job has ended and this was the last


@dataclass(frozen=True)
class Cancelled:
    """Whether the job is being stopped; else it had ended before."""

    cancelled: bool


@dataclass(frozen=True)
class CancelledAll:
    """What became of it, host by host."""

    count: int  # how many are being stopped
    problems: list[str]  # why those of a host are not


@dataclass(frozen=True)
class Rerun:
    """The new job."""

    host: str
    name: str


@dataclass(frozen=True)
class Shell:
    """A shell where a job runs."""

    terminal: str  # the name of a terminal of Jupyter's


# --- hosts ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Worker:
    """One warm worker."""

    id: int
    pid: int
    state: str  # "InUse", "Available", "Starting"...
    reuses: int
    idle_seconds: float
    keep_alive_left: float | None  # until it ends unless it is used; null while it does not idle
    cpu_percent: float | None  # 100 is one core
    memory_bytes: int | None
    gpus: list[str]  # UUIDs
    price: Price | None  # where it was leased last at one


@dataclass(frozen=True)
class Pool:
    """Warm workers of one environment and shape."""

    key: str
    asked_by: list[str]  # functions and notebooks, the last ones first
    instance_type: str
    python_version: str
    environment: str  # its kind
    python: str
    keep_alive_seconds: float
    max_workers: int
    queued: int
    cpus: float  # what a worker is given; 0: not limited
    memory_bytes: int
    gpus: float
    gpu_type: str
    note: str
    workers: list[Worker]


@dataclass(frozen=True)
class Gpu:
    """One GPU of a host."""

    uuid: str
    name: str
    percent: int
    memory_used_bytes: int
    memory_total_bytes: int
    held_by: list[str]  # jobs or pools


@dataclass(frozen=True)
class Host:
    """This machine, or another that is known."""

    name: str  # "local", or its name
    state: Literal["connected", "not answering", "not connected", "no agent"]
    version: str  # of its agent
    pid: int  # of its agent; 0
    started_at: float | None  # its agent
    reached_at: float | None  # another host: when its agent was last heard
    cpus: float
    cpu_percent: float | None  # 100 is one core
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    gpus: list[Gpu]
    pools: list[Pool]


@dataclass(frozen=True)
class Hosts:
    """All hosts, this machine first."""

    hosts: list[Host]


@dataclass(frozen=True)
class Released:
    """Which pool's idle workers end."""

    pool: str


# --- all else ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InstanceType:
    """What a notebook or function may ask for."""

    name: str
    backend: str  # "local", "ssh", "docker"...
    shape: str  # "4 cpus, 16 GB, 1 gpus A100"; ""
    source: str  # where it is defined


@dataclass(frozen=True)
class InstanceTypes:
    """What the configuration that holds for a notebook has."""

    instance_types: list[InstanceType]
    default: str  # what is used where nothing is said


@dataclass(frozen=True)
class Status:
    """How things stand, for the status bar and for notifications."""

    agent: AgentState
    version: str  # of the agent
    message: str  # why it cannot be reached; ""
    hint: str
    queued: int
    running: int
    ended: list[Job] = field(default_factory=list["Job"])  # since the last frame (the newest 20)


@dataclass(frozen=True)
class Problem:
    """Why something could not be done."""

    message: str
    hint: str  # what the user can do next; ""
    status: int  # the HTTP status


# --- the websocket ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sent:
    """One message from the server."""

    type: Literal["snapshot", "changes", "problem"]
    id: int
    at: At
    sequence: int
    value: Any = None  # as the table above says
    problem: Problem | None = None
