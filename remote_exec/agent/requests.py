"""Answers to what clients ask: lists, results, logs, and the few actions that are not calls."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..model.errors import JobNotFound, RemoteExecError
from ..model.job import AttemptRecord, JobRecord, JobState, OutcomeKind
from ..wire import protocol
from ..wire.messages import to_plain
from ..worker.blobs import BlobMissing
from ..worker.joblog import LOG_NAME, LogReader
from ..worker.lease import SUMMED
from . import housekeeping, jobs, results, trees
from . import pool_events as events
from .journal import Cursor
from .uploads import error_of

if TYPE_CHECKING:
    from .leases import Client
    from .service import Agent

_log = logging.getLogger(__name__)

PIECE = 16 << 20
FOLLOW_SECONDS = 0.1
DEATH_SECONDS = 3.0
TOLD_SECONDS = 0.3
ATTEMPT_BYTES = 1 << 48  # an offset is in the log of attempt `offset // ATTEMPT_BYTES`

Send = Callable[..., None]  # value=..., body=..., more=...


class _Later(Exception):  # noqa: N818 - not an error
    """The answer comes by itself."""


def answer(
    agent: Agent, client: Client, request: protocol.Request, body: bytes, *, patient: bool = True
) -> None:
    """Answer one request, now or when its answer is there; `patient` about a call that may have ended just now."""

    def send(value: Any = None, *, body: bytes | memoryview = b"", more: bool = False) -> None:
        client.link.send(protocol.Reply(request.id, value, more=more), body)

    def fail(error: str, text: str) -> None:
        client.link.send(protocol.Reply(request.id, None, error, text))

    def submitted(error: str, text: str) -> None:
        fail(error, text) if error else send()

    ask = _ASK.get(request.what)
    if ask is None:
        fail("ProtocolError", f"this agent does not know the request {request.what!r}")
        return
    try:
        if request.what == "submit":
            trees.when_durable(
                agent,
                request.arguments.get("trees", ()),
                lambda: jobs.submit(agent, request.arguments, body, submitted),
            )
            return
        if request.what == "tree":
            trees.offer(agent, client, request.arguments, send, fail)
            return
        if request.what == "read_blob":
            trees.tell_blob(agent, request.arguments, send, fail)
            return
        if request.what == "rerun":
            from .reruns import rerun

            rerun(agent, request.arguments, submitted)
            return
        if request.what == "watch":
            from .watching import Watch

            Watch(agent, client, send)
            return
        if request.what == "remember":
            results.remember(agent, request.arguments, body, send)
            return
        send(ask(agent, request.arguments, send))
    except _Later:
        pass
    except JobNotFound as error:
        if patient and _may_come(agent, request.arguments.get("name", "")):
            agent.reactor.after(TOLD_SECONDS, lambda: answer(agent, client, request, body, patient=False))
        else:
            fail(type(error).__name__, error.message)
    except RemoteExecError as error:
        fail(type(error).__name__, error.message)
    except (KeyError, ValueError, TypeError) as error:
        fail("ProtocolError", f"{request.what}: {type(error).__name__}: {error}")
    except Exception as error:  # a full disk, no descriptor left, a mistake of ours
        _log.exception("the request %r could not be answered", request.what)
        told = error_of(error)
        fail(type(told).__name__, told.message)


def _host(agent: Agent, _: dict[str, Any], _send: Send) -> Any:
    return to_plain(
        protocol.HostInfo(
            pid=os.getpid(),
            version=agent.version,
            runtime=agent.digest,
            started_at=agent.started_at,
            cpus=agent.host.cpus,
            memory_bytes=agent.host.memory_bytes,
            gpus=tuple(gpu.name for gpu in agent.host.gpus),
            home=str(agent.layout.home),
            clients=len(agent.clients.connected),
            pools=agent.processes.priced(agent.pools.infos(time.monotonic())),
        )
    )


def _jobs(agent: Agent, arguments: dict[str, Any], _send: Send) -> Any:
    """A page of jobs, newest first; on the first page also calls that run and are not written down yet."""
    prefix, limit = arguments.get("prefix", ""), int(arguments.get("limit", 100))
    states = tuple(JobState(state) for state in arguments.get("states", ())) or tuple(JobState)
    before = Cursor(*arguments["before"]) if arguments.get("before") else None
    page = agent.journal.list(prefix=prefix, states=states, before=before, limit=limit)
    rows = [to_plain(record) for record in page.jobs]
    if before is None and JobState.RUNNING in states:
        # a job's own call is listed as the job
        known = {row["name"] for row in rows} | agent.jobs.keys()
        live = [
            r
            for r in agent.running.records.values()
            if r.name.startswith(prefix) and r.name not in known and agent.journal.get(r.name) is None
        ]
        rows = [to_plain(record) for record in sorted(live, key=lambda r: r.created_at, reverse=True)] + rows
    for row in rows:
        if row["state"] == "running":
            row["progress"] = _last("progress", agent, row["name"], row["attempts"]) or []
    return {"jobs": rows, "next": list(page.next) if page.next is not None else None}


def _job(agent: Agent, arguments: dict[str, Any], _send: Send) -> Any:
    record = _find(agent, arguments["name"])
    job, outcome = agent.jobs.get(record.name), agent.journal.outcome(record.name)
    return {
        "job": to_plain(record),
        "attempts": [to_plain(attempt) for attempt in _attempts(agent, record.name)],
        "why": job.why if job is not None else "",
        "kept": outcome is not None,
        "kept_bytes": sum(map(agent.blobs.size, outcome.parts)) if outcome is not None else 0,
        "progress": _last("progress", agent, record.name, record.attempts) or [],
        "gpus": _last("gpus", agent, record.name, record.attempts) or [],
        "spec": _spec(agent, record.name),
        "about": _about(agent, record),
    }


def _about(agent: Agent, record: JobRecord) -> dict[str, Any]:
    """Return what is told of a call, or what a job has said that it came to."""
    told = agent.running.about(record.name)
    if told or record.state is not JobState.SUCCEEDED:
        return told
    result = _last("result", agent, record.name, record.attempts)
    return {"result": result} if result else {}


def _attempts(agent: Agent, name: str) -> Sequence[AttemptRecord]:
    running = agent.running.attempts.get(name)
    return agent.journal.attempts(name) or ((running,) if running is not None else ())


def _result(agent: Agent, arguments: dict[str, Any], send: Send) -> Any:
    """The outcome of a job, waited for if it has not ended and `wait` is true."""
    record = _find(agent, arguments["name"])

    def tell() -> None:
        outcome = agent.journal.outcome(record.name)
        ended = _known(agent, record.name) or record
        if outcome is None:
            send({"state": ended.state.value, "ok": False, "kept": False})
            return
        try:
            data = b"".join(p if isinstance(p, bytes) else agent.blobs.read(p) for p in outcome.parts)
        except (OSError, BlobMissing):
            _log.exception("the outcome of %s cannot be read", record.name)
            send({"state": ended.state.value, "ok": False, "kept": False})
            return
        ok = outcome.kind is OutcomeKind.OK
        if not ok:
            data = (outcome.failure or "").encode()
        for start in range(0, len(data) - PIECE, PIECE):
            send(None, body=data[start : start + PIECE], more=True)
        rest = data[(len(data) - 1) // PIECE * PIECE :] if data else b""
        send({"state": ended.state.value, "ok": ok, "kept": True}, body=rest)

    waits = record.name in agent.jobs or not record.state.final
    if waits and arguments.get("wait", True):
        agent.job_waiters.setdefault(record.name, []).append(tell)
    else:
        agent.running.when_written(tell)  # what it came to may have been given back in this moment
    raise _Later


def _logs(agent: Agent, arguments: dict[str, Any], send: Send) -> Any:
    """The log of a job or call from an offset on; followed until its end if `follow` is true."""
    name = arguments["name"]
    name = _one_cell(_find(agent, name), name)
    offset = int(arguments.get("offset", 0))
    follow = bool(arguments.get("follow", False))

    def turn() -> None:
        nonlocal offset
        current = _known(agent, name)
        final = current is None or current.state.final
        attempts = current.attempts if current is not None else 1
        before, (rows, offset) = offset, _read_log(agent, name, attempts, offset)
        last = not follow or (final and offset == before)
        if rows or last:
            send({"records": rows, "offset": offset}, more=not last)
        if not last:
            agent.reactor.after(FOLLOW_SECONDS if offset == before else 0.0, turn)

    turn()
    raise _Later


def _read_log(
    agent: Agent, name: str, attempts: int, offset: int, file: str = LOG_NAME
) -> tuple[list[Any], int]:
    """Return a job's log from `offset` on, and where to go on; nothing new where that is the same.

    A row is ``[time, stream, text, event]``: a log record's and an event's facts come along, all others have None.
    The log of a job is that of its attempts, one after the other.
    """
    first, position = divmod(offset, ATTEMPT_BYTES)
    for number, folder, call in _log_folders(agent, name, attempts):
        if number >= first:
            found, after = LogReader(folder / file).read(position if number == first else 0)
            if found:
                rows = [
                    [r.time, r.stream, r.text, r.event]
                    for r in found
                    if call in (0, r.call) or r.stream == "gap"
                ]
                return rows, number * ATTEMPT_BYTES + after
    return [], offset


def _last(kind: str, agent: Agent, name: str, attempts: int) -> Any:
    """Return what a job or call has told last: its "progress", "gpus" or "result"; None: nothing."""
    for _, folder, call in reversed(_log_folders(agent, name, attempts)):
        event = LogReader(folder / LOG_NAME).last_event(kind, call=call)
        if event is not None:
            return event
    return None


def _log_folders(agent: Agent, name: str, attempts: int) -> list[tuple[int, Path, int]]:
    """Where the logs of a name lie: attempt, folder, and which call's records in it are meant (0: all)."""
    found = [(number, agent.layout.jobs / f"{name}.{number}", 0) for number in range(1, attempts + 1)]
    found = [row for row in found if row[1].is_dir()]
    _, _, tail = name.rpartition("-")
    lease = name.rpartition("-")[0].rpartition("-")[2]
    if not found and tail.isdecimal() and lease:
        found.append((0, agent.layout.jobs / lease, int(tail)))
    return found


