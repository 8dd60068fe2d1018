"""Environments for pools: found or built, held for as long as somebody runs in them, a fork server started in each.

It carries out `PrepareEnvironment` and `StartForkServer`. Looking at an environment and building one may take long,
so that runs in threads; all else, and all state, is the loop's thread's. What an environment is and how it is kept
are `environments`'.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping
from concurrent.futures import CancelledError
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..model.environment import EnvironmentKind, EnvironmentSpec
from ..model.errors import RuntimeEnvironmentError
from ..model.layout import Layout
from ..model.pool import PoolSpec
from ..wire import protocol
from . import pool_events as events
from .adoption import note_fork_server
from .early import add_persistent_cache

if TYPE_CHECKING:
    from .environments import Environment
    from .service import Agent

_log = logging.getLogger(__name__)

OWN_PYTHON = os.path.realpath(sys.executable)  # at the agent's start: it may be replaced
OWN_VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"


class Provision:
    """Of one agent."""

    def __init__(self, agent: Agent, log_fd: int) -> None:
        self._agent = agent
        self._log_fd = log_fd
        # from `EnvironmentReady` to the fork server's start, by pool, with the descriptor that holds it
        self._taken: dict[str, tuple[Environment, int | None]] = {}
        self.uv = ""  # where a client's uv lies
        self._pythons: dict[str, None] = {}

    def use_python(self, path: str) -> None:
        """Have an interpreter that a client of this host runs among those that environments are built on."""
        if os.path.isabs(path):
            self._pythons[path] = None

    def prepare(self, instruction: events.PrepareEnvironment) -> None:
        """Find or build a pool's environment."""
        spec, pool = instruction.spec.environment, instruction.pool
        if python := _this_python(spec):
            self._agent.reactor.soon(lambda: self._happen(events.EnvironmentReady, pool, python))
            return
        store = self._agent.environments
        store.uv = Path(self.uv) if self.uv else None
        store.pythons = [Path(path) for path in self._pythons]

        def tell(line: str) -> None:
            self._agent.reactor.call_from_thread(lambda: self._tell(pool, line))

        def unwanted() -> bool:
            state = self._agent.pools.pools.get(pool)
            return state is None or not state.queue

        def done(taken: Any, error: BaseException | None) -> None:
            if isinstance(error, CancelledError) and not unwanted():
                self.prepare(instruction)  # somebody wants it again
                return
            if error is not None:
                self._failed(pool, error)
                return
            self._taken[pool] = taken
            self._happen(events.EnvironmentReady, pool, str(taken[0].python))
            self._let_go(pool)  # unless a fork server has it

        # The caller's index, cache and proxy settings count, not those of whoever started this agent.
        variables = _variables(instruction.spec)
        if instruction.spec.inherit:  # this is not its client's machine
            variables = in_one_folder(self._agent.layout, variables)
        self._agent.reactor.in_thread(lambda: store.take(spec, tell, unwanted, environ=variables), done)

    def start(self, instruction: events.StartForkServer) -> None:
        """Start a pool's fork server in the environment that was prepared for it."""
        agent, spec, pool = self._agent, instruction.spec, instruction.pool
        environment, held = self._taken.get(pool, (None, None))
        variables = _variables(spec)
        add_persistent_cache(variables, str(agent.layout.home))
        if environment is not None:
            _enter(environment, variables)
        try:
            server = agent.processes.start(pool, instruction.python, variables, self._log_fd, held)
            note_fork_server(agent, server, spec, instruction.python)
        except OSError as error:
            reason = str(error)
            agent.reactor.soon(lambda: self._happen(events.ForkServerLost, pool, reason))
        self._let_go(pool)

    def _failed(self, pool: str, error: BaseException) -> None:
        if isinstance(error, CancelledError):
            error = RuntimeEnvironmentError("nobody waited for the environment any longer")
        elif not isinstance(error, RuntimeEnvironmentError):
            _log.error("preparing an environment failed", exc_info=error)
            error = RuntimeEnvironmentError(f"the environment could not be prepared: {error}")
        name = type(error).__name__
        self._happen(events.EnvironmentFailed, pool, name, error.message, error.output, error.hint)

    def _happen(self, event: Any, *about: Any) -> None:
        self._agent.happen(event(time.monotonic(), *about))

    def _tell(self, pool: str, line: str) -> None:
        """Tell all who wait for a pool what its build is at."""
        state = self._agent.pools.pools.get(pool)
        for waiting in state.queue if state is not None else ():
            self._agent._tell_lease(waiting.lease, protocol.LeaseWaits(waiting.lease, "environment", line))

    def _let_go(self, pool: str) -> None:
        _, held = self._taken.pop(pool, (None, None))
        if held is not None:
            os.close(held)


def _this_python(spec: EnvironmentSpec) -> str:
    """Return the path of the interpreter that runs this very agent, where it is wanted: it need not be asked."""
    if spec.kind is not EnvironmentKind.INTERPRETER or spec.python != OWN_VERSION:
        return ""
    path = spec.name or sys.executable
    same = not spec.name or os.path.realpath(path) == OWN_PYTHON
    return path if same and os.access(path, os.X_OK) else ""


def in_one_folder(layout: Layout, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables with which uv writes nothing outside of the agent's folder, unless the host says where."""
    return {**layout.uv_variables, **environ}


def _variables(spec: PoolSpec) -> dict[str, str]:
    return {**os.environ, **spec.variables} if spec.inherit else dict(spec.variables)


def _enter(environment: Environment, variables: dict[str, str]) -> None:
    """Set what an environment's activation would: a caller's own has nothing, and is used as it is."""
    if environment.variables:
        variables.update(environment.variables)
        path = variables.get("PATH") or os.defpath
        variables["PATH"] = os.pathsep.join((str(environment.bin_folder), path))
