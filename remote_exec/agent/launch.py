"""Bring an agent up on the machine that this runs on, for a client that is elsewhere, and say where it listens.

Run by what a backend sends ahead of the runtime. It may be asked again at any time: an agent that is there stays.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from pathlib import Path

from ..model.layout import Layout
from ..worker.private import make_private_folder
from .early import BOOT

UP_SECONDS = 20.0
NAP_SECONDS = 0.005
OF_THE_SESSION = (
    "SSH_CLIENT",
    "SSH_CONNECTION",
    "SSH_TTY",
    "SSH_AUTH_SOCK",
    "SSH_ORIGINAL_COMMAND",
    "SSH_USER_AUTH",
)


def bring_up(runtime: str, *, digest: str, version: str, home: str, python: str) -> str:
    """Return the path of the socket of the agent that serves a state directory; start one if there is none.

    Args:
        runtime: the folder of the carried runtime.
        digest: the runtime's.
        version: of the client.
        home: the state directory.
        python: the minor that the client's first pool will want, as "3.11".

    Raises:
        RuntimeError: it does not come up; the text says why as far as its log does.
    """
    environ = environ_for(home)
    layout = Layout.of(environ)
    deadline = time.monotonic() + UP_SECONDS
    while True:
        found = _listening(layout)
        if found:
            return found
        pid = _spawn(layout, environ, runtime, digest, version, python)
        while time.monotonic() < deadline:
            if found := _listening(layout):
                return found
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                if status:
                    raise RuntimeError(f"the agent cannot start: {last_words(layout.agent_log)}")
                break  # another holds the lock, and comes up
            time.sleep(NAP_SECONDS)
        else:
            raise RuntimeError(f"the agent did not come up in {UP_SECONDS:.0f} s; see {layout.agent_log}")
        time.sleep(NAP_SECONDS)


def environ_for(home: str) -> dict[str, str]:
    """Return the variables of an agent that writes nothing outside its state directory, unless told to."""
    environ = {name: value for name, value in os.environ.items() if name not in OF_THE_SESSION}
    environ["REMOTE_EXEC_HOME"] = home
    environ.setdefault("REMOTE_EXEC_AGENT_SOCKETS", os.path.join(home, "sockets"))
    return {**Layout.of(environ).uv_variables, **environ}


def _spawn(
    layout: Layout, environ: dict[str, str], runtime: str, digest: str, version: str, python: str
) -> int:
    make_private_folder(layout.home)
    log = os.open(layout.agent_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    spare = sys.executable if python == f"{sys.version_info[0]}.{sys.version_info[1]}" else ""
    told = (runtime, digest, version, str(layout.home), str(layout.sockets), spare, "")
    try:
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", "-c", BOOT, *told],
            environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
                (os.POSIX_SPAWN_OPEN, 3, os.devnull, os.O_RDONLY, 0),  # its clients come by its socket
            ],
            setsid=sys.platform == "linux",
        )
    finally:
        os.close(log)


def _listening(layout: Layout) -> str:
    """Return where an agent of this state directory listens, or an empty text."""
    paths = [str(layout.agent_socket)]
    with contextlib.suppress(OSError, ValueError):
        _, folder, *_ = layout.agent_lock.read_text().splitlines()  # it may have been started otherwise
        paths.append(os.path.join(folder, layout.agent_socket.name))
    for path in paths:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(path)
            return path
        except OSError:
            continue
        finally:
            sock.close()
    return ""


def last_words(log: Path) -> str:
    """Return the last line of an agent's log that is no hint."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return "why is unknown"
    return next((line for line in reversed(lines) if line and line[0] != " "), "why is unknown")
