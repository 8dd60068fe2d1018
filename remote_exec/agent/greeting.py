"""A client's first word: whose version gives way, and which settings hold from now on."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any

from ..model.versions import numbers_of
from ..wire import protocol
from . import pool_events as events
from .provision import OWN_VERSION

if TYPE_CHECKING:
    from .leases import Client
    from .service import Agent

_log = logging.getLogger(__name__)


def greet(agent: Agent, client: Client, hello: protocol.Hello) -> None:
    """An older client leaves a newer agent alone; a newer one has an idle older agent give way."""
    client.version, client.pid = hello.version, hello.pid
    newer = numbers_of(hello.version) > numbers_of(agent.version) or (
        hello.version == agent.version and hello.runtime != agent.digest
    )
    others = any(one is not client and not one.looks for one in agent.clients.connected.values())
    busy = others or bool(agent.leases or agent.jobs)
    accepted = hello.protocol == protocol.PROTOCOL and (busy or not newer)
    client.greeted = accepted
    client.link.send(
        protocol.Welcome(
            protocol.PROTOCOL,
            agent.version,
            agent.digest,
            os.getpid(),
            accepted,
            OWN_VERSION,
            agent.host.cpus,
        )
    )
    if client.looks:
        agent.settle()
    if accepted:
        _take_settings(agent, hello.settings)
        agent.provision.use_python(hello.interpreter)
    elif newer:
        _log.info("giving way to version %s%s", hello.version, " when idle" if busy else "")
        agent.superseded = True
        if not busy:
            agent.reactor.after(0.05, agent.stop)


def _take_settings(agent: Agent, told: dict[str, Any]) -> None:
    """Let a client's configuration hold from now on, if it says anything about the agent."""
    before = agent.settings
    try:
        agent.settings = before.told(told, os.environ)
    except (TypeError, ValueError) as error:
        _log.warning("a client's settings are not understood: %s", error)
    if agent.settings.quotas != before.quotas:
        agent.happen(events.QuotasSet(time.monotonic(), agent.settings.quotas))
