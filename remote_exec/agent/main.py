"""The agent's process: become the one agent of this user and state directory, serve, end.

Started by a client as ``python -I -S start_agent.py``, with a connected socket as descriptor 3: the first client.
Held by a file lock; who does not get it ends at once, and its client goes to the agent that is there.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import socket
import sys

from ..model.layout import Layout
from .reactor import Reactor
from .service import Agent

_log = logging.getLogger(__name__)


def main(runtime: str, digest: str, version: str) -> int:
    """Run the agent; return its exit code."""
    os.umask(0o077)
    os.chdir("/")
    layout = Layout.of(os.environ)
    layout.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    _private(layout.home)
    lock = os.open(layout.agent_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0
    logging.basicConfig(
        filename=layout.agent_log,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _make_sockets_folder(layout)
    listener = _listen(layout)
    reactor = Reactor()
    agent = Agent(layout, reactor, runtime=runtime, digest=digest, version=version)
    signal.signal(signal.SIGTERM, lambda *_: reactor.call_from_thread(agent.stop))
    reactor.watch(listener.fileno(), lambda: agent.accept(listener))
    with contextlib.suppress(OSError):
        agent.add_client(socket.socket(fileno=3))
    agent.recover()
    _log.info("agent %s of version %s serves %s", os.getpid(), version, layout.home)
    reactor.run()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(layout.agent_socket)
    agent.journal.close()
    _log.info("agent %s ends", os.getpid())
    return 0


def _make_sockets_folder(layout: Layout) -> None:
    """Make the folder of the sockets, and see that nobody else could have made it."""
    for folder in (layout.sockets.parent, layout.sockets):
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        _private(folder)


def _private(folder: os.PathLike[str]) -> None:
    found = os.lstat(folder)
    if found.st_uid != os.getuid():
        sys.exit(f"{folder} belongs to another user; set REMOTE_EXEC_HOME or XDG_RUNTIME_DIR")
    if found.st_mode & 0o077:
        os.chmod(folder, 0o700)


def _listen(layout: Layout) -> socket.socket:
    path = str(layout.agent_socket)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # stale: its agent would hold the lock
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(64)
    listener.setblocking(False)
    return listener
