"""What a cell has changed, on its way home over a link: it is shown how far it is, since it may take long."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from remote_exec.client.connections import connections
from remote_exec.session.far_end import Heeded, Outcome
from remote_exec.session.pieces import Arriving, Coming, Piece
from remote_exec.session.updates import NotLoaded, OutOfStep

if TYPE_CHECKING:
    from remote_exec.client.phases import Span


class Arrivals:
    """Of one turn; a context manager.

    Args:
        of: what the cells are called.
    """

    def __init__(self, of: str) -> None:
        self._of = of
        self._arriving: Arriving | None = None
        self._span: Span | None = None

    def __enter__(self) -> Arrivals:
        return self

    def __exit__(
        self, cls: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def hear(self, told: object) -> None:
        """Take in what the far end tells, if it is about that."""
        if isinstance(told, Coming):
            self._arriving = Arriving(told)
            self._span = connections.watch("receive", self._of)
            self._span.expect(sum(told.sizes))
            self._span.__enter__()
        elif isinstance(told, Piece) and self._arriving is not None and self._span is not None:
            self._span.moved(self._arriving.take(told))
        elif isinstance(told, Heeded):
            self._end()
            self._arriving = None

    def completed(self, said: Outcome | NotLoaded | OutOfStep) -> Outcome | NotLoaded | OutOfStep:
        """Return what the far end has said at last, with what has come of it before."""
        if self._arriving is None or not isinstance(said, Outcome):
            return said
        return said._replace(update=self._arriving.completed(said.update))

    def _end(self) -> None:
        if self._span is not None:
            self._span.__exit__(None, None, None)
            self._span = None