def _cancel(agent: Agent, arguments: dict[str, Any], _send: Send) -> Any:
    record = _find(agent, arguments["name"])
    job = agent.jobs.get(record.name)
    if job is not None:
        job.cancel()
        return {"cancelled": True}
    if record.name in agent.running.leases:
        agent.cancel(*agent.running.leases[record.name])
        return {"cancelled": True}
    return {"cancelled": False}


def _stack(agent: Agent, arguments: dict[str, Any], send: Send) -> Any:
    record = _find(agent, arguments["name"])
    lease = agent.running.leases.get(record.name, ("", 0))[0]
    job = agent.jobs.get(record.name)
    entry = agent.leases.get(lease or (job.lease if job is not None else ""))
    if entry is None or not entry.worker:
        why = "has ended" if record.state.final else f"is {record.state.value}, and has no worker now"
        raise RemoteExecError(f"{record.name} {why}", hint=f"remote-exec jobs {record.name}")
    number = len(agent.stacks) + int(time.monotonic() * 1000) % 1_000_000
    timer = agent.reactor.after(2.0, lambda: told("", silent=True))

    def told(text: str, *, silent: bool = False) -> None:
        timer.cancel()
        agent.stacks.pop(number, None)
        send({"stack": text, "silent": silent, "pid": entry.pid})

    agent.stacks[number] = told
    agent.processes.tell_worker(entry.pool, entry.worker, protocol.DumpStack(number))
    raise _Later


