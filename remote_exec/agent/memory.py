"""How much memory the host has left, and how much whole sessions of processes hold, as /proc tells.

Where there is no /proc (macOS), nothing is known: no worker is over its limit, and memory never runs low.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

LOW_SHARE = 0.05  # of the host's memory: with less available than this, idle workers are given up
LOW_VARIABLE = "REMOTE_EXEC_AGENT_LOW_MEMORY_SHARE"

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def runs_low(root: Path = Path("/")) -> bool:
    """Whether the host has almost no memory left. `REMOTE_EXEC_AGENT_LOW_MEMORY_SHARE` moves the line."""
    share = float(os.environ.get(LOW_VARIABLE, LOW_SHARE))
    facts: dict[str, int] = {}
    with (
        contextlib.suppress(OSError, ValueError, IndexError),
        open(root / "proc/meminfo", encoding="ascii") as file,
    ):
        for line in file:
            name, _, rest = line.partition(":")
            facts[name] = int(rest.split()[0])
    total, available = facts.get("MemTotal", 0), facts.get("MemAvailable", 0)
    return bool(total) and "MemAvailable" in facts and available < share * total


def used_by_sessions(sessions: Collection[int], root: Path = Path("/")) -> dict[int, int]:
    """Return the resident bytes of all processes of each session, pages that they share counted for each.

    Args:
        sessions: the ids of sessions: the process ids of workers.
        root: where ``proc`` is mounted.
    """
    used = dict.fromkeys(sessions, 0)
    for _, session, resident in _processes(root):
        if session in used:
            used[session] += resident
    return used


def proportional(session: int, root: Path = Path("/")) -> int:
    """Return the bytes of one session, shared pages divided among those that share them: slow, and fair.

    Children that a worker forked share most of its memory; counted for each, they would look like a flood.
    """
    total = 0
    for pid, of, resident in _processes(root):
        if of == session:
            total += _proportional_of(pid, root, otherwise=resident)
    return total


def _proportional_of(pid: int, root: Path, *, otherwise: int) -> int:
    try:
        with open(root / f"proc/{pid}/smaps_rollup", encoding="ascii") as file:
            for line in file:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
    except ProcessLookupError:
        return 0  # it has ended meanwhile
    except (OSError, ValueError):
        return otherwise if (root / f"proc/{pid}").exists() else 0
    return otherwise


def _processes(root: Path) -> list[tuple[int, int, int]]:
    """Every process: its id, its session, its resident bytes."""
    found: list[tuple[int, int, int]] = []
    with contextlib.suppress(OSError):
        for name in os.listdir(root / "proc"):
            if name.isdigit():
                # what has ended meanwhile holds nothing
                with contextlib.suppress(OSError, ValueError, IndexError):
                    with open(root / "proc" / name / "stat", "rb") as file:
                        # the name of the program, in brackets, may hold anything
                        fields = file.read().rpartition(b")")[2].split()
                    found.append((int(name), int(fields[3]), int(fields[21]) * _PAGE_BYTES))
    return found
