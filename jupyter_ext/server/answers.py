"""What is answered to the panel, asked of the agents. For threads: each function blocks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import TimeoutError as Unanswered
from pathlib import Path
from typing import Any, NamedTuple

from remote_exec.backends import local
from remote_exec.client import inventory
from remote_exec.client.looking import NoAgent
from remote_exec.client.naming import far_hosts
from remote_exec.client.reruns import rerun_job
from remote_exec.client.session import Session, open_session
from remote_exec.config import load_config
from remote_exec.errors import ConfigurationError, HostUnavailable, RemoteExecError
from remote_exec.serial.failures_json import from_json

from .agents import Agents
from .board import LOCAL
from .messages import (
    UNFINISHED,
    Cancelled,
    Host,
    Hosts,
    InstanceTypes,
    JobDetail,
    LogPiece,
    Pool,
    Released,
    Rerun,
    Status,
)
from .problems import NotKept
from .views import (
    MOST_PREVIEW_BYTES,
    detail_of,
    gpu_of,
    instance_types_of,
    pool_of,
    preview_of,
    records_of,
)

FRESH_SECONDS = 1.0  # how old a look at the hosts may be that several tabs share
FIRST_SECONDS = 0.2  # between the two looks that the first CPU figures need


class _Look(NamedTuple):
    """What a host told of its processors."""

    at: float  # the host's own clock
    busy_seconds: float
    workers: dict[int, float]  # by process: seconds of processor time


class Answers:
    """Answers requests.

    Args:
        agents: who is asked.
    """

    def __init__(self, agents: Agents) -> None:
        self.agents = agents
        self._lock = threading.Lock()
        self._looks: dict[str, _Look] = {}
        self._hosts: tuple[float, Hosts] | None = None

    # --- jobs -------------------------------------------------------------------------------------------------

    def job(self, name: str, host: str = "") -> JobDetail:
        """Return all of one job.

        Raises:
            JobNotFound: there is none.
        """
        host = self.agents.host_of(name, host)
        told = self.agents.ask(host, "job", name=name)
        result = failure = None
        if told["kept"] and told["job"]["state"] == "succeeded":
            size, body = told.get("kept_bytes", 0), b""
            if size <= MOST_PREVIEW_BYTES:
                _, body = self.agents.ask_whole(host, "result", name=name, wait=False)
            result = preview_of(body, size)
        elif told["kept"] and told["job"]["state"] not in UNFINISHED:
            _, body = self.agents.ask_whole(host, "result", name=name, wait=False)
            failure = from_json(body.decode()) if body else None
        return detail_of(host, told, result, failure)

    def logs(self, name: str, host: str = "", start: str = "") -> LogPiece:
        """Return a piece of a job's log, from an offset on; an empty text is the beginning.

        Raises:
            JobNotFound: there is none.
            ConfigurationError: the offset is none.
        """
        host = self.agents.host_of(name, host)
        offset = _offset(start)
        piece = self.agents.ask(host, "logs", name=name, offset=offset)
        ended = False
        if piece["offset"] == offset and not self._runs(host, name):
            piece = self.agents.ask(host, "logs", name=name, offset=offset)  # what came just before the end
            ended = piece["offset"] == offset
        return LogPiece(records_of(piece["records"]), str(piece["offset"]), ended)

    def _runs(self, host: str, name: str) -> bool:
        return self.agents.ask(host, "job", name=name)["job"]["state"] in UNFINISHED

    def whole_log(self, name: str, host: str = "") -> Iterator[str]:
        """Yield the text of all that is kept of a job's log.

        Raises:
            JobNotFound: there is none.
        """
        host = self.agents.host_of(name, host)
        offset, before = 0, -1
        while offset != before:
            piece = self.agents.ask(host, "logs", name=name, offset=offset)
            before, offset = offset, piece["offset"]
            yield "".join(record.text for record in records_of(piece["records"]))

    def cancel(self, name: str, host: str = "") -> Cancelled:
        """Have a job stopped.

        Raises:
            JobNotFound: there is none.
        """
        host = self.agents.host_of(name, host)
        return Cancelled(bool(self.agents.ask(host, "cancel", name=name)["cancelled"]))

    def rerun(self, name: str, host: str = "") -> Rerun:
        """Submit a job again. Where no agent runs on this machine, one is started.

        Raises:
            JobNotFound: there is none.
            NotKept: not all is kept that it needs.
        """
        host = self.agents.host_of(name, host)
        own: Session | None = None
        try:
            session = self.agents.session(host)
        except NoAgent:
            session = own = open_session(local.here())
        try:
            return Rerun(host, rerun_job(session, name))
        except ConfigurationError as error:
            raise NotKept(error.message, hint=error.hint or "call the function again") from error
        finally:
            if own is not None:
                own.close()

    # --- hosts ------------------------------------------------------------------------------------------------

    def hosts(self) -> Hosts:
        """Return this machine and all hosts that are known, as they are now, or were a moment ago."""
        with self._lock:
            if self._hosts is None or time.monotonic() - self._hosts[0] > FRESH_SECONDS:
                self._hosts = (time.monotonic(), Hosts(self._look_at_hosts()))
            return self._hosts[1]

    def _look_at_hosts(self) -> list[Host]:
        try:
            self.agents.session(LOCAL)
        except HostUnavailable:
            pass
        noted = {one.host.name: one for one in inventory.known()}
        found: list[Host] = []
        for name, session in self.agents.connected().items():
            known = noted.get(name)
            try:
                found.append(self._host(name, session, known.reached_at if known is not None else None))
            except (RemoteExecError, Unanswered):  # it has just gone
                continue
        here = [host.name for host in found]
        if LOCAL not in here:
            found.insert(0, _silent(LOCAL, "no agent"))
        for host in far_hosts():
            if host.name not in here:
                found.append(_silent(host.name, "not connected", noted.get(host.name)))
        return found

    def _host(self, name: str, session: Session, reached_at: float | None) -> Host:
        told, use = _asked(session)
        before = self._looks.get(name)
        if before is None:
            time.sleep(FIRST_SECONDS)
            before = _look_of(use)
            told, use = _asked(session)
        look = self._looks[name] = _look_of(use)
        seconds = max(look.at - before.at, 1e-3)
        percents = {
            pid: 100 * max(0.0, used - before.workers.get(pid, used)) / seconds
            for pid, used in look.workers.items()
        }
        memory = {pid: size for pid, _, size in use.get("workers", ())}
        return Host(
            name=name,
            state="connected",
            version=told["version"],
            pid=told["pid"],
            started_at=told["started_at"],
            reached_at=reached_at,
            cpus=told["cpus"],
            cpu_percent=100 * min(max(0.0, look.busy_seconds - before.busy_seconds) / seconds, told["cpus"]),
            memory_used_bytes=use.get("memory_used_bytes"),
            memory_total_bytes=use.get("memory_total_bytes") or told["memory_bytes"],
            gpus=[gpu_of(gpu) for gpu in use.get("gpus", ())],
            pools=[pool_of(pool, percents, memory) for pool in told["pools"]],
        )

    def keep(self, key: str, seconds: float, host: str = "") -> Pool:
        """Keep a pool's workers warm for so long from now; return it.

        Raises:
            ConfigurationError: there is no such pool.
        """
        host = host or LOCAL
        self._pool(host, key)
        self.agents.ask(host, "keep", pool=key, seconds=seconds)
        self._hosts = None
        return pool_of(self._pool(host, key), {}, {})

    def release(self, key: str, host: str = "") -> Released:
        """End a pool's idle workers.

        Raises:
            ConfigurationError: there is no such pool.
        """
        host = host or LOCAL
        self._pool(host, key)
        self.agents.ask(host, "release", pool=key)
        self._hosts = None
        return Released(key)

    def _pool(self, host: str, key: str) -> dict[str, Any]:
        for pool in self.agents.ask(host, "host")["pools"]:
            if pool["key"] == key:
                found: dict[str, Any] = pool
                return found
        raise ConfigurationError(f"there is no pool {key!r} on {host}: it may have ended")

    # --- all else ---------------------------------------------------------------------------------------------

    def instance_types(self, folder: Path) -> InstanceTypes:
        """Return what the configuration has that holds in a folder.

        Raises:
            ConfigurationError: it is wrong.
        """
        return instance_types_of(load_config(folder))

    def status(self, since: int | None = None) -> tuple[Status, int]:
        """Return how things stand, and what to give the next time, for the jobs that have ended since."""
        board = self.agents.board
        counts = board.counts()
        number, ended = board.ended_since(since)
        status = Status(
            agent=board.agent,
            version=board.version,
            message=board.message,
            hint=board.hint,
            queued=counts["queued"],
            running=counts["running"],
            ended=ended,
        )
        return status, number


def _offset(text: str) -> int:
    if text and not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ConfigurationError(f"from must be an offset that was told before, not {text[:40]!r}")
    return int(text or "0")


def _asked(session: Session) -> tuple[dict[str, Any], dict[str, Any]]:
    told: dict[str, Any] = session.start("host").result(10.0)[0]
    pids: Sequence[int] = [worker["pid"] for pool in told["pools"] for worker in pool["workers"]]
    answer = session.start("usage", {"pids": pids}).result(10.0)[0]
    return told, answer["told"] or {}


def _look_of(use: dict[str, Any]) -> _Look:
    workers = {pid: seconds for pid, seconds, _ in use.get("workers", ())}
    return _Look(use.get("at", 0.0), use.get("busy_seconds", 0.0), workers)


def _silent(name: str, state: Any, noted: inventory.Known | None = None) -> Host:
    return Host(
        name=name,
        state=state,
        version=noted.version if noted is not None else "",
        pid=0,
        started_at=None,
        reached_at=(noted.reached_at or None) if noted is not None else None,
        cpus=0.0,
        cpu_percent=None,
        memory_used_bytes=None,
        memory_total_bytes=None,
        gpus=[],
        pools=[],
    )
