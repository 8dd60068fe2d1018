"""How hosts are, and how busy. Each is asked by itself: one that is slow or dead delays no other. For threads."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from concurrent.futures import TimeoutError as Unanswered
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from remote_exec.client import inventory
from remote_exec.client.looking import NoAgent
from remote_exec.client.naming import far_hosts
from remote_exec.client.session import Session
from remote_exec.errors import HostUnavailable, RemoteExecError

from .agents import Agents
from .board import LOCAL
from .messages import Host
from .views import gpu_of, pool_of

FRESH_SECONDS = 1.0  # how old an answer may be that several tabs share
FIRST_SECONDS = 0.2  # between the two looks that the first CPU figures need
SILENT_SECONDS = 3.0  # without an answer: so long a host is said to be as it was, and waited for
ANSWER_SECONDS = 10.0

_log = logging.getLogger(__name__)


class _Look(NamedTuple):
    """What a host told of its processors."""

    at: float  # the host's own clock
    busy_seconds: float
    workers: dict[int, float]  # by process: seconds of processor time


class _Asked:
    """One host: what it was asked, and what it answered last. To be used under its owner's lock."""

    def __init__(self) -> None:
        self.answer: Future[Host] | None = None  # or it is on the way
        self.asked_at = 0.0
        self.unanswered_since: float | None = None
        self.last: Host | None = None
        self.look: _Look | None = None

    @property
    def is_under_way(self) -> bool:
        return self.answer is not None and not self.answer.done()

    @property
    def is_silent(self) -> bool:
        since = self.unanswered_since
        return since is not None and time.monotonic() - since > SILENT_SECONDS


class Busy:
    """See the module's docstring.

    Args:
        agents: who knows the sessions with hosts.
    """

    def __init__(self, agents: Agents) -> None:
        self._agents = agents
        self._lock = threading.Lock()
        self._asked: dict[str, _Asked] = {}

    def hosts(self, patience: float) -> list[Host]:
        """Return this machine and all hosts that are known, as they are now, or were when they last answered.

        Args:
            patience: for so many seconds, at most, hosts are waited for that do not answer at once.
        """
        noted = {one.host.name: one for one in inventory.known()}
        answers = {name: self._ask(name) for name in (LOCAL, *self._agents.connected())}
        with self._lock:
            awaited = [answer for name, answer in answers.items() if not self._asked[name].is_silent]
        wait(awaited, patience)
        found = [self._found(name, answer, noted.get(name)) for name, answer in answers.items()]
        listed = [host for host in found if host is not None]
        here = {host.name for host in listed}
        others = [host.name for host in far_hosts() if host.name not in here]
        return [*listed, *(_without_figures(name, "not connected", noted.get(name)) for name in others)]

    def forget(self, name: str) -> None:
        """What a host has answered holds no longer."""
        with self._lock:
            if name in self._asked:
                self._asked[name].answer = None

    def _ask(self, name: str) -> Future[Host]:
        """Return a host's answer, which may be on the way."""
        with self._lock:
            asked = self._asked.setdefault(name, _Asked())
            fresh = time.monotonic() - asked.asked_at < FRESH_SECONDS
            if asked.answer is not None and (asked.is_under_way or fresh):
                return asked.answer
            answer = asked.answer = Future[Host]()
            asked.asked_at = time.monotonic()
            if asked.unanswered_since is None:
                asked.unanswered_since = asked.asked_at
        # a thread that waits for the network must hold up no process that ends
        threading.Thread(target=self._look, args=(name, asked, answer), daemon=True).start()
        return answer

    def _look(self, name: str, asked: _Asked, answer: Future[Host]) -> None:
        try:
            session = self._agents.session(name)
            try:
                host, look = _host_at(name, session, asked.look)
            except HostUnavailable:
                if not session.lost:
                    raise
                host, look = _host_at(
                    name, self._agents.session(name), asked.look
                )  # another, or why there is none
        except BaseException as error:
            if not isinstance(error, (RemoteExecError, Unanswered)):
                _log.exception("what is told of %s is not understood", name)
            answer.set_exception(error)
            return
        with self._lock:
            if asked.answer is answer:
                asked.last, asked.look, asked.unanswered_since = host, look, None
        answer.set_result(host)

    def _found(self, name: str, answer: Future[Host], noted: inventory.Known | None) -> Host | None:
        """Return what is told of a host now; None where it has just gone."""
        error = answer.exception() if answer.done() else None
        with self._lock:
            asked = self._asked[name]
            if isinstance(error, HostUnavailable) and (name != LOCAL or isinstance(error, NoAgent)):
                asked.last = asked.look = asked.unanswered_since = None
                return _without_figures(LOCAL, "no agent") if name == LOCAL else None
            host, is_silent = asked.last, asked.is_silent
        state: Literal["connected", "not answering"] = "not answering" if is_silent else "connected"
        if host is None:
            return _without_figures(name, state, noted)
        return replace(host, state=state, reached_at=noted.reached_at if noted is not None else None)


def _host_at(name: str, session: Session, before: _Look | None) -> tuple[Host, _Look]:
    told, use = _ask_both(session)
    if before is None:
        time.sleep(FIRST_SECONDS)
        before = _look_of(use)
        told, use = _ask_both(session)
    look = _look_of(use)
    seconds = max(look.at - before.at, 1e-3)
    percents = {
        pid: 100 * max(0.0, used - before.workers.get(pid, used)) / seconds
        for pid, used in look.workers.items()
    }
    memory = {pid: size for pid, _, size in use.get("workers", ())}
    host = Host(
        name=name,
        state="connected",
        version=told["version"],
        pid=told["pid"],
        started_at=told["started_at"],
        reached_at=None,
        cpus=told["cpus"],
        cpu_percent=100 * min(max(0.0, look.busy_seconds - before.busy_seconds) / seconds, told["cpus"]),
        memory_used_bytes=use.get("memory_used_bytes"),
        memory_total_bytes=use.get("memory_total_bytes") or told["memory_bytes"],
        gpus=[gpu_of(gpu) for gpu in use.get("gpus", ())],
        pools=[pool_of(pool, percents, memory) for pool in told["pools"]],
    )
    return host, look


def _ask_both(session: Session) -> tuple[dict[str, Any], dict[str, Any]]:
    told: dict[str, Any] = session.start("host").result(ANSWER_SECONDS)[0]
    pids: Sequence[int] = [worker["pid"] for pool in told["pools"] for worker in pool["workers"]]
    answer = session.start("usage", {"pids": pids}).result(ANSWER_SECONDS)[0]
    return told, answer["told"] or {}


def _look_of(use: dict[str, Any]) -> _Look:
    workers = {pid: seconds for pid, seconds, _ in use.get("workers", ())}
    return _Look(use.get("at", 0.0), use.get("busy_seconds", 0.0), workers)


def _without_figures(name: str, state: Any, noted: inventory.Known | None = None) -> Host:
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
