"""What takes calls, whether for the workers of one host or of several."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ..future import RemoteFuture
    from ..serial.pickling import Pickled
    from .calls import Call


class Dispatching(Protocol):
    """A `Dispatcher`, or a `Spread` over several; see there."""

    def submit(self, call: Call) -> None:
        """Take a call."""
        ...

    def run(self, call: Call) -> Any:
        """Take a call and wait for its value."""
        ...

    def wait(
        self, future: RemoteFuture[Any], deadline: float | None, *, until: Callable[[], bool] | None = None
    ) -> None:
        """Return when the future is done, or `until()` is true, or the time has come."""
        ...

    def cancel(self, call: Call) -> bool:
        """Withdraw a queued call, or have a running one stopped; False when it has ended."""
        ...

    def why(self, call: Call) -> str:
        """Say in words what a call waits for."""
        ...

    def credit(self, call: Call, count: int) -> None:
        """Let a generator call yield more values."""
        ...

    def answer(self, call: Call, value: Pickled) -> None:
        """Send what a generator call has asked for."""
        ...

    @property
    def max_workers(self) -> int:
        """How many workers may run its calls at once."""
        ...

    @property
    def closed(self) -> bool:
        """Whether it is of no use any more."""
        ...
