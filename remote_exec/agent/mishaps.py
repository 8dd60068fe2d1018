"""What nobody foresaw, in the midst of the agent's own work: whoever waits for what fails by it is told.

A disk that is full, no descriptor left, a file where a folder is to be, a mistake of ours: each may raise anywhere. An
instruction that fails so becomes the event that tells the pools that it did, or the refusal of a lease.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from ..model.errors import RemoteExecError
from . import pool_events as events
from .uploads import error_of

if TYPE_CHECKING:
    from .service import Agent

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def logged(what: str) -> Generator[None]:
    """Go on after what is done within, though it fails: what comes then must not wait for ever."""
    try:
        yield
    except Exception:
        _log.exception("%s could not be kept", what)


def decided_wrong(event: events.Event, error: Exception) -> list[events.Instruction]:
    """Return what to do instead when the pools fail to take in an event."""
    _log.error("a %s could not be taken in", type(event).__name__, exc_info=error)
    if not isinstance(event, events.LeaseRequested):
        return []
    told = error_of(error)
    return [events.RefuseLease(event.lease, type(told).__name__, told.message, hint=told.hint)]


def not_carried_out(agent: Agent, instruction: events.Instruction, error: Exception) -> None:
    """Have those hear of it who wait for what an instruction was to bring."""
    name = type(instruction).__name__
    _log.error("a %s could not be carried out", name, exc_info=error)
    told = error_of(error)
    answer = _ANSWERS.get(type(instruction))
    if answer is not None:
        # not now: other instructions of the same event have yet to be carried out
        agent.reactor.soon(lambda: answer(agent, instruction, told))


def _not_prepared(agent: Agent, instruction: events.PrepareEnvironment, error: RemoteExecError) -> None:
    text = f"the environment could not be prepared: {error.message}"
    now = time.monotonic()
    agent.happen(
        events.EnvironmentFailed(now, instruction.pool, "RuntimeEnvironmentError", text, hint=error.hint)
    )


def _not_started(agent: Agent, instruction: events.StartForkServer, error: RemoteExecError) -> None:
    if instruction.pool in agent.processes.fork_servers:
        agent.processes.kill(instruction.pool, error.message)  # its end is told as any other's is
    else:
        agent.happen(events.ForkServerLost(time.monotonic(), instruction.pool, error.message))


def _not_forked(agent: Agent, instruction: events.ForkWorker, error: RemoteExecError) -> None:
    agent._signal(instruction.pool, instruction.worker, signal.SIGKILL)  # if it was, after all
    agent.processes.forget_worker(instruction.pool, instruction.worker)
    agent.happen(events.ForkFailed(time.monotonic(), instruction.pool, instruction.worker, error.message))


def _not_attached(agent: Agent, instruction: events.AttachWorker, error: RemoteExecError) -> None:
    """How much of the lease its worker has is not known, so it ends, and its end frees what it holds."""
    name = type(error).__name__
    agent._refuse(events.RefuseLease(instruction.lease, name, error.message, hint=error.hint))
    agent._signal(instruction.pool, instruction.worker, signal.SIGKILL)


_ANSWERS: dict[type, Callable[..., None]] = {
    events.PrepareEnvironment: _not_prepared,
    events.StartForkServer: _not_started,
    events.ForkWorker: _not_forked,
    events.AttachWorker: _not_attached,
}
