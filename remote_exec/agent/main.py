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
from collections.abc import Callable

from ..model.layout import Layout
from ..worker.runtime import hold
from .early import Spare, make_private
from .reactor import Reactor
from .service import Agent

_log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0  # less than a client's patience


def main(runtime: str, digest: str, version: str, spare: Spare | None) -> int:
    """Run the agent; return its exit code. `early.begin` has made it the only one."""
    layout = Layout.of(os.environ)
    hold()
    logging.basicConfig(
        filename=layout.agent_log,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    reactor = Reactor()
    door = _Door(layout, reactor, lambda listener: agent.clients.accept(listener))
    door.open()
    try:
        agent = Agent(layout, reactor, runtime=runtime, digest=digest, version=version, spare=spare)
    except BaseException:
        door.remove()
        if spare is not None:  # nobody else knows of it yet
            os.kill(spare.pid, signal.SIGKILL)
            os.waitpid(spare.pid, 0)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(spare.path)
        raise
    signal.signal(signal.SIGTERM, lambda _number, _frame: reactor.call_from_thread(agent.stop))
    with contextlib.suppress(OSError):
        agent.clients.add(socket.socket(fileno=3))
    agent.recover()
    _log.info("agent %s of version %s serves %s", os.getpid(), version, layout.home)
    reactor.run()
    agent.processes.end_spare()
    door.remove()
    agent.journal.close()
    _log.info("agent %s ends", os.getpid())
    return 0


class _Door:
    """The socket that clients connect to; made anew when it is removed, as XDG_RUNTIME_DIR is at a logout."""

    def __init__(self, layout: Layout, reactor: Reactor, on_knock: Callable[[socket.socket], None]) -> None:
        self._layout, self._reactor, self._on_knock = layout, reactor, on_knock
        self._listener: socket.socket | None = None

    def open(self) -> None:
        """Listen, and see to it that the socket stays there.

        Raises:
            OSError: it cannot be made.
        """
        path = str(self._layout.agent_socket)
        self.remove()  # stale: its agent would hold the lock
        if self._listener is not None:
            self._reactor.unwatch(self._listener.fileno())
            self._listener.close()
        self._listener = listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        listener.listen(64)
        listener.setblocking(False)
        self._reactor.watch(listener.fileno(), lambda: self._on_knock(listener))
        self._reactor.after(LOOK_SECONDS, self._look)

    def remove(self) -> None:
        """Take the socket's name away."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._layout.agent_socket)

    def _look(self) -> None:
        folder = self._layout.sockets
        if not os.path.exists(self._layout.agent_socket):
            with contextlib.suppress(OSError, SystemExit):  # not to be had now: look again
                make_private(str(folder.parent))
                make_private(str(folder))
                self.open()
                return
        self._reactor.after(LOOK_SECONDS, self._look)
