"""The far end of a notebook's session: one namespace, which is `__main__` of its worker, and an IPython.

A worker has one session in its life. What runs is always a cell of the session's notebook, one at a time, in the main
thread; the session's state is touched by that thread alone.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import os
import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple

from ..model.failure import Failure
from ..serial import failures, pickling
from ..worker import context
from ..worker.about import About
from ..worker.streams import Conversation, Talk
from . import comms
from .cell_text import as_written, in_cells, outside_of_ipython, tags_of, title_of, value_in_words
from .comms import CommMessage
from .interrupts import Interrupts
from .kept import ON_REQUEST, STOPPED
from .mirror import Mirror
from .modules import Entered, Given, Modules
from .pieces import LARGE_BYTES, send_ahead
from .settings import Settings
from .shell import FORMER_VALUES, Display, Ran, Shell
from .updates import NotLoaded, OutOfStep, Update

MACHINERY = (f"{os.sep}IPython{os.sep}", f"{os.sep}ast.py", f"{os.sep}contextlib.py")  # beside our own


class Cell(NamedTuple):
    """What is to be run.

    Attributes:
        source: as IPython gets it, with as many lines before it as the editor shows.
        filename: by which tracebacks name it.
        number: the notebook's execution count.
        names: that it uses, and those that these lead to.
        most_bytes: of one name's value that may travel.
        keep: let the values that it makes stay there, but for numbers, texts and code.
        only: names that may come back; None: all.
        opaque: it uses what cannot be looked into, so that any name may have changed by it.
        brings: the number of what has stayed here and is its value; 0: nothing.
        parts: of packages, that are to be imported before.
        name: under which lists of jobs show it, in place of its notebook's.
    """

    source: str
    filename: str
    number: int
    names: tuple[str, ...]
    most_bytes: int
    keep: bool = False
    only: tuple[str, ...] | None = None
    opaque: bool = False
    brings: int = 0
    parts: tuple[str, ...] = ()
    name: str = ""


class Heeded(NamedTuple):
    """Told when a cell has heeded its interrupt: what it has changed is on its way.

    Attributes:
        asked: whether somebody had interrupted it; else it has raised that itself.
    """

    asked: bool


class Outcome(NamedTuple):
    """What a cell came to.

    Attributes:
        update: what has changed in the namespace.
        value: whether the cell had a last expression: its value is in `update`, under the name `VALUE`.
        failure: what it ended in.
        interrupted: whether that is an interrupt.
        cannot: names of what it has left that cannot travel, with the reasons.
        shown: the value as it is shown there, where it cannot travel.
        late: what is displayed after the value.
        cancelled: whether others than the notebook have interrupted it.
    """

    update: Update
    value: bool
    failure: Failure | None
    interrupted: bool
    cannot: dict[str, str]
    shown: dict[str, Any] | None
    late: tuple[Display, ...] = ()
    cancelled: bool = False

    def __repr__(self) -> str:
        return "<what a remote cell came to: its notebook alone can make use of it>"


VALUE = "_remote_exec_value"
ANY_SIZE = 1 << 62
LITTLE_BYTES = 1 << 16  # of a value that is sent home although its way there was interrupted
STAYED = "the cell had ended, and what it had changed was on its way here; what was large has stayed there"
_CALLED = (types.FunctionType, types.MethodType)  # as in ``from gettext import gettext as _``
_COMES_HOME = (int, float, complex, str, bytes, type(None), type, types.FunctionType, types.ModuleType)


class FarEnd:
    """See the module's docstring; made once for a notebook.

    Args:
        in_kernel: whether the notebook is one, and no terminal.
    """

    def __init__(self, *, in_kernel: bool = True) -> None:
        main = types.ModuleType("__main__")
        main.__dict__["__builtins__"] = builtins
        sys.modules["__main__"] = main
        self.interrupts = Interrupts.installed()
        self.shell = Shell(main, in_kernel=in_kernel, interrupts=self.interrupts)
        self.mirror = Mirror(vars(main), first=1, own=self.is_own)
        self.modules = Modules()
        self._last = (Cell("", "", 0, (), ANY_SIZE), Ran())
        self._withheld: dict[str, Any] = {}  # what cells have made that was not to come back
        self._numbers: dict[str, int] = {}  # of cells, by the files that their code goes by

    def is_own(self, name: str) -> bool:
        """Whether a name is this end's alone: IPython's own, and ``_``, to which cells bind what they throw away."""
        if name not in FORMER_VALUES:
            return self.shell.is_own(name)
        return not isinstance(self.mirror.namespace.get(name), _CALLED) and not self.mirror.shares(name)

    def run(self, update: Update, cell: Cell, settings: Settings) -> Conversation:
        """Run a cell, and talk with the notebook meanwhile; the call's value is an `Outcome`.

        It is `NotLoaded` or `OutOfStep` where nothing has been run, since what has changed could not be taken in.

        Args:
            update: what has changed in the notebook.
            cell: what is to be run.
            settings: of the notebook, those that have changed.
        """
        self._numbers[cell.filename] = cell.number
        about = context.describe(
            name=cell.name,
            function=title_of(cell.source, cell.number),
            code=as_written(cell.source),
            tags=tags_of(cell.number, cell.name),
        )
        return self._conversation(update, settings, cell, lambda: self.ran(cell), about)

    def ran(self, cell: Cell) -> Ran:
        """Run a cell, while somebody listens."""
        for part in cell.parts:
            with contextlib.suppress(Exception):  # the cell itself says so, if it needs it
                importlib.import_module(part)
        return self.shell.run(cell.source, cell.filename, cell.number)

    def hear(self, update: Update, message: CommMessage, settings: Settings) -> Conversation:
        """Give a widget what the front end says to it; the call's value is as that of `run`."""

        def heard() -> Ran:
            try:
                with self.interrupts.let(), self.shell.in_loop():
                    comms.hear(message)
            except BaseException as error:
                return Ran(error=error)
            return Ran()

        return self._conversation(update, settings, Cell("", "", 0, (), ANY_SIZE, opaque=True), heard)

    def bring(self, update: Update, number: int, settings: Settings) -> Conversation:
        """Return an object that has stayed here, as if a cell had ended in it."""
        cell = Cell("", "", 0, (), ANY_SIZE, only=(), brings=number)
        return self._conversation(update, settings, cell, lambda: Ran(True, self.mirror.kept[number]))

    def tell_again(self, refused: NotLoaded | None) -> Outcome:
        """Say again what has changed by the last cell: home could not take it in.

        Args:
            refused: what it could not load; None: it did not know what was spoken of.
        """
        if refused is None:
            self.mirror.forget()
        else:
            self.mirror.take_back(refused)
        return self._outcome(*self._last)

    def python(self) -> str:
        """Return where the Python lies that runs cells."""
        return sys.prefix

    def enter(self, given: Given) -> Entered:
        """Have cells import the notebook's local modules."""
        return self.modules.enter(given)

    def is_there(self) -> bool:
        """Answer."""
        return True

    def take(self, update: Update) -> None:
        """Take in what has changed in the notebook, which starts anew where that is interrupted.

        Raises:
            NotLoaded: some of it cannot be loaded here.
            OutOfStep: it speaks of what is not known here.
        """
        self.interrupts.begin()
        with self.interrupts.let():
            self.mirror.apply(update)

    def _conversation(
        self,
        update: Update,
        settings: Settings,
        cell: Cell,
        run: Callable[[], Ran],
        about: About | None = None,
    ) -> Conversation:
        def hold(talk: Talk) -> Outcome | NotLoaded | OutOfStep:
            try:
                self.take(update)
            except (NotLoaded, OutOfStep) as refused:
                if about is not None:
                    about.listed = False  # nothing has run: the cell comes again, as another call
                return refused.with_traceback(None)
            stopped = False
            with self.shell.heard_by(talk, settings):
                ran = run()
                if isinstance(ran.error, KeyboardInterrupt):
                    stopped = talk.heeded()
                    talk.tell(Heeded(stopped))
            self._last = cell, ran
            outcome = self._outcome(cell, ran)
            if talk.is_far and outcome.update.size > LARGE_BYTES:
                try:
                    rest = send_ahead(outcome.update, talk.tell, talk.answered, self.interrupts.heed)
                    outcome = outcome._replace(update=rest)
                except KeyboardInterrupt:
                    stopped = talk.heeded()
                    talk.tell(Heeded(stopped))
                    outcome = self._outcome_without_large(cell, ran)
            if about is not None:
                if outcome.failure is not None:
                    about.fails(in_cells(outcome.failure, self._numbers), cancelled=stopped)
                about.result = value_in_words(ran.value) if ran.has_value else {}
            return outcome

        return Conversation(hold)

    def _outcome_without_large(self, cell: Cell, ran: Ran) -> Outcome:
        """Return what a cell came to whose changes were on their way when it was interrupted."""
        self.mirror.take_back()
        ran = Ran(error=ran.error or KeyboardInterrupt(STAYED))
        self._last = cell._replace(brings=0), ran
        return self._outcome(*self._last, most_bytes=LITTLE_BYTES)

    def _outcome(self, cell: Cell, ran: Ran, *, most_bytes: int = ANY_SIZE) -> Outcome:
        namespace = self.mirror.namespace
        if ran.has_value:
            namespace[VALUE] = ran.value
        try:
            with self.mirror.letting_go(cell.brings):
                made = self.mirror.rebound() if cell.keep else []
                reach = self.mirror.reach(self.touched(cell), most_bytes=cell.most_bytes)
                stay = [
                    name
                    for name in made
                    if name in reach.looks and not isinstance(namespace[name], _COMES_HOME)
                ]
                large = [name for name in reach.changed if reach.looks[name].size > most_bytes]
                instead = {
                    name: self.mirror.keep(namespace[name], reach.looks[name].size, reason)
                    for names, reason in ((large, STOPPED), (stay, ON_REQUEST))
                    for name in names
                }
                told = self.mirror.update(reach, instead=instead)
                stays = ran.has_value and self.mirror.stays(ran.value)
            shown = self.shell.shown(ran.value) if stays else None
            cannot = {name: pickling_reason(namespace[name], error) for name, error in reach.cannot.items()}
        finally:
            namespace.pop(VALUE, None)
        failure = None
        if ran.error is not None:
            without_ours(ran.error)
            self.modules.explain(ran.error)
            captured = failures.capture(ran.error, dumps=pickling.dump_bytes, skip=is_machinery)
            failure = outside_of_ipython(captured)
        interrupted = isinstance(ran.error, KeyboardInterrupt)
        return Outcome(told, ran.has_value, failure, interrupted, cannot, shown, ran.late)

    def touched(self, cell: Cell) -> list[str]:
        """Return the names that a cell may have changed, once it has run; of those, only what may come back."""
        namespace = self.mirror.namespace
        self._withheld = {name: one for name, one in self._withheld.items() if namespace.get(name) is one}
        made = [name for name in self.mirror.rebound() if name not in self._withheld]
        names = [*cell.names, *made, *(self.mirror.agreed if cell.opaque else ())]
        if cell.only is not None:
            self._withheld |= {
                name: namespace[name] for name in made if name not in cell.only and name != VALUE
            }
            names = [name for name in names if name in cell.only or name == VALUE]
        return names


def is_machinery(filename: str) -> bool:
    """Whether a frame is of what runs cells, and not of a cell."""
    return failures.is_machinery(filename) or any(part in filename for part in MACHINERY)


def without_ours(error: BaseException) -> None:
    """Cut what is of this package off the inner ends of an exception's tracebacks: it waited there."""
    todo: list[BaseException | None] = [error]
    seen: set[int] = set()
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        last, entry = None, one.__traceback__
        while entry is not None:
            if not failures.is_machinery(entry.tb_frame.f_code.co_filename):
                last = entry
            entry = entry.tb_next
        if last is not None:
            last.tb_next = None
        todo += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]


def pickling_reason(obj: Any, error: Exception) -> str:
    """Return in one line why an object cannot travel."""
    return f"{type(obj).__qualname__}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
