"""Jobs found again from any later process: on this machine, on the host that is noted, on all hosts that are known.

Hosts are asked side by side; one that does not answer soon is passed over and named, so that a machine without a
network is quick to say so.
"""

from __future__ import annotations

import heapq
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..backends import local
from ..backends.access import access_to
from ..backends.host import Host
from ..future import RemoteFuture
from ..model.errors import ConfigurationError, HostUnavailable, JobNotFound, RemoteExecError
from . import inventory
from .connections import connections
from .jobs import JobFuture
from .naming import far_hosts

ANSWER_SECONDS = 5.0
NOTED_SECONDS = 20.0  # where a job is known to lie: its host may have to be logged in to, or to be brought up
PAGE = 100


def get_future(job_name: str) -> RemoteFuture[Any]:
    """Return the future of a job or call that some process started, on this machine or on a host that is known.

    Args:
        job_name: its name: what `RemoteFuture.job` was, or what `remote-exec jobs` lists.

    Raises:
        JobNotFound: there is none, or its retention has ended; the message names the hosts that did not answer.
        HostUnavailable: no agent could be reached, or not the host's that it was submitted to.
    """
    return future_of(job_name, *find_job(job_name))


def list_futures(job_name_prefix: str = "") -> Iterator[RemoteFuture[Any]]:
    """Yield the futures of jobs and calls on all hosts that answer, newest first, asking for more as they are taken.

    Args:
        job_name_prefix: how their names begin.
    """
    question = {"prefix": job_name_prefix, "limit": PAGE}
    answers = Answers(far_hosts(), "jobs", question)  # asked while this machine's agent answers
    here = local.here()
    pages = [_Rows(here, question, _ask(here, "jobs", question))]
    pages += [_Rows(host, question, page) for host, page in answers]
    for host, why in answers.silent.items():
        connections.reporter.note(f"{host.name} is passed over: {why}")
    for row, host in heapq.merge(*pages, key=lambda found: -found[0]["created_at"]):
        yield JobFuture(row["name"], host, row["state"])


def future_of(name: str, host: Host, told: Any) -> JobFuture:
    """Return the future of a job that was asked for by this name, which cells may share: of the one that was found."""
    job = told["job"]
    return JobFuture(name if job["kind"] == "array" else job["name"], host, job["state"])


def refuse_taken(name: str, host: Host) -> None:
    """Refuse a name for a cell that a job on its host has: it would not be found by it.

    Raises:
        ConfigurationError: there is one.
    """
    try:
        taken = _ask(host, "job", {"name": name})["job"]["name"] == name
    except JobNotFound:
        return
    if taken:
        raise ConfigurationError(
            f"a job named {name!r} exists on {host.name}",
            option="name",
            hint="choose another name for the cell",
        )


def find_job(name: str) -> tuple[Host, Any]:
    """Return the host that a job lies on, with what its agent tells of it.

    Raises:
        JobNotFound: no host that answers knows it.
        HostUnavailable: no agent could be reached, or not the host's that it was submitted to.
    """
    question = {"name": name}
    here = local.here()
    try:
        return here, _ask(here, "job", question)
    except JobNotFound:
        return find_far_job(name)


def find_far_job(name: str) -> tuple[Host, Any]:
    """Return the other host that a job lies on: as `find_job` does."""
    question = {"name": name}
    noted = inventory.host_of_job(name)
    if noted is not None:
        answers = Answers([noted], "job", question, seconds=NOTED_SECONDS, bring_up=True)
        for found in answers:
            return found
        if noted not in answers.silent:
            for former in _former(noted):  # each is started for it
                for found in Answers([former], "job", question, seconds=NOTED_SECONDS, bring_up=True):
                    return found
        if noted in answers.silent:
            raise HostUnavailable(
                f"{name} was submitted to {noted.name}, which does not answer: {answers.silent[noted]}",
                hint=f"remote-exec doctor {noted.name}",
            )
    others = [host for host in far_hosts() if host != noted]
    answers = Answers(others, "job", question)
    for found in answers:
        return found
    asked = [host.name for host in (noted, *others) if host is not None and host not in answers.silent]
    text = (
        f"there is no job named {name!r} on {', '.join(['this machine', *asked])}, or its retention has ended"
    )
    for host, why in answers.silent.items():
        text += f"; {host.name} was not asked: {why}"
    raise JobNotFound(text)


def _former(host: Host) -> list[Host]:
    try:
        return access_to(host).former()
    except RemoteExecError:  # it has just answered: whatever it is, it is not known
        return []


class Answers:
    """What hosts answer, as they do so; those that have nothing to say are left out.

    Args:
        hosts: all are asked at once.
        what: the request.
        arguments: its arguments.
        seconds: for how long they are waited for, from now on.
        bring_up: whether to start containers that do not run.
    """

    def __init__(
        self,
        hosts: Iterable[Host],
        what: str,
        arguments: dict[str, Any],
        *,
        seconds: float = ANSWER_SECONDS,
        bring_up: bool = False,
    ) -> None:
        self.silent: dict[Host, str] = {}
        """Those that did not answer, and why; whole when all answers were taken."""
        self._seconds = seconds
        self._bring_up = bring_up
        self._deadline = time.monotonic() + seconds
        self._hosts: Sequence[Host] = list(hosts)
        self._told: queue.SimpleQueue[tuple[Host, Any]] = queue.SimpleQueue()
        for host in self._hosts:
            # a thread that waits for the network must hold up no process that ends
            threading.Thread(target=self._ask, args=(host, what, arguments), daemon=True).start()

    def _ask(self, host: Host, what: str, arguments: dict[str, Any]) -> None:
        try:
            if not self._bring_up and not access_to(host).is_there():
                raise HostUnavailable("it does not run")
            self._told.put((host, _ask(host, what, arguments)))
        except Exception as error:  # whatever it is, this host has no answer
            self._told.put((host, error))

    def __iter__(self) -> Iterator[tuple[Host, Any]]:
        waiting = list(self._hosts)
        while waiting:
            try:
                host, told = self._told.get(timeout=max(0.0, self._deadline - time.monotonic()))
            except queue.Empty:
                self.silent |= dict.fromkeys(waiting, f"no answer in {self._seconds:g} s")
                return
            waiting.remove(host)
            if isinstance(told, Exception):
                if not isinstance(told, JobNotFound):
                    self.silent[host] = getattr(told, "message", "") or str(told)
            else:
                yield host, told


class _Rows:
    """The jobs of one host, newest first, page by page."""

    def __init__(self, host: Host, question: dict[str, Any], first: Any) -> None:
        self._host = host
        self._question = question
        self._page = first

    def __iter__(self) -> Iterator[tuple[dict[str, Any], Host]]:
        page = self._page
        while True:
            for row in page["jobs"]:
                yield row, self._host
            if page["next"] is None:
                return
            try:
                page = _ask(self._host, "jobs", {**self._question, "before": page["next"]})
            except HostUnavailable as error:
                if self._host.here:
                    raise
                connections.reporter.note(f"{self._host.name} is passed over: {error.message}")
                return


def _ask(host: Host, what: str, arguments: dict[str, Any]) -> Any:
    return connections.with_agent(host, lambda session: session.ask(what, arguments))
