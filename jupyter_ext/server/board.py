"""The jobs of all hosts as they stand, and the windows that are looked at. No I/O; any thread may use it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Literal, get_args

from .looks import LookAtJobs
from .messages import MOST_JOBS, AgentState, Group, Job, JobChanges, Jobs, State
from .views import job_of, notebook_of

STATES: tuple[State, ...] = get_args(State)
LOCAL = "local"
MOST_ENDED = 20
MOST_WORDS = 20


@dataclass
class _Entry:
    """One job; what is sorted and searched by is worked out once."""

    host: str
    row: Mapping[str, Any]
    order: tuple[float, str]
    words: str
    notebook: str
    _job: Job | None = None

    @classmethod
    def of(cls, host: str, row: Mapping[str, Any]) -> _Entry:
        tags = (f"{key}={value}" for key, value in row["tags"])
        words = (row["name"], row["function"], row["instance_type"], row["summary"], host, *tags)
        order, notebook = (-row["created_at"], row["name"]), notebook_of(row)
        return cls(host, row, order, "\n".join(words).lower(), notebook)

    @property
    def job(self) -> Job:
        if self._job is None:
            self._job = job_of(self.host, self.row)
        return self._job


@dataclass
class _HostJobs:
    entries: dict[str, _Entry] = field(default_factory=dict[str, _Entry])
    counts: dict[str, int] = field(default_factory=dict[str, int])
    older: bool = False


class Board:
    """See the module's docstring.

    Args:
        changed: called after each change, in the thread that made it.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._lock = threading.Lock()
        self._hosts: dict[str, _HostJobs] = {}
        self._coming: dict[str, _HostJobs] = {}  # a snapshot of which not all has come
        self._sorted: list[_Entry] | None = None
        self._ended: deque[tuple[int, Job]] = deque(maxlen=MOST_ENDED)
        self._ends = 0
        self.agent: AgentState = "none"  # of this machine
        self.version = ""
        self.message = ""
        self.hint = ""

    # --- what hosts tell --------------------------------------------------------------------------------------

    def begin(self, host: str) -> None:
        """A host is about to tell all its jobs."""
        with self._lock:
            self._coming[host] = _HostJobs()
            self._hosts.setdefault(host, _HostJobs())

    def take(self, host: str, piece: Mapping[str, Any]) -> None:
        """Take in what a host tells: an answer to "watch"."""
        with self._lock:
            coming = self._coming.get(host)
            if coming is not None:
                self._take_snapshot(host, coming, piece)
            else:
                self._take_changes(host, piece)
        self._changed()

    def _take_snapshot(self, host: str, coming: _HostJobs, piece: Mapping[str, Any]) -> None:
        coming.entries.update((row["name"], _Entry.of(host, row)) for row in piece["jobs"])
        coming.counts, coming.older = piece["counts"], piece["older"]
        if piece["whole"]:
            del self._coming[host]
        if piece["whole"] or not self._hosts[host].entries or self._hosts[host] is coming:
            self._hosts[host] = coming  # what was there before stays until all has come
            self._sorted = None

    def _take_changes(self, host: str, piece: Mapping[str, Any]) -> None:
        jobs = self._hosts.setdefault(host, _HostJobs())
        jobs.counts = piece["counts"]
        for name in piece["gone"]:
            if jobs.entries.pop(name, None) is not None:
                self._sorted = None
        for row in piece["jobs"]:
            before, entry = jobs.entries.get(row["name"]), _Entry.of(host, row)
            if before is not None and not before.row["ended_at"] and row["ended_at"]:
                self._ends += 1
                self._ended.append((self._ends, entry.job))
            if before is not None and before.order == entry.order:  # it stands where it stood
                before.row, before.words, before._job = entry.row, entry.words, entry._job
            else:
                jobs.entries[row["name"]] = entry
                self._sorted = None

    def leave(self, host: str) -> None:
        """Nothing is known of a host any longer."""
        with self._lock:
            self._hosts.pop(host, None)
            self._coming.pop(host, None)
            self._sorted = None
        self._changed()

    def set_agent(self, agent: AgentState, *, version: str = "", message: str = "", hint: str = "") -> None:
        """Note how this machine's agent is."""
        before = (self.agent, self.version, self.message, self.hint)
        if before != (agent, version, message, hint):
            self.agent, self.version, self.message, self.hint = agent, version, message, hint
            self._changed()

    # --- what is looked at ------------------------------------------------------------------------------------

    def window(self, look: LookAtJobs) -> Jobs:
        """Return a window of the list."""
        with self._lock:
            found = self._found(look)
            groups = _groups(found, look.group) if look.group else []
            if look.group:
                place = {group.name: number for number, group in enumerate(groups)}
                of = attrgetter(look.group)
                found.sort(key=lambda entry: place[of(entry)])  # in each, the order stays
            count = max(0, min(look.count, MOST_JOBS))
            first = max(0, min(look.first, len(found) - 1))
            return Jobs(
                jobs=[entry.job for entry in found[first : first + count]],
                first=first,
                total=len(found),
                groups=groups,
                counts=self._counts(),
                agent=self.agent,
                hosts=sorted(self._hosts),
                more=any(jobs.older for jobs in self._hosts.values()),
            )

    def row(self, host: str, name: str) -> Mapping[str, Any] | None:
        """Return what is known of one job; the same object for as long as nothing has changed."""
        with self._lock:
            jobs = self._hosts.get(host)
            entry = jobs.entries.get(name) if jobs is not None else None
            return entry.row if entry is not None else None

    def counts(self) -> dict[State, int]:
        """Return how many jobs stand in each state."""
        with self._lock:
            return self._counts()

    def ended_since(self, number: int | None) -> tuple[int, list[Job]]:
        """Return the jobs that have ended since the last time, and what to give the next time; None: the first."""
        with self._lock:
            known = self._ends if number is None else number
            return self._ends, [job for at, job in self._ended if at > known]

    def _counts(self) -> dict[State, int]:
        hosts = self._hosts.values()
        return {state: sum(jobs.counts.get(state, 0) for jobs in hosts) for state in STATES}

    def _found(self, look: LookAtJobs) -> list[_Entry]:
        if self._sorted is None:
            every = [entry for jobs in self._hosts.values() for entry in jobs.entries.values()]
            self._sorted = sorted(every, key=attrgetter("order"))
        found = self._sorted
        if look.states:
            states = frozenset(look.states)
            found = [entry for entry in found if entry.row["state"] in states]
        if look.host:
            found = [entry for entry in found if entry.host == look.host]
        if look.notebook:
            found = [entry for entry in found if entry.notebook == look.notebook]
        for word in look.search.lower().split()[:MOST_WORDS]:
            found = [entry for entry in found if word in entry.words]
        return list(found) if look.group else found


def _groups(found: Sequence[_Entry], by: Literal["host", "notebook"]) -> list[Group]:
    counts: dict[str, int] = {}
    for name in map(attrgetter(by), found):
        counts[name] = counts.get(name, 0) + 1
    # hosts have their places; of notebooks, the one with the newest job comes first
    names = sorted(counts, key=lambda name: (name != LOCAL, name) if by == "host" else (not name, ""))
    groups: list[Group] = []
    first = 0
    for name in names:
        groups.append(Group(name, first, counts[name]))
        first += counts[name]
    return groups


def difference(before: Jobs, after: Jobs) -> JobChanges | None:
    """Return what is otherwise in a window; None where nothing is."""
    if before == after:
        return None
    known = {job.key: job for job in before.jobs}
    order = [job.key for job in after.jobs]
    changed = [job for job in after.jobs if known.get(job.key) != job]
    return JobChanges(
        order=order if order != [job.key for job in before.jobs] else None,
        changed=changed,
        first=after.first,
        total=after.total,
        groups=after.groups,
        counts=after.counts,
        agent=after.agent,
        hosts=after.hosts,
        more=after.more,
    )
