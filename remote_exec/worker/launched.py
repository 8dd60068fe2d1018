"""One rank of a call that a launcher, or a worker, has started: `launch` laid the folder that this process finds."""

from __future__ import annotations

import io
import json
import os
import sys
import types
from collections.abc import Mapping
from typing import Any, cast

from ..model.errors import RuntimeEnvironmentError
from ..model.group import Group
from ..serial import directories, failures, failures_json, pickling
from . import context, facade, groups, metrics, progress
from .launch import ARGUMENTS, EVENTS, FAILURE, FUNCTION, PLAN, STREAMS, TREES, VALUE
from .trees import WorkerSide

PIPE_BYTES = 4096  # what goes into a pipe that others write to as well, in one piece
# how launchers tell a process its place: rank, local rank, world size, local world size
TOLD_BY = {
    "worker": ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
    "torchrun": ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
    "mpirun": (
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
}


def main(folder: str) -> None:
    """Run the function as the rank that the launcher says this process is; leave the outcome in the folder."""
    with open(os.path.join(folder, PLAN), encoding="utf-8") as file:
        plan: dict[str, Any] = json.load(file)
    group = _place(os.environ, plan)
    local = group.rank - plan["first_rank"]
    events = os.open(os.path.join(folder, EVENTS), os.O_WRONLY)
    os.write(events, _line({"rank": local, "pid": os.getpid()}))
    for fd, stream in enumerate(STREAMS, 1):
        pipe = os.open(os.path.join(folder, f"{local}.{stream}"), os.O_WRONLY)
        os.dup2(pipe, fd)
        os.close(pipe)
    _settle(plan, group)
    if not group.rank:
        progress.set_sink(lambda bar: _tell(events, {"progress": bar}))
    thinning = metrics.Thinning(lambda rows: _tell_metrics(events, rows))
    metrics.set_sink(lambda rows: thinning.add(context.of_rank(rows)))
    wanted = plan["all_ranks"] or not group.rank
    try:
        kind, data = VALUE, pickling.dump_bytes(_call(folder, wanted=wanted))
        _leave(folder, f"{local}.{TREES}", "\n".join(directories.noted.take()).encode())
    except BaseException as error:
        _note(error, group)
        failure = failures.capture(error, dumps=pickling.dump_bytes)
        kind, data = FAILURE, failures_json.to_json(failure).encode()
    thinning.finish()
    _leave(folder, f"{local}.{kind}", data)
    groups.leave_process_group(sound=kind == VALUE)
    sys.exit(0 if kind == VALUE else 1)


def _leave(folder: str, name: str, data: bytes) -> None:
    path = os.path.join(folder, name)
    with open(f"{path}.part", "wb") as left:
        left.write(data)
    os.rename(f"{path}.part", path)


def _call(folder: str, *, wanted: bool) -> Any:
    function = pickling.load(_content(folder, FUNCTION))
    args, kwargs = pickling.load(_content(folder, ARGUMENTS))
    value: Any = function(*args, **kwargs)
    if isinstance(value, types.CoroutineType):
        import asyncio

        value = asyncio.run(cast("Any", value))
    return value if wanted else None


def _settle(plan: dict[str, Any], group: Group) -> None:
    """Make this process what a worker is to a function: its path, its streams, its `import remote_exec`."""
    sys.path[:] = plan["path"]
    sys.argv = [""]
    for name, fd in (("stdout", 1), ("stderr", 2)):
        raw = io.BufferedWriter(io.FileIO(fd, "w", closefd=False))
        stream = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.modules["__main__"] = types.ModuleType("__main__")
    facade.install()
    directories.install(lambda: WorkerSide(plan["jobs_folder"], durable=False))
    context.set_launched(context.CurrentJob(name=plan["name"], function=plan["function"], group=group))
    context.set_log_levels(plan["log_levels"])
    os.environ.update(group.variables)


def _place(variables: Mapping[str, str], plan: dict[str, Any]) -> Group:
    try:
        rank, local_rank, size, local_size = (int(variables[name]) for name in TOLD_BY[plan["launcher"]])
    except KeyError as error:
        text = f"{plan['launcher']} has not set {error} in the process that it started"
        raise RuntimeEnvironmentError(text, hint="mpirun must be Open MPI's") from None
    return Group(
        rank=rank,
        local_rank=local_rank,
        node_rank=plan["node_rank"] + (rank - plan["first_rank"]) // local_size,
        world_size=size,
        local_world_size=local_size,
        address=plan["address"],
        port=int(variables["MASTER_PORT"]),
    )


def _note(error: BaseException, group: Group) -> None:
    # as add_note, which 3.10 has not
    error.__notes__ = [*getattr(error, "__notes__", ()), f"raised by rank {group.rank} of {group.world_size}"]


def _content(folder: str, name: str) -> bytearray:
    with open(os.path.join(folder, name), "rb") as file:
        return bytearray(file.read())


def _line(event: dict[str, Any]) -> bytes:
    return json.dumps(event).encode() + b"\n"


def _tell_metrics(pipe: int, rows: list[metrics.Row]) -> None:
    """Tell of points in lines that the pipe takes in one piece."""
    if len(rows) > 1 and len(_line({"metrics": rows})) > PIPE_BYTES:
        middle = len(rows) // 2
        _tell_metrics(pipe, rows[:middle])
        _tell_metrics(pipe, rows[middle:])
    else:
        _tell(pipe, {"metrics": rows})


def _tell(pipe: int, event: dict[str, Any]) -> None:
    line = _line(event)
    if len(line) <= PIPE_BYTES:
        os.write(pipe, line)
