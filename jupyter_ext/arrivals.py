"""What the far end tells of a cell, as it comes: what it has changed may come in pieces, and may take long."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from remote_exec.client.connections import connections
from remote_exec.client.generators import RemoteIterator
from remote_exec.client.interrupts import shield, unshield
from remote_exec.session.far_end import Heeded, Outcome
from remote_exec.session.pieces import Arriving, Coming, Piece
from remote_exec.session.updates import NotLoaded, OutOfStep

if TYPE_CHECKING:
    from remote_exec.client.phases import Span


class Arrivals:
    """Of one turn; a context manager.

    Args:
        talk: gives what is told, one after the other.
        of: what the cells are called.

    Attributes:
        said: the last word, when it has come.
    """

    def __init__(self, talk: RemoteIterator[Any], of: str) -> None:
        self.said: Outcome | NotLoaded | OutOfStep | None = None
        self._talk = talk
        self._of = of
        self._arriving: Arriving | None = None
        self._span: Span | None = None

    def __enter__(self) -> Arrivals:
        return self

    def __exit__(
        self, cls: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def next(self) -> object:
        """Wait for what is told next, and take it in whole: an interrupt is raised before that, or after it."""
        shielded = shield()
        try:
            told: object = next(self._talk)
            self._hear(told)
        except StopIteration as end:
            self.said = self._completed(end.value)
            return None
        else:
            return told
        finally:
            if shielded:
                unshield()

    def _hear(self, told: object) -> None:
        if isinstance(told, Coming):
            self._arriving = Arriving(told)
            self._span = connections.watch("receive", self._of)
            self._span.expect(sum(told.sizes))
            self._span.__enter__()
        elif isinstance(told, Piece):
            if self._arriving is not None and self._span is not None:
                self._span.moved(self._arriving.take(told))
            self._talk.answer(None)
        elif isinstance(told, Heeded):
            self._end()
            self._arriving = None

    def _completed(self, said: Outcome | NotLoaded | OutOfStep) -> Outcome | NotLoaded | OutOfStep:
        if self._arriving is None or not isinstance(said, Outcome):
            return said
        return said._replace(update=self._arriving.completed(said.update))

    def _end(self) -> None:
        if self._span is not None:
            self._span.__exit__(None, None, None)
            self._span = None
