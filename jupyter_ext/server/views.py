"""What agents tell, as the panel is told it. Pure, and no pickle is loaded here."""

from __future__ import annotations

import contextlib
import io
import math
import pickle
import pickletools
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from remote_exec.client.notebook import NOTEBOOK
from remote_exec.config import Config
from remote_exec.model.cost import bill_of
from remote_exec.model.failure import Failure as KeptFailure
from remote_exec.model.failure import Frame as KeptFrame
from remote_exec.model.pool import Shape
from remote_exec.options import Options
from remote_exec.serial import failures
from remote_exec.session.cell_text import CELL

from .messages import (
    UNFINISHED,
    Attempt,
    Bar,
    Bill,
    Death,
    Environment,
    Failure,
    Frame,
    Gpu,
    GpuUse,
    InstanceType,
    InstanceTypes,
    Job,
    JobDetail,
    LogRecord,
    Phase,
    Pool,
    Price,
    Result,
    Worker,
)

Row = Mapping[str, Any]

NO_RERUN = "it is a call that its caller waits for; durable jobs can be run again"
NO_RERUN_OF_CELL = "it is a cell: run it again in its notebook"
MOST_PREVIEW_BYTES = 64 << 10
MOST_PREVIEW = 4_000
_STREAMS = ("out", "err", "log", "gap")

# --- jobs -------------------------------------------------------------------------------------------------------


def key_of(host: str, name: str) -> str:
    """Return what tells a job from all others on all hosts."""
    return f"{host}/{name}"


