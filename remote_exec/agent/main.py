"""The agent's process: serve, end.

Started by a client through `early`, with a connected socket as descriptor 3: the first client. Held by a file lock;
who does not get it ends at once, and its client goes to the agent that is there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket

from ..model.layout import Layout
from .early import Spare
from .reactor import Reactor
from .service import Agent

_log = logging.getLogger(__name__)


def main(runtime: str, digest: str, version: str, spare: Spare | None) -> int:
    """Run the agent; return its exit code. `early.begin` has made it the only one."""
    layout = Layout.of(os.environ)
    logging.basicConfig(
        filename=layout.agent_log,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    listener = _listen(layout)
    reactor = Reactor()
    agent = Agent(layout, reactor, runtime=runtime, digest=digest, version=version, spare=spare)
    signal.signal(signal.SIGTERM, lambda _number, _frame: reactor.call_from_thread(agent.stop))
    reactor.watch(listener.fileno(), lambda: agent.accept(listener))
    with contextlib.suppress(OSError):
        agent.add_client(socket.socket(fileno=3))
    agent.recover()
    _log.info("agent %s of version %s serves %s", os.getpid(), version, layout.home)
    reactor.run()
    agent.processes.end_spare()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(layout.agent_socket)
    agent.journal.close()
    _log.info("agent %s ends", os.getpid())
    return 0


def _listen(layout: Layout) -> socket.socket:
    path = str(layout.agent_socket)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # stale: its agent would hold the lock
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(64)
    listener.setblocking(False)
    return listener
