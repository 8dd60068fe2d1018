"""A job's environment variables, kept apart from its record: they may be secret, and it may have to be run again."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

from ..model.pool import PoolSpec
from ..wire.messages import from_plain
from ..worker.private import make_private_folder

if TYPE_CHECKING:
    from .service import Agent


def keep(agent: Agent, name: str, variables: dict[str, str]) -> None:
    """Write them down.

    Raises:
        OSError: that cannot be done.
    """
    path = _file(agent, name)
    make_private_folder(os.path.dirname(path))
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        json.dump(variables, file)
        file.flush()
        os.fsync(file.fileno())


def forget(agent: Agent, name: str) -> None:
    """Remove them: the job has ended."""
    with contextlib.suppress(OSError):
        os.unlink(_file(agent, name))


def pool_spec(agent: Agent, name: str, told: dict[str, Any]) -> PoolSpec:
    """Return the pool of a job, with its variables.

    Raises:
        OSError: they cannot be read.
    """
    with open(_file(agent, name), encoding="utf-8") as file:
        variables = json.load(file)
    found = from_plain(PoolSpec, {**told, "variables": variables})
    pool = agent.pools.pools.get(found.key)
    # A thousand jobs that wait need not hold a thousand of it. (An adopted pool's lacks the variables.)
    return pool.spec if pool is not None and pool.spec == found else found


def _file(agent: Agent, name: str) -> str:
    return str(agent.layout.jobs / name / "variables.json")
