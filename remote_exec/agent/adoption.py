"""Fork servers outlive their agent. The next one finds them in the journal, and takes them over."""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import TYPE_CHECKING

from ..model.errors import ProtocolError
from ..model.job import ForkServerRecord
from ..model.pool import Asked, PoolSpec
from ..wire import protocol
from ..wire.messages import from_plain, to_plain
from .leases import LeaseEntry

if TYPE_CHECKING:
    from .processes import ForkServerLink
    from .service import Agent


def note_fork_server(agent: Agent, server: ForkServerLink, spec: PoolSpec, python: str) -> None:
    """Write down a fork server that was started, without its variables, which may be secret."""
    plain = to_plain(spec)
    plain["variables"] = {}
    state = agent.pools.pools[server.pool]
    kept = {
        "spec": plain,
        "python": python,
        "keep_alive_seconds": state.keep_alive_seconds,
        "asked": to_plain(state.asked),
    }
    agent.journal.add_fork_server(
        ForkServerRecord(
            id=server.pool,
            pid=server.pid,
            socket=server.socket_path,
            pool_key=json.dumps(kept),
            started_at=time.time(),
        )
    )


def adopt(agent: Agent) -> int:
    """Connect to every fork server that is still there; return how many."""
    adopted = 0
    for record in agent.journal.fork_servers():
        try:
            kept = json.loads(record.pool_key)
            spec, asked = from_plain(PoolSpec, kept["spec"]), from_plain(Asked, kept.get("asked", {}))
            agent.processes.connect(record.id, record.pid, record.socket)
        except (OSError, ValueError, KeyError, ProtocolError):
            agent.journal.remove_fork_server(record.id)
            with contextlib.suppress(OSError):
                os.unlink(record.socket)
            continue
        agent.pools.adopt(
            record.id,
            spec,
            python=kept["python"],
            keep_alive_seconds=kept["keep_alive_seconds"],
            now=time.monotonic(),
            asked=asked,
        )
        adopted += 1
    return adopted


def adopted_lease(ready: protocol.WorkerReady, pool: str, worker: int) -> LeaseEntry:
    """Return the entry of a lease that a former agent gave; its client is not connected to this one."""
    request = protocol.RequestLease(
        lease=ready.lease,
        pool=from_plain(PoolSpec, _NOTHING),
        bundle="",
        import_roots=(),
        preload=(),
        keep_alive_seconds=0.0,
        max_workers=1,
    )
    return LeaseEntry(ready.lease, None, [], request, pool=pool, worker=worker, pid=ready.pid)


_NOTHING = {"environment": {"kind": "interpreter", "python": ""}, "variables": {}}
