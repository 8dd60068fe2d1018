"""How busy the hosts of an instance type are, and which are out of reach, as this process knows it.

Their agents are asked in the background, each once in a few seconds at the most and only while somebody wants to know.
A host that cannot be reached is out, which is said once; it is tried again after a while.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from ..backends.host import Host
from ..model.errors import RemoteExecError
from ..model.pool import Shape
from ..model.record import record
from .connections import connections

ASK_SECONDS = 3.0
OUT_SECONDS = 15.0  # until one that is out of reach is tried again


@record(frozen=False)
class _Known:
    """What this process knows of a host."""

    told: dict[str, Any] | None = None
    others: float = 0.0  # workers at work and leases that wait, but for those of this process
    asked_at: float = 0.0
    asking: bool = False
    out_until: float = 0.0
    why_out: str = "its connection is broken just now"
    noted: bool = False


class Loads:
    """One for each process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Host, _Known] = {}

    def others(self, host: Host) -> float:
        """Return how many workers and waiting leases of others its agent told of last."""
        return self._of(host).others

    def capacity(self, host: Host, shape: Shape) -> int:
        """Return how many workers of a shape fit on a host, as far as that is known."""
        told = self._of(host).told
        if told is None:
            return 1
        most = float(told["cpus"])
        if shape.cpus:
            most = min(most, told["cpus"] / shape.cpus)
        if shape.memory_bytes:
            most = min(most, told["memory_bytes"] / shape.memory_bytes)
        if shape.gpus:
            most = min(most, len(told["gpus"]) / shape.gpus)
        return max(1, int(most))

    def add(self, host: Host) -> None:
        """Take note of a job that was just given to a host, until its agent tells of it."""
        self._of(host).others += 1.0

    def heard(self, host: Host, told: dict[str, Any]) -> None:
        """Take in what an agent tells of its host."""
        known = self._of(host)
        known.told, known.asked_at, known.out_until = told, time.monotonic(), 0.0
        known.others = max(0.0, busy_of(told) - connections.leases(host))

    def is_out(self, host: Host) -> bool:
        """Whether a host was found to be out of reach lately, or is just now."""
        if self._of(host).out_until > time.monotonic():
            return True
        return connections.is_away(host)

    def why_out(self, host: Host) -> str:
        """Say why a host is out of reach."""
        return self._of(host).why_out

    def is_lost(self, host: Host) -> bool:
        """Whether a host has been given up, until it is tried again."""
        return self._of(host).out_until > time.monotonic()

    def take_out(self, host: Host, why: str) -> None:
        """Leave a host out for a while."""
        known = self._of(host)
        known.out_until, known.why_out = time.monotonic() + OUT_SECONDS, why
        self.note_out(host, why)

    def note_out(self, host: Host, why: str) -> None:
        """Say that a host is out of reach, once each time."""
        known = self._of(host)
        if not known.noted:
            known.noted = True
            connections.reporter.note(f"{host.name} is passed over: {why}")

    def refresh(self, host: Host) -> None:
        """Have a host asked, if that was not done lately, without waiting for it."""
        known, now = self._of(host), time.monotonic()
        with self._lock:
            if known.asking or now < max(known.asked_at + ASK_SECONDS, known.out_until):
                return
            known.asking, known.asked_at = True, now
        threading.Thread(target=self._ask, args=(host, known), name="remote_exec-load", daemon=True).start()

    def _ask(self, host: Host, known: _Known) -> None:
        try:
            told = connections.with_agent(host, lambda session: session.ask("host"))
        except RemoteExecError as error:
            self.take_out(host, error.message)
        else:
            self.heard(host, told)
            known.noted = False
        finally:
            known.asking = False

    def _of(self, host: Host) -> _Known:
        known = self._known.get(host)
        if known is None:
            known = self._known.setdefault(host, _Known())
        return known


def busy_of(told: dict[str, Any]) -> float:
    """Return how many workers are at work on a host, and leases wait."""
    return float(
        sum(
            pool["queued"] + sum(worker["state"] == "InUse" for worker in pool["workers"])
            for pool in told["pools"]
        )
    )


loads = Loads()


def _in_child() -> None:
    loads.__init__()  # type: ignore[misc]


os.register_at_fork(after_in_child=_in_child)