def job_of(host: str, row: Row) -> Job:
    """Return a job as lists show it."""
    return Job(
        key=key_of(host, row["name"]),
        host=host,
        name=row["name"],
        kind=row["kind"],
        function=row["function"],
        state=row["state"],
        cause=row["cause"],
        summary=row["summary"].removesuffix(": "),
        created_at=row["created_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        instance_type=row["instance_type"],
        attempts=row["attempts"],
        count=row["count"],
        failed=row["failed"],
        tags=dict(row["tags"]),
        notebook=notebook_of(row),
        progress=bars_of(row.get("progress") or ()),
        bill=_bill(row),
    )


def _bill(row: Row) -> Bill | None:
    bill = bill_of(row)
    if bill is None:
        return None
    return Bill(bill.price.per_hour, bill.price.currency, bill.seconds, bill.since)


def notebook_of(row: Row) -> str:
    """Return the notebook that a job is of; empty where that is not recorded."""
    return next((value for key, value in row["tags"] if key == NOTEBOOK), "")


def bars_of(bars: Sequence[Row]) -> list[Bar]:
    """Return progress bars."""
    return [
        Bar(str(bar["desc"]), _finite(bar["done"]) or 0.0, _finite(bar["total"]), _finite(bar["rate"]))
        for bar in bars
    ]


def _finite(number: Any) -> float | None:
    """Return a number that JSON has; None for all else, and for zero."""
    known = isinstance(number, (int, float)) and math.isfinite(number) and number
    return float(number) if known else None


def detail_of(host: str, told: Row, result: Result | None, failure: KeptFailure | None) -> JobDetail:
    """Return all of one job.

    Args:
        host: where it is.
        told: the agent's answer to "job".
        result: what it returned, if it did.
        failure: what it raised, if it did.
    """
    row, spec = told["job"], told["spec"]
    about: Row = told.get("about") or {}  # of a call
    unfinished = row["state"] in UNFINISHED
    can = row["kind"] == "job" and bool(spec)
    return JobDetail(
        job=job_of(host, {**row, "progress": told["progress"] if unfinished else ()}),
        why=told["why"] if row["state"] == "queued" else "",
        attempts=[_attempt(attempt) for attempt in told["attempts"]],
        environment=_environment(spec.get("pool", {}).get("environment") or about.get("environment", {})),
        gpus=[
            GpuUse(g["uuid"], g["percent"], g["memory_used_bytes"], g["peak_memory_bytes"])
            for g in told["gpus"]
        ],
        code=str(spec.get("code") or about.get("code", "")),
        result=_result(result, about.get("result") or {}),
        failure=failure_of(failure) if failure is not None else None,
        traceback=failures.format(failure) if failure is not None else "",
        can_rerun=can,
        why_not_rerun="" if can else NO_RERUN_OF_CELL if _is_cell(row) else NO_RERUN,
    )


def _attempt(attempt: Row) -> Attempt:
    death = attempt["certificate"]
    return Attempt(
        number=attempt["number"],
        state=attempt["state"],
        cause=attempt["cause"],
        worker_pid=attempt["worker_pid"],
        started_at=attempt["started_at"],
        ended_at=attempt["ended_at"],
        phases=[Phase(phase["name"], phase["seconds"], phase["detail"]) for phase in attempt["phases"]],
        death=None
        if death is None
        else Death(
            message=death["message"],
            pid=death["pid"],
            signal=death["signal"],
            exit_code=death["exit_code"],
            peak_memory=death["peak_memory"],
            peak_gpu_memory=death["peak_gpu_memory"],
            oom_evidence=death["oom_evidence"],
            last_lines=list(death["last_lines"]),
        ),
    )


def _is_cell(row: Row) -> bool:
    """Whether a row is of a cell that its notebook waits for, or did; not of one that is a job of its own."""
    return row["function"].startswith("[") and any(key == CELL for key, _ in row["tags"])


def _result(kept: Result | None, told: Row) -> Result | None:
    """Return what is known of a value: what is kept of it, and what the job or call itself has told."""
    if not told:
        return kept
    size = kept.size_bytes if kept is not None else 0
    return Result(size, str(told.get("type", "")), str(told.get("text", "")))


def _environment(found: Row) -> Environment:
    return Environment(
        kind=found.get("kind", ""),
        python=found.get("python", ""),
        requirements=list(found.get("requirements") or ()),
    )


def failure_of(failure: KeptFailure) -> Failure:
    """Return an exception with its chain."""
    return Failure(
        type=f"{failure.module}.{failure.qualname}",
        message=failure.message,
        notes=list(failure.notes),
        frames=[_frame(frame) for frame in failure.frames],
        cause=failure_of(failure.cause) if failure.cause is not None else None,
        context=failure_of(failure.context) if failure.context is not None else None,
        members=[failure_of(member) for member in failure.members],
    )


def _frame(frame: KeptFrame) -> Frame:
    return Frame(
        filename=frame.filename,
        lineno=frame.lineno,
        name=frame.name,
        line=frame.line,
        source=frame.source,
        source_start=frame.source_start,
        locals=dict(frame.locals) if frame.locals is not None else None,
    )


def records_of(rows: Sequence[Sequence[Any]]) -> list[LogRecord]:
    """Return output as it came; what has no text is left out."""
    return [LogRecord(when, stream, text) for when, stream, text, _ in rows if text and stream in _STREAMS]


# --- results ----------------------------------------------------------------------------------------------------


class _PlainOnly(pickle.Unpickler):
    """Loads numbers, texts and containers of them; no code of anybody's runs."""

    def find_class(self, module_name: str, global_name: str, /) -> NoReturn:
        raise pickle.UnpicklingError(f"{module_name}.{global_name} is not plain data")

    def persistent_load(self, pid: Any, /) -> NoReturn:
        raise pickle.UnpicklingError("a reference is not plain data")


_repr = reprlib.Repr()
_repr.maxlevel, _repr.maxstring, _repr.maxother = 4, 1000, 200
_repr.maxlist = _repr.maxtuple = _repr.maxdict = _repr.maxset = _repr.maxfrozenset = _repr.maxdeque = 50


def preview_of(pickled: bytes, size_bytes: int) -> Result:
    """Return what can be told of a pickled value without loading it.

    Args:
        pickled: the value; empty where it is too long to be looked at.
        size_bytes: its length.
    """
    if not pickled or len(pickled) > MOST_PREVIEW_BYTES:
        return Result(size_bytes, "", "")
    try:
        value = _PlainOnly(io.BytesIO(pickled)).load()
    except Exception:  # whatever it is, it is no plain data
        return Result(size_bytes, _type_named_in(pickled), "")
    return Result(size_bytes, f"builtins.{type(value).__name__}", _repr.repr(value)[:MOST_PREVIEW])


def _type_named_in(pickled: bytes) -> str:
    """Return the first public name that a pickle asks for: the class of its value, as a rule."""
    words: list[str] = []
    with contextlib.suppress(Exception):
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name == "GLOBAL":
                module, _, name = str(argument).partition(" ")
            elif opcode.name == "STACK_GLOBAL" and len(words) > 1:
                module, name = words[-2:]
            else:
                if isinstance(argument, str):
                    words.append(argument)
                continue
            if not name.startswith("_") and not module.startswith(("remote_exec", "cloudpickle")):
                return f"{module}.{name}"
    return ""


# --- hosts ------------------------------------------------------------------------------------------------------


def pool_of(pool: Row, cpu_percents: Mapping[int, float], memory_bytes: Mapping[int, int]) -> Pool:
    """Return one pool.

    Args:
        pool: as the agent's answer to "host" has it.
        cpu_percents: of its workers, by process.
        memory_bytes: of its workers, by process.
    """
    shape = pool["shape"]
    return Pool(
        key=pool["key"],
        asked_by=list(pool.get("asked_by", ())),
        instance_type=pool.get("instance_type", ""),
        python_version=pool.get("python_version", ""),
        environment=pool["environment"],
        python=pool["python"],
        keep_alive_seconds=pool["keep_alive_seconds"],
        max_workers=pool["max_workers"],
        queued=pool["queued"],
        cpus=shape["cpus"],
        memory_bytes=shape["memory_bytes"],
        gpus=shape["gpus"],
        gpu_type=shape["gpu_type"],
        note=pool["note"],
        workers=[
            Worker(
                id=worker["id"],
                pid=worker["pid"],
                state=worker["state"],
                reuses=worker["reuses"],
                idle_seconds=worker["idle_seconds"],
                keep_alive_left=_left(worker),
                cpu_percent=cpu_percents.get(worker["pid"]),
                memory_bytes=memory_bytes.get(worker["pid"]),
                gpus=list(worker["gpus"]),
                price=Price(**worker["price"]) if worker.get("price") else None,
            )
            for worker in pool["workers"]
        ],
    )


def _left(worker: Row) -> float | None:
    if worker["state"] != "Available":
        return None
    return max(0.0, float(worker.get("keep_alive_seconds", 0.0)) - float(worker["idle_seconds"]))


def gpu_of(gpu: Row) -> Gpu:
    """Return one GPU."""
    held = [one["call"] or f"pool {one['pool']}" for one in gpu["held_by"]]
    return Gpu(
        uuid=gpu["uuid"],
        name=gpu["name"],
        percent=gpu["percent"],
        memory_used_bytes=gpu["memory_used_bytes"],
        memory_total_bytes=gpu["memory_total_bytes"],
        held_by=[*held, *gpu["held_by_others"]],
    )


# --- configuration ----------------------------------------------------------------------------------------------


def instance_types_of(config: Config) -> InstanceTypes:
    """Return what may be asked for, and what is used where nothing is."""
    asked = config.resolve(Options()).instance_type
    default = asked if isinstance(asked, str) else next(iter(asked or ()), "local")
    found = [
        InstanceType(name, instance.backend, _shape(instance.shape), instance.source)
        for name, instance in config.instances.items()
    ]
    if "local" not in config.instances:
        found.insert(0, InstanceType("local", "local", "", "built in"))
    return InstanceTypes(found, default or "local")


def _shape(shape: Shape) -> str:
    parts = (
        f"{shape.cpus:g} cpus" if shape.cpus else "",
        f"{shape.memory_bytes / 1e9:.3g} GB" if shape.memory_bytes else "",
        f"{shape.gpus:g} gpus {shape.gpu_type}".rstrip() if shape.gpus else "",
    )
    return ", ".join(filter(None, parts))
