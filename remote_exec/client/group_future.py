"""The future of a call that a group runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..future import RemoteFuture
from ..model.cost import Cost, total
from ..model.errors import HostUnavailable
from .connections import connections
from .dispatcher import FORKED

if TYPE_CHECKING:
    from .group import Group
    from .metrics import Metrics


class GroupFuture(RemoteFuture[Any]):
    """The future of a call that a group runs. Users get it from `submit`."""

    def __init__(self, group: Group) -> None:
        super().__init__()
        self._group = group
        self._pid = os.getpid()

    @property
    def job(self) -> str:
        """The name of rank 0's part; that of another rank has its number. Empty until all workers are there."""
        return self._group.name

    @property
    def status(self) -> str:
        """One of queued, running, succeeded, failed, cancelled."""
        return super().status if self.done() else "running" if self._group.begun else "queued"

    def why(self) -> str:
        """Say in words what the group waits for."""
        return super().why() if self.done() else self._group.why()

    @property
    def cost(self) -> Cost | None:
        """What all ranks have cost until now, as their hosts' agents have it; None as for a call, of any of them."""
        costs = [call.cost(done=call.ended) for call in self._group.calls]
        return None if None in costs else total(cost for cost in costs if cost is not None)

    def logs(self) -> str:
        """Return what all ranks have printed so far, each line with its rank; of very much, the last megabyte."""
        return str(self._group.printed)

    def metrics(self) -> Metrics:
        """Return what all ranks have logged so far; the names of those of other ranks than 0 tell which."""
        found: Metrics = {}
        for call in self._group.calls:
            found |= call.metrics()
        return found

    def cancel(self, wait: bool = False) -> bool:
        """Ask for all ranks to be stopped.

        Args:
            wait: return only when they have ended.

        Returns:
            False when the call had ended already.
        """
        if self.done():
            return self.cancelled()
        self._group.stop()
        if wait:
            self._wait(None)
            return self.cancelled()
        return True

    def _wait(self, timeout: float | None) -> None:
        if self._pid != os.getpid() and not self.done():
            raise HostUnavailable(FORKED, hint="wait for it there, or call again here")
        self._group.lines.awaited += 1
        try:
            with self._condition:
                if not self.done():
                    self._condition.wait(timeout)
        finally:
            self._group.lines.awaited -= 1
            connections.reporter.left()
        if not self.done():
            raise TimeoutError
