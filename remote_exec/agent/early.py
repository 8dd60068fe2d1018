"""The first moments of an agent's process, before its own imports: become the one agent, start a spare fork server.

An agent and the fork server of its first pool take about as long to start; started one after the other they are most
of what a user's very first call waits for. The client says which Python its pool will want; a fork server for it
starts while this process is still importing. If the first pool turns out to be another, the spare ends.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import sys
from typing import NamedTuple

BOOT = (
    "import sys; sys.path.append(sys.argv[1]); from remote_exec_runtime.agent.early import begin; "
    "sys.exit(begin(*sys.argv[1:]))"
)
FORK_SERVER = (
    "import sys; sys.path[:] = [p for p in sys.path if p]; sys.path.append(sys.argv[1]); "
    "from remote_exec_runtime.worker.forkserver import main; main(sys.argv[2], 3)"
)


class Spare(NamedTuple):
    """A fork server that belongs to no pool yet."""

    python: str
    variables: dict[str, str]
    control: socket.socket
    pid: int
    path: str
    log_from: int  # where in the agent's log its output begins


def begin(runtime: str, digest: str, version: str, home: str, sockets: str, python: str, dropped: str) -> int:
    """Run an agent; return its exit code.

    Args:
        runtime: the folder of the carried runtime.
        digest: the runtime's digest.
        version: of the client that starts this agent.
        home: the agent's state directory.
        sockets: where its sockets go.
        python: of the fork server to start at once; empty: none.
        dropped: names of the variables that this fork server does not get, with commas between.
    """
    os.umask(0o077)
    os.chdir("/")
    os.makedirs(home, mode=0o700, exist_ok=True)
    lock = os.open(os.path.join(home, "agent.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0
    for folder in (os.path.dirname(sockets), sockets):
        make_private(folder)
    make_private(home)
    os.ftruncate(lock, 0)
    os.pwrite(lock, os.fsencode(f"{os.getpid()}\n{sockets}\n"), 0)  # for clients with another XDG_RUNTIME_DIR
    spare = _start_spare(runtime, home, sockets, python, set(dropped.split(","))) if python else None
    from .main import main

    return main(runtime, digest, version, spare)


def spawn_fork_server(
    python: str,
    runtime: str,
    path: str,
    variables: dict[str, str],
    *,
    control: int,
    log: int,
    held: int | None = None,
) -> int:
    """Start a fork server and return its pid.

    Args:
        python: of its environment.
        runtime: the folder of the carried runtime.
        path: where it listens.
        variables: its environment variables.
        control: the socket over which it is told what to do; becomes descriptor 3.
        log: where its output goes.
        held: the lock that says its environment is in use; becomes descriptor 4, which its workers keep too.

    Raises:
        OSError: its Python could not be run.
    """
    # a number that is not overwritten before it is used
    lock = None if held is None else fcntl.fcntl(held, fcntl.F_DUPFD_CLOEXEC, 10)
    try:
        return os.posix_spawn(
            python,
            [python, "-c", FORK_SERVER, runtime, path],
            variables,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
                (os.POSIX_SPAWN_DUP2, control, 3),
                (os.POSIX_SPAWN_OPEN, 4, os.devnull, os.O_RDONLY, 0)
                if lock is None
                else (os.POSIX_SPAWN_DUP2, lock, 4),
            ],
            setsid=sys.platform == "linux",
        )
    finally:
        if lock is not None:
            os.close(lock)


def add_persistent_cache(variables: dict[str, str], home: str) -> None:
    """Tell functions of a folder for their own downloads, under our name and SageMaker's, unless the user did."""
    folder = os.path.join(home, "cache", "persistent")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    for name in ("REMOTE_EXEC_PERSISTENT_CACHE", "SAGEMAKER_MANAGED_WARMPOOL_CACHE_DIRECTORY"):
        variables.setdefault(name, folder)


def _start_spare(runtime: str, home: str, sockets: str, python: str, dropped: set[str]) -> Spare | None:
    variables = {name: value for name, value in os.environ.items() if name not in dropped}
    add_persistent_cache(variables, home)
    path = os.path.join(sockets, f"f-{os.getpid()}")
    ours, theirs = socket.socketpair()
    log_from = os.fstat(2).st_size
    try:
        pid = spawn_fork_server(python, runtime, path, variables, control=theirs.fileno(), log=2)
    except OSError:
        ours.close()
        return None
    finally:
        theirs.close()
    return Spare(python, variables, ours, pid, path, log_from)


def make_private(folder: str) -> None:
    """Make a folder that is this user's alone, and see that nobody else could have made it."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    found = os.lstat(folder)
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
        sys.exit(f"{folder} belongs to another user or is a link; set REMOTE_EXEC_HOME or XDG_RUNTIME_DIR")
    if found.st_mode & 0o077:
        os.chmod(folder, 0o700)
