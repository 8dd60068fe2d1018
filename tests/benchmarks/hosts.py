"""The agents that benchmarks run against: warmed, stopped, and their processes looked at."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from remote_exec.backends import local
from remote_exec.model.layout import Layout

STOP_SECONDS = 10.0


def layout_of(home: Path) -> Layout:
    """Return the layout of the agent that keeps its state in `home`."""
    return Layout.of({**os.environ, "REMOTE_EXEC_HOME": str(home)})


def stop(layout: Layout) -> None:
    """Stop the agent of this layout, if there is one, and wait until it and all below it are gone."""
    found = local.connect(layout)
    if found is None:
        return
    credentials = found.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    found.close()
    agent: int = struct.unpack("3i", credentials)[0]
    pids = [agent, *descendants(agent)]
    os.kill(agent, signal.SIGTERM)  # as the request "stop", but whatever its version
    deadline = time.monotonic() + STOP_SECONDS
    while any(_lives(pid) for pid in pids):
        if time.monotonic() > deadline:
            raise RuntimeError(
                f"of the agent's processes {pids} some live on, {STOP_SECONDS:g} s after its stop"
            )
        time.sleep(0.005)


def clean(layout: Layout) -> None:
    """Stop the agent and remove its sockets' folder."""
    with contextlib.suppress(OSError):
        stop(layout)
    shutil.rmtree(layout.sockets, ignore_errors=True)


def descendants(pid: int) -> list[int]:
    """Return the processes below this one, children before grandchildren."""
    parents = dict(_parents())
    found, frontier = list[int](), [pid]
    while frontier:
        frontier = [child for child, parent in parents.items() if parent in frontier]
        found += frontier
    return found


def processor(pid: int) -> int:
    """Return the CPU that a process has run on last."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[36])


def memory(pid: int) -> dict[str, int]:
    """Return a process's ``smaps_rollup`` in bytes, with its private memory summed as ``Private``."""
    rows: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        if rest.strip().endswith("kB"):
            rows[name] = int(rest.split()[0]) * 1024
    rows["Private"] = rows["Private_Clean"] + rows["Private_Dirty"]
    return rows


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _parents() -> Iterator[tuple[int, int]]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                yield int(name), int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
