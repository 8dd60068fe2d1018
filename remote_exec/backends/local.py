"""This very machine: the agent is a process of this user, reached over a unix socket."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..model.errors import HostUnavailable
from ..model.layout import Layout
from ..model.record import record
from ..version import VERSION
from ..wire.credentials import peer_uid
from ..worker.private import make_private_folder
from . import runtime
from .host import Greet
from .variables import meaningful

if TYPE_CHECKING:
    from ..model.job import DeathCertificate

CONNECT_SECONDS = 20.0
END_SECONDS = 1.0
NAP_SECONDS = 0.01


@record
class LocalHost:
    """This machine, with one of the state directories that an agent may have on it."""

    layout: Layout

    @property
    def name(self) -> str:
        """What lists and messages call it."""
        return "local"

    @property
    def here(self) -> bool:
        """It is this very machine."""
        return True

    def reach(self, greet: Greet) -> socket.socket:
        """Return a greeted connection to the agent, started if there is none.

        Raises:
            HostUnavailable: none could be reached in time.
        """
        deadline = time.monotonic() + CONNECT_SECONDS
        while True:
            sock, pid = _take_begun(self) or _connect_or_launch(self)
            if greet(sock):
                return sock
            sock.close()
            log = self.layout.agent_log
            if pid and _has_failed(pid):
                from ..agent.launch import last_words

                raise HostUnavailable(
                    f"the agent cannot start: {last_words(log)}", hint=f"see {log}, or: remote-exec doctor"
                )
            if time.monotonic() > deadline:
                raise HostUnavailable(
                    "the agent of this machine does not answer", hint=f"see {log}, or: remote-exec doctor"
                )
            time.sleep(NAP_SECONDS)

    def how_lost(self, since: float) -> DeathCertificate | None:
        """This machine is not lost."""
        return None

    def connect(self) -> socket.socket:
        """Return one more connection to the agent.

        Raises:
            HostUnavailable: there is none.
        """
        sock = connect(self.layout)
        if sock is None:
            raise HostUnavailable(
                "the agent of this machine is gone", hint="call again: another will be started"
            )
        return sock


def here() -> LocalHost:
    """Return this machine, with the state directory that the environment variables ask for now."""
    return LocalHost(Layout.of(os.environ))


def connect(layout: Layout) -> socket.socket | None:
    """Return a connection to the agent that is there, or None.

    Raises:
        HostUnavailable: something of another user listens there.
    """
    sock = _connect(layout.agent_socket)
    if sock is None and (noted := _noted_socket(layout)) is not None:
        sock = _connect(noted)
    return sock


def _connect(path: Path) -> socket.socket | None:
    for folder in (path.parent.parent, path.parent):
        make_sure_of(folder)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    if peer_uid(sock) != os.getuid():
        sock.close()
        raise HostUnavailable(
            f"what listens at {path} belongs to another user",
            hint="set REMOTE_EXEC_HOME or XDG_RUNTIME_DIR to a directory of your own",
        )
    return sock


def make_sure_of(folder: Path) -> None:
    """See to it that a folder of sockets, if it is there, is a folder of this user's and closed to all others.

    Raises:
        HostUnavailable: somebody else could have put it there, as anybody can in /tmp.
    """
    try:
        found = os.lstat(folder)
    except FileNotFoundError:
        return
    if stat.S_ISLNK(found.st_mode):
        wrong = "is a symbolic link"
    elif not stat.S_ISDIR(found.st_mode):
        wrong = "is not a folder"
    elif found.st_uid != os.getuid():
        wrong = f"belongs to another user (uid {found.st_uid})"
    else:
        if found.st_mode & 0o077:
            os.chmod(folder, 0o700)
        return
    raise HostUnavailable(
        f"the folder of the agent's sockets is not to be trusted: {folder} {wrong}",
        hint="remove it, or set XDG_RUNTIME_DIR to a folder of your own",
    )


def _noted_socket(layout: Layout) -> Path | None:
    """Where the agent says that it listens, if elsewhere: who started it may have another XDG_RUNTIME_DIR."""
    try:
        _, folder, *_ = layout.agent_lock.read_text().splitlines()
    except (OSError, ValueError):
        return None
    noted = Path(folder, layout.agent_socket.name)
    return noted if noted != layout.agent_socket else None


def launch(
    layout: Layout, runtime: Path, *, version: str, variables: Mapping[str, str]
) -> tuple[socket.socket, int]:
    """Start an agent and return its first connection and its process id.

    Started twice at once, one wins, and the other ends; its connection does, too.

    `variables` are those of this process's own pools: it is for one of them that the agent starts a fork server.
    """
    from ..agent.early import BOOT

    make_private_folder(layout.home)
    ours, theirs = socket.socketpair()
    log = os.open(layout.agent_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    # The base interpreter outlives the virtual environment, and starts without it.
    python = getattr(sys, "_base_executable", None) or sys.executable
    dropped = ",".join(os.environ.keys() - variables.keys())
    told = (
        str(runtime),
        runtime.name,
        version,
        str(layout.home),
        str(layout.sockets),
        sys.executable,
        dropped,
    )
    try:
        pid = os.posix_spawn(
            python,
            [python, "-I", "-S", "-c", BOOT, *told],
            # which GPUs are seen is each caller's to say, and what it says its own calls bring along
            {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), 3),
            ],
            setsid=sys.platform == "linux",
        )
    except OSError as error:
        ours.close()
        raise HostUnavailable(f"the agent could not be started: {error}") from error
    finally:
        theirs.close()
        os.close(log)
    return ours, pid


# Connections that were begun for `reach` to go on with, with the process ids of agents that were started for them.
_begun: dict[LocalHost, tuple[socket.socket, int]] = {}
_asked: set[LocalHost] = set()
_lock = threading.Lock()


def begin(host: LocalHost) -> None:
    """Connect to an agent, or start one, for `reach` to go on with; only the first time does anything.

    Raises:
        HostUnavailable: none could be started.
    """
    with _lock:
        if host not in _asked:
            _asked.add(host)
            _begun[host] = _connect_or_launch(host)


def _connect_or_launch(host: LocalHost) -> tuple[socket.socket, int]:
    layout = host.layout
    sock = connect(layout)
    if sock is not None:
        return sock, 0
    place = runtime.unpack(layout.runtimes)
    return launch(layout, place, version=VERSION, variables=meaningful(os.environ))


def _take_begun(host: LocalHost) -> tuple[socket.socket, int] | None:
    with _lock:
        _asked.add(host)
        return _begun.pop(host, None)


def let_go() -> None:
    """Close what was begun and not gone on with; also in a forked child, whose parent goes on with its own."""
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held it
    for sock, _ in _begun.values():
        sock.close()
    _begun.clear()
    _asked.clear()


def _has_failed(pid: int) -> bool:
    """Whether an agent that was started ended with an error; one that found another there did not."""
    deadline = time.monotonic() + END_SECONDS
    with contextlib.suppress(ChildProcessError):  # somebody else has waited for it
        while time.monotonic() < deadline:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status) > 0
            time.sleep(NAP_SECONDS)
    return False
