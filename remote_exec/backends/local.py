"""This very machine: the agent is a process of this user, reached over a unix socket."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ..model.errors import HostUnavailable
from ..model.layout import Layout
from ..wire.credentials import peer_uid

BOOT = (
    "import sys; sys.path.append(sys.argv[1]); from remote_exec_runtime.agent.early import begin; "
    "sys.exit(begin(*sys.argv[1:]))"
)
CONNECT_SECONDS = 20.0
END_SECONDS = 1.0
NAP_SECONDS = 0.01


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
        _make_sure_of(folder)
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


def _make_sure_of(folder: Path) -> None:
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
    layout.home.mkdir(parents=True, exist_ok=True, mode=0o700)
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
_begun: dict[Layout, tuple[socket.socket, int]] = {}
_asked: set[Layout] = set()
_lock = threading.Lock()


def begin(layout: Layout, unpack: Callable[[], Path], *, version: str, variables: Mapping[str, str]) -> None:
    """Connect to an agent, or start one, for `reach` to go on with; only the first time does anything.

    The arguments are those of `reach`.

    Raises:
        HostUnavailable: none could be started.
    """
    with _lock:
        if layout not in _asked:
            _asked.add(layout)
            _begun[layout] = _connect_or_launch(layout, unpack, version, variables)


def _connect_or_launch(
    layout: Layout, unpack: Callable[[], Path], version: str, variables: Mapping[str, str]
) -> tuple[socket.socket, int]:
    sock = connect(layout)
    return (sock, 0) if sock else launch(layout, unpack(), version=version, variables=variables)


def _take_begun(layout: Layout) -> tuple[socket.socket, int] | None:
    with _lock:
        _asked.add(layout)
        return _begun.pop(layout, None)


def let_go() -> None:
    """Close what was begun and not gone on with; also in a forked child, whose parent goes on with its own."""
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held it
    for sock, _ in _begun.values():
        sock.close()
    _begun.clear()
    _asked.clear()


def reach(
    layout: Layout,
    unpack: Callable[[], Path],
    greet: Callable[[socket.socket], bool],
    *,
    version: str,
    variables: Mapping[str, str],
) -> socket.socket:
    """Return a greeted connection to an agent, started if there is none.

    Args:
        layout: where the agent lives.
        unpack: lays the runtime out and returns where.
        greet: says hello; False when that agent ended or gives way, so that another is to be sought.
        version: of this client.
        variables: as for `launch`.

    Raises:
        HostUnavailable: none could be reached in time.
    """
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        sock, pid = _take_begun(layout) or _connect_or_launch(layout, unpack, version, variables)
        if greet(sock):
            return sock
        sock.close()
        if pid and _has_failed(pid):
            raise HostUnavailable(
                f"the agent cannot start: {_last_words(layout.agent_log)}",
                hint=f"see {layout.agent_log}, or: remote-exec doctor",
            )
        if time.monotonic() > deadline:
            raise HostUnavailable(
                "the agent of this machine does not answer",
                hint=f"see {layout.agent_log}, or: remote-exec doctor",
            )
        time.sleep(NAP_SECONDS)


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


def _last_words(log: Path) -> str:
    """Return the last line of a log that is no hint."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return "why is unknown"
    return next((line for line in reversed(lines) if line and line[0] != " "), "why is unknown")