def _death(agent: Agent, arguments: dict[str, Any], send: Send) -> Any:
    """How the worker of a lease died, for a client whose own agent has died; None where that is not known."""
    lease = arguments["lease"]
    known = agent.deaths.find(lease)

    def tell(lost: protocol.WorkerLost | None) -> None:
        agent.running.when_written(lambda: send(to_plain(lost) if lost is not None else None))

    def hear(lost: protocol.WorkerLost) -> None:
        timer.cancel()
        tell(lost)

    def give_up() -> None:
        withdraw()
        tell(None)

    if known is not None or (agent.recovered and lease not in agent.leases):
        tell(known)
    else:
        withdraw = agent.deaths.wait(lease, hear)
        timer = agent.reactor.after(DEATH_SECONDS, give_up)
    raise _Later


def _ended(agent: Agent, arguments: dict[str, Any], _send: Send) -> Any:
    """Whether this agent has seen the end of a lease: then all that its worker has received is on record."""
    return {"ended": agent.arrivals.has_ended(arguments["lease"])}


def _release(agent: Agent, arguments: dict[str, Any], _send: Send) -> Any:
    agent.happen(events.ReleaseAsked(time.monotonic(), arguments.get("pool", "")))
    return None


def _keep(agent: Agent, arguments: dict[str, Any], _send: Send) -> Any:
    """Keep a pool's workers warm for so long from now."""
    agent.happen(events.KeepAsked(time.monotonic(), str(arguments["pool"]), float(arguments["seconds"])))
    return None


def _environments(agent: Agent, _: dict[str, Any], _send: Send) -> Any:
    return [
        {
            "digest": info.digest,
            "summary": info.summary,
            "python": info.version,
            "created_at": info.created_at,
            "last_used_at": info.last_used_at,
            "size_bytes": info.size_bytes,
            "in_use": info.in_use,
            "sick": info.sick,
        }
        for info in agent.environments.list()
    ]


def _remove_environment(agent: Agent, arguments: dict[str, Any], _send: Send) -> Any:
    wanted = arguments["digest"]
    matching = [i.digest for i in agent.environments.list() if i.digest.partition(":")[2].startswith(wanted)]
    return {"removed": [digest for digest in matching if agent.environments.remove(digest)]}


