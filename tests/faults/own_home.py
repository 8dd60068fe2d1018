"""Looking after the processes of one state directory."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from remote_exec.client.connections import connections


def processes_of(home: Path) -> dict[int, str]:
    """Return (pid: command line) of what lives for this home: agent, fork servers, workers, and their children."""
    found: dict[int, str] = {}
    needle = b"\0REMOTE_EXEC_HOME=" + os.fsencode(home) + b"\0"
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            with contextlib.suppress(OSError):
                command = Path("/proc", entry, "cmdline").read_bytes()
                if command and needle in b"\0" + Path("/proc", entry, "environ").read_bytes() + b"\0":
                    found[int(entry)] = command.replace(b"\0", b" ").decode(errors="replace")[:300]
    return found


def agents_of(home: Path) -> list[int]:
    """Return the process ids of the agents that serve this home: one, or none."""
    return [pid for pid, command in processes_of(home).items() if "remote_exec_runtime.agent." in command]


def agent_pid() -> int:
    """Return the process id of the agent that this process is connected to."""
    return connections.session().welcome.pid


def lives(pid: int) -> bool:
    """Whether a process is there and is not a zombie."""
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
