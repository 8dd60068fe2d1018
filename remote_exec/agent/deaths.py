"""Death certificates: from how a worker was reaped to what killed it, in one sentence; and who asks for them."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..model.errors import ProtocolError
from ..model.job import Cause, DeathCertificate
from ..wire.messages import from_plain
from ..wire.protocol import WorkerExited, WorkerLost
from ..worker.guards import CANCELLED_EXIT, TIMED_OUT_EXIT
from ..worker.joblog import LOG_NAME, LogReader, LogWriter, Stream
from ..worker.output import from_text
from ..worker.private import make_private_folder

if TYPE_CHECKING:
    from .service import Agent

LAST_LINES = 20
KEPT = 256
HOST_ENDED = "host-ended.json"
END_SECONDS = 15.0  # from the end of a worker's stream to its own, at most

Heard = Callable[[WorkerLost], None]


class Deaths:
    """How the workers of leases died. Owned by the loop's thread.

    Most clients are told at once and never ask. One whose agent has died asks the next; so does a job that the
    next agent recovers.
    """

    def __init__(self) -> None:
        self._lost: dict[str, WorkerLost] = {}
        self._waiting: dict[str, list[Heard]] = {}

    def note(self, lost: WorkerLost) -> None:
        """Keep what is known of a death, and tell it to those who have asked; the first word counts."""
        self._lost.setdefault(lost.lease, lost)
        if len(self._lost) > KEPT:
            del self._lost[next(iter(self._lost))]
        for hear in self._waiting.pop(lost.lease, []):
            hear(lost)

    def find(self, lease: str) -> WorkerLost | None:
        """Return how the worker of a lease died, if that is known."""
        return self._lost.get(lease)

    def wait(self, lease: str, hear: Heard) -> Callable[[], None]:
        """Be told of a death that is not known yet; the function returned withdraws that."""
        waiting = self._waiting.setdefault(lease, [])
        waiting.append(hear)

        def withdraw() -> None:
            with contextlib.suppress(ValueError):
                waiting.remove(hear)
            if not waiting and self._waiting.get(lease) is waiting:
                del self._waiting[lease]

        return withdraw


def when_told(agent: Agent, lease: str, then: Callable[[], None]) -> None:
    """Do something in the loop when it is known how the worker of a lease died, of which nothing comes any longer.

    Its process may take some time to end, with much memory, or a GPU, to be freed.
    """
    done = False

    def once() -> None:
        nonlocal done
        if not done:
            done = True
            withdraw()
            timer.cancel()
            then()

    def heard(_: WorkerLost) -> None:
        agent.reactor.soon(once)  # others are told of it first

    withdraw = agent.deaths.wait(lease, heard)
    timer = agent.reactor.after(0.0 if agent.deaths.find(lease) is not None else END_SECONDS, once)


def oom_kills() -> int:
    """Return how often the kernel has killed for want of memory since it booted; 0 where it does not tell."""
    with contextlib.suppress(OSError, ValueError), open("/proc/vmstat", encoding="ascii") as file:
        for line in file:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def certify(
    exited: WorkerExited,
    *,
    killed_for: str,
    oom_kills: int,
    log_folder: Path | None,
    peak_gpu_memory: int = 0,
    memory_bytes: int = 0,
) -> DeathCertificate:
    """Return the certificate of a worker that has been reaped.

    Args:
        exited: what its fork server told.
        killed_for: why the agent had it killed: "cancelled", "timed_out", "memory"; or empty.
        oom_kills: how many kills for want of memory the kernel has counted since the last death.
        log_folder: where its lease's log lies.
        peak_gpu_memory: the most that was seen in use on its GPUs.
        memory_bytes: how much memory the host has, or the container that it is; 0: unknown.
    """
    cause, message, evidence = Cause.EXITED, "", ""
    if exited.signal is not None:
        name = (
            signal.Signals(exited.signal).name if exited.signal in set(signal.Signals) else str(exited.signal)
        )
        cause, message = Cause.SIGNAL, f"it was killed by signal {exited.signal} ({name})"
    else:
        message = f"it ended itself with exit code {exited.exit_code}"
    if killed_for == "cancelled":
        cause, message = Cause.CANCELLED, "it did not heed the interrupt and was stopped"
    elif exited.exit_code == CANCELLED_EXIT:
        cause, message = Cause.CANCELLED, "it ended with the call that was cancelled, to free its GPUs"
    elif killed_for == "timed_out" or exited.exit_code == TIMED_OUT_EXIT:
        cause, message = Cause.TIMED_OUT, "it ran longer than max_runtime_in_seconds and was stopped"
    elif killed_for == "memory":
        cause, message = Cause.OUT_OF_MEMORY, "it used more memory than was asked for it and was stopped"
        evidence = "the agent measured more resident memory than the memory option grants"
    elif exited.signal == signal.SIGKILL and oom_kills > 0:
        cause, message = Cause.OUT_OF_MEMORY, "it was killed for want of memory"
        if memory_bytes:
            message += f", of which its host has {memory_bytes / 1e6:,.0f} MB"
        evidence = f"the kernel's count of out-of-memory kills rose by {oom_kills}"
    return DeathCertificate(
        cause=cause,
        message=message,
        pid=exited.pid,
        signal=exited.signal,
        exit_code=exited.exit_code,
        peak_memory=exited.peak_memory,
        peak_gpu_memory=peak_gpu_memory,
        oom_evidence=evidence,
        last_lines=_last_lines(exited, log_folder),
    )


def how_host_ended(home: Path, since: float) -> DeathCertificate:
    """Return how a worker died whose fork server is gone, too: with its host, if whoever restarted that has told.

    Args:
        home: the state directory, where a backend that restarts a host leaves how that had ended.
        since: when the worker was alive; UTC, seconds since the epoch.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, ProtocolError):
        told = json.loads((home / HOST_ENDED).read_text(encoding="utf-8"))
        if told["at"] >= since:
            return from_plain(DeathCertificate, told["certificate"])
    return DeathCertificate(
        cause=Cause.HOST_LOST, message="its worker and its fork server are gone; how it died is unknown"
    )


def keep_rest(exited: WorkerExited, folder: Path, *, limit_bytes: int) -> tuple[str, str]:
    """Add to its lease's log what a dead worker had printed and nobody had taken in; return it, stdout and stderr."""
    out, err = exited.rest
    err = "".join(line for line in err.splitlines(keepends=True) if not _is_machinery(line))
    texts: tuple[tuple[Stream, str], ...] = (("out", out), ("err", err))
    if out or err:
        with contextlib.suppress(OSError):  # a full disk: the client is told all the same
            make_private_folder(folder)
            with LogWriter(folder / LOG_NAME, limit_bytes=limit_bytes) as log:
                for stream, text in texts:
                    if text:
                        log.write(stream, from_text(text), call=exited.begun)
    return out, err


def _last_lines(exited: WorkerExited, folder: Path | None) -> tuple[str, ...]:
    logged: list[str] = []
    if folder is not None and folder.is_dir():
        with contextlib.suppress(OSError):
            call = exited.begun if exited.running else 0
            logged = LogReader(folder / LOG_NAME).tail_lines(LAST_LINES, call=call)
    lines = [line for line in (*logged, *exited.last_lines) if not _is_machinery(line)]
    return tuple(lines[-LAST_LINES:])


def _is_machinery(line: str) -> bool:
    """Whether it is a line of a fault handler's stack that tells of this project's own frames."""
    return line.startswith('  File "') and (
        "/remote_exec_runtime/" in line or '"<string>", line 1 in' in line
    )