def _cache(agent: Agent, _: dict[str, Any], _send: Send) -> Any:
    stats, kept = agent.blobs.stats(), results.Results(agent.journal).stats()
    return {
        "blobs": stats.blobs,
        "size_bytes": stats.size_bytes,
        "folder": str(agent.layout.blobs),
        "results": kept.results,
        "results_bytes": kept.size_bytes,
        "result_hits": kept.hits,
    }


def _prune(agent: Agent, arguments: dict[str, Any], send: Send) -> Any:
    """Remove results of calls, bundles and blobs until so much is left."""
    alive, limit = housekeeping.alive_in(agent), int(arguments["limit_bytes"])

    def prune() -> dict[str, int]:
        before = agent.blobs.stats().size_bytes
        forgotten = results.Results(agent.journal).prune(used_before=0.0, limit_bytes=limit)
        _, blobs = housekeeping.prune_blobs(agent, alive, limit_bytes=limit)
        after = agent.blobs.stats().size_bytes
        return {"removed": blobs, "removed_bytes": before - after, "removed_results": forgotten}

    def tell(told: dict[str, int] | None, error: BaseException | None) -> None:
        send(told if error is None else {"removed": 0, "removed_bytes": 0, "removed_results": 0})

    agent.reactor.in_thread(prune, tell)
    raise _Later


def _tidy(agent: Agent, _: dict[str, Any], send: Send) -> Any:
    """Do now what is done every ten minutes; the answer counts what was removed."""
    agent.housekeeping.tidy(lambda told, error: send({"removed": told or {}, "failed": error is not None}))
    raise _Later


def _cached(agent: Agent, arguments: dict[str, Any], send: Send) -> Any:
    results.tell_cached(agent, arguments, send)
    raise _Later


def _loaded(module: str, name: str) -> Callable[[Agent, dict[str, Any], Send], Any]:
    """Answer from a module that is loaded with the first such request."""

    def ask(agent: Agent, arguments: dict[str, Any], send: Send) -> Any:
        from importlib import import_module

        getattr(import_module(f".{module}", __package__), name)(agent, arguments, send)
        raise _Later

    return ask


def _stop(agent: Agent, _: dict[str, Any], _send: Send) -> Any:
    agent.reactor.after(0.05, agent.stop)
    return None


def _find(agent: Agent, name: str) -> JobRecord:
    record = _known(agent, name)
    if record is None:
        raise JobNotFound(f"there is no job named {name!r} on this host, or its retention has ended")
    return record


def _one_cell(record: JobRecord, name: str) -> str:
    """Return the name under which one thing is found from now on: a name given to cells will soon be another's."""
    return name if record.kind == "array" else record.name


def _may_come(agent: Agent, name: str) -> bool:
    """Whether a worker that lives may tell of a call of this name: it tells what has ended a few times a second."""
    return name.rpartition("-")[0].rpartition("-")[2] in agent.leases


def _known(agent: Agent, name: str) -> JobRecord | None:
    """Return what is known under a name.

    For a call that was summed up with its like, it is their array; for a name given to cells, the newest of them.
    """
    record = agent.journal.get(name) or agent.running.records.get(name)
    if record is not None:
        return record
    head, _, number = name.rpartition("-")
    array = agent.journal.get(f"{head}-{SUMMED}") if number.isdigit() else None
    return array if array is not None and array.kind == "array" else agent.running.cell_named(name)


def _spec(agent: Agent, name: str) -> Any:
    import json

    text = agent.journal.spec(name)
    with contextlib.suppress(ValueError):
        return json.loads(text) if text else {}
    return {}


_ASK: dict[str, Callable[[Agent, dict[str, Any], Send], Any]] = {
    "host": _host,
    "jobs": _jobs,
    "job": _job,
    "result": _result,
    "logs": _logs,
    "cancel": _cancel,
    "stack": _stack,
    "death": _death,
    "ended": _ended,
    "release": _release,
    "keep": _keep,
    "environments": _environments,
    "remove_environment": _remove_environment,
    "cache": _cache,
    "prune": _prune,
    "tidy": _tidy,
    "cached": _cached,
    "platform": _loaded("tool_requests", "tell_platform"),
    "tools": _loaded("tool_requests", "tell_tools"),
    "install_tool": _loaded("tool_requests", "install_tool"),
    "usage": _loaded("host_requests", "tell_usage"),
    "contents": _loaded("host_requests", "tell_contents"),
    "sync": _loaded("host_requests", "sync"),
    "port": _loaded("host_requests", "tell_port"),
    "metrics": _loaded("metric_requests", "tell_metrics"),
    "remember": lambda agent, arguments, send: None,
    "stop": _stop,
    "submit": lambda agent, arguments, send: None,
    "rerun": lambda agent, arguments, send: None,
    "watch": lambda agent, arguments, send: None,
    "tree": lambda agent, arguments, send: None,
    "read_blob": lambda agent, arguments, send: None,
}
