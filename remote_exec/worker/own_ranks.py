"""The ranks of a group that one worker starts by itself, as its own children: those of a durable job.

To `launch` they are what a launcher is that has started them, all as one process.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from ..model.group import Group

DEVICES = "CUDA_VISIBLE_DEVICES"


class OwnRanks:
    """All ranks of a group, as one process. Each finds its place in the variables that torchrun would set.

    Args:
        command: what each runs.
        group: the place of the first; the others follow.
        count: how many there are.
        output: takes what they print before they have streams of their own.
        variables: their environment.
        started: told the number and process id of each.
    """

    def __init__(
        self,
        command: Sequence[str],
        group: Group,
        count: int,
        *,
        output: IO[bytes],
        variables: Mapping[str, str],
        started: Callable[[int, int], None],
    ) -> None:
        self._children: list[subprocess.Popen[bytes]] = []
        try:
            for number in range(count):
                child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={**variables, **_place(group, number), **devices_of(number, count, variables)},
                )
                self._children.append(child)
                started(number, child.pid)
        except BaseException:
            self.kill()
            self.wait()
            raise

    def code(self, number: int) -> int:
        """Return how one has ended: its exit code, or the signal that killed it, negative."""
        return self._children[number].wait()

    @property
    def returncode(self) -> int:
        """The exit code of the first that has failed; 0 where none has."""
        return next((child.returncode for child in self._children if child.returncode), 0)

    def poll(self) -> int | None:
        """Return how they have ended, or None while one lives."""
        return self.returncode if all([child.poll() is not None for child in self._children]) else None  # noqa: C419

    def send_signal(self, number: int) -> None:
        """Do nothing: this is for a launcher, and here is none beside its ranks."""

    def kill(self) -> None:
        """Kill those that live."""
        for child in self._children:
            child.kill()

    def wait(self) -> int:
        """Return when all have ended."""
        for child in self._children:
            child.wait()
        return self.returncode


def _place(group: Group, number: int) -> dict[str, str]:
    rank = group.rank + number
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank % group.local_world_size),
        "WORLD_SIZE": str(group.world_size),
        "LOCAL_WORLD_SIZE": str(group.local_world_size),
    }


def devices_of(number: int, count: int, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variable by which a rank sees its own part of the worker's GPUs, if those were claimed or named.

    Example:
        >>> devices_of(1, 2, {DEVICES: "a,b,c,d"}), devices_of(1, 2, {DEVICES: "a"}), devices_of(1, 2, {})
        ({'CUDA_VISIBLE_DEVICES': 'c,d'}, {'CUDA_VISIBLE_DEVICES': 'a'}, {})
    """
    devices = [one for one in variables.get(DEVICES, "").split(",") if one]
    if not devices:
        return {}
    each = max(1, len(devices) // count)
    first = number * len(devices) // count if len(devices) < count else number * each
    return {DEVICES: ",".join(devices[first : first + each])}
