"""What a cell says and asks while it runs elsewhere: shown and asked here, below the cell."""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any

from remote_exec.session.comms import CommMessage
from remote_exec.session.shell import Ask, Clear, Display, Stopped

from .comms import Comms
from .front_end import header_of
from .reporter import notebook_reporter

if TYPE_CHECKING:
    from remote_exec.client.calls import Call


class Conversation:
    """Of one session's cells, one after the other.

    Args:
        shell: this kernel's IPython.
        comms: of widgets there.
    """

    def __init__(self, shell: Any, comms: Comms) -> None:
        self._shell = shell
        self._comms = comms
        self._header: dict[str, Any] = {}  # of the message that the front end has sent to run a cell
        self._call: Call | None = None  # of the cell

    @contextlib.contextmanager
    def began(self, call: Call) -> Generator[None, None, None]:
        """Have what is said from now on be shown below the cell that runs here, until its call has ended."""
        self._header, self._call = header_of(self._shell), call
        reporter = notebook_reporter()
        try:
            with reporter.talk() if reporter is not None else contextlib.nullcontext():
                yield
        finally:
            self._call = None  # it holds all that has travelled

    def show(self, told: object) -> bool:
        """Show something, in whichever thread that is heard; false where it is to be answered, or is the last word."""
        reporter, publisher = notebook_reporter(), self._shell.display_pub
        if isinstance(told, Clear):
            if reporter is not None:
                reporter.clear(self._header, wait=told.wait)
            else:
                publisher.clear_output(wait=told.wait)
            return True
        if isinstance(told, Display):
            show: Callable[[], object] = partial(publisher.publish, **told._asdict())
        elif isinstance(told, CommMessage):
            show = partial(self._comms.take, told)
        else:
            return False
        if reporter is not None:
            reporter.show(show, self._header, adds=isinstance(told, Display) and not told.update)
        else:
            show()
        return True

    def is_over(self) -> None:
        """The cell has said its last word."""
        if (reporter := notebook_reporter()) is not None:
            reporter.show_rest()

    def ask(self, question: Ask) -> str | Stopped | None:
        """Ask the user; return the answer, or None where nobody can be asked."""
        if (reporter := notebook_reporter()) is not None and self._call is not None:
            reporter.asks(self._call)
        try:
            return getpass.getpass(question.prompt) if question.password else input(question.prompt)
        except KeyboardInterrupt:
            return Stopped()
        except Exception:  # the front end has nobody to ask, and says so in words of its own
            return None
