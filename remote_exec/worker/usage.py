"""CPU and memory of a host, and of workers with all that they have started, read from ``/proc``."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Use(NamedTuple):
    """What a worker and its children have used: processor seconds so far, bytes now."""

    cpu_seconds: float
    memory_bytes: int


class Sample(NamedTuple):
    """One look at the machine."""

    at: float  # monotonic
    busy_seconds: float
    memory_total_bytes: int
    memory_used_bytes: int
    workers: Mapping[int, Use]


def sample(pids: Iterable[int], *, proc: Path = PROC) -> Sample:
    """Look once.

    Args:
        pids: of workers. Each leads a session, by which its children are found.
        proc: where the kernel tells; nothing is known where it does not.
    """
    found = dict.fromkeys(pids, Use(0.0, 0))
    with contextlib.suppress(OSError):
        for entry in os.scandir(proc):
            if entry.name.isdigit():
                _add(found, Path(entry.path))
    total, available = _memory(proc)
    return Sample(time.monotonic(), _busy(proc), total, total - available, found)


def _add(found: dict[int, Use], folder: Path) -> None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        # the name in brackets may hold blanks and brackets itself
        fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
        session = int(fields[3])
        if session in found:
            before = found[session]
            seconds = (int(fields[11]) + int(fields[12])) / _TICKS
            # proportional where allowed: forked workers share most of their pages
            memory = _proportional(folder) or int(fields[21]) * _PAGE
            found[session] = Use(before.cpu_seconds + seconds, before.memory_bytes + memory)


def _proportional(folder: Path) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (folder / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def _busy(proc: Path) -> float:
    with contextlib.suppress(OSError, ValueError, IndexError):
        numbers = [int(word) for word in (proc / "stat").read_text().partition("\n")[0].split()[1:9]]
        return (sum(numbers) - numbers[3] - numbers[4]) / _TICKS  # without idle and waiting for disks
    return 0.0


def _memory(proc: Path) -> tuple[int, int]:
    facts: dict[str, int] = {}
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (proc / "meminfo").read_text().splitlines():
            name, _, value = line.partition(":")
            facts[name] = int(value.split()[0]) * 1024
    return facts.get("MemTotal", 0), facts.get("MemAvailable", 0)
