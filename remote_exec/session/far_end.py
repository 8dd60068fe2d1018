"""The far end of a notebook's session: one namespace, which is `__main__` of its worker, and an IPython that runs cells.

A worker has one session in its life. What runs is always a cell of the session's notebook, one at a time, in the main
thread; the session's state is touched by that thread alone.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..model.failure import Failure
from ..serial import failures, pickling
from ..worker.streams import Conversation, Talk
from .kept import Kept
from .mirror import Mirror, Update
from .shell import Ran, Shell

MACHINERY = ("IPython", "remote_exec_runtime", "ast.py", "contextlib.py")


class Cell(NamedTuple):
    """What is to be run.

    Attributes:
        source: as IPython gets it, with as many lines before it as the editor shows.
        filename: by which tracebacks name it.
        number: the notebook's execution count.
        names: that it uses, and those that these lead to.
        most_bytes: of one name's value that may travel.
        keep: let all values that it makes stay there.
        only: names that may come back; None: all.
    """

    source: str
    filename: str
    number: int
    names: tuple[str, ...]
    most_bytes: int
    keep: bool = False
    only: tuple[str, ...] | None = None


class Outcome(NamedTuple):
    """What a cell came to.

    Attributes:
        update: what has changed in the namespace.
        value: the cell's last expression, pickled as an update of the name `VALUE`, is in `update`; whether there is one.
        failure: what it ended in.
        interrupted: whether that is an interrupt.
        cannot: names of what it has left that cannot travel, with the reasons.
        shown: the value as it is shown there, where it cannot travel.
    """

    update: Update
    value: bool
    failure: Failure | None
    interrupted: bool
    cannot: dict[str, str]
    shown: dict[str, Any] | None


VALUE = "_remote_exec_value"


class FarEnd:
    """See the module's docstring; made once for a notebook."""

    def __init__(self) -> None:
        main = types.ModuleType("__main__")
        main.__dict__["__builtins__"] = __builtins__
        sys.modules["__main__"] = main
        self.shell = Shell(main)
        self.mirror = Mirror(vars(main), first=1, own=self.shell.is_own)
        self._next_kept = 1

    def run(self, update: Update, cell: Cell, settings: Mapping[str, Any]) -> Conversation:
        """Run a cell, and talk with the notebook meanwhile; the call's value is an `Outcome`."""
        return Conversation(lambda talk: self._run(talk, update, cell, settings))

    def take(self, update: Update) -> None:
        """Take in what has changed in the notebook."""
        self.mirror.apply(update)

    def fetch(self, number: int) -> Any:
        """Return an object that stays here."""
        return self.mirror.kept[number]

    def _run(self, talk: Talk, update: Update, cell: Cell, settings: Mapping[str, Any]) -> Outcome:
        self.mirror.apply(update)
        ran = self.shell.run(cell.source, cell.filename, cell.number, settings, talk)
        return self._outcome(cell, ran)

    def _outcome(self, cell: Cell, ran: Ran) -> Outcome:
        namespace = self.mirror.namespace
        if ran.has_value:
            namespace[VALUE] = ran.value
        try:
            reach = self.mirror.reach(self._told(cell, ran))
            instead: dict[str, Kept] = {}
            cannot: dict[str, str] = {}
            for name, error in reach.cannot.items():
                cannot[name] = pickling_reason(namespace[name], error)
                if name != VALUE:
                    instead[name] = self._keep(namespace[name], 0, cannot[name])
            for name in reach.changed:
                size = reach.looks[name].size
                if size > cell.most_bytes or (cell.keep and size > 0):
                    instead[name] = self._keep(namespace[name], size, "it stays there")
            shown = self.shell.shown(ran.value) if VALUE in cannot else None
            told = self.mirror.update(reach._replace(changed=[*reach.changed, *(instead.keys() - set(reach.changed))]), instead=instead)
        finally:
            namespace.pop(VALUE, None)
        failure = None if ran.error is None else failures.capture(ran.error, dumps=pickling.dump_bytes, skip=is_machinery)
        return Outcome(
            told,
            ran.has_value,
            failure,
            isinstance(ran.error, KeyboardInterrupt),
            cannot,
            shown,
        )

    def _told(self, cell: Cell, ran: Ran) -> list[str]:
        names = [*cell.names, *self.mirror.rebound()]
        if cell.only is not None:
            names = [name for name in names if name in cell.only or name == VALUE]
        return names

    def _keep(self, obj: Any, size: int, reason: str) -> Kept:
        number, self._next_kept = self._next_kept, self._next_kept + 1
        self.mirror.kept[number] = obj
        return Kept(number, type(obj).__qualname__, size, reason, short_text(obj))


def is_machinery(filename: str) -> bool:
    """Whether a frame is of what runs cells, and not of a cell."""
    return any(part in filename for part in MACHINERY)


def pickling_reason(obj: Any, error: Exception) -> str:
    """Return in one line why an object cannot travel."""
    return f"{type(obj).__qualname__}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"


def short_text(obj: Any) -> str:
    """Return an object's text, shortened; never fails."""
    try:
        return repr(obj)[:200]
    except Exception as error:
        return f"<its repr raised {type(error).__name__}>"


Telling = Callable[[Any], None]
