"""A cell as a durable job: it runs in a worker of its own, with a snapshot of the names that it uses.

What it changed, its value and what it displayed are the job's result, whole in itself: any later kernel can take it in.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..serial.cloudpickle_copy import RUNTIME
from ..worker import context
from .cell_text import value_in_words
from .far_end import VALUE, Cell, FarEnd, is_machinery, pickling_reason, without_ours
from .kept import short_text
from .mirror import Mirror
from .settings import Settings
from .shell import Clear, Display, Ran
from .updates import Update

LEFT = "_remote_exec_left"  # an attribute of what the cell raised: what it had changed till then
MOST_LEFT = 16 << 20  # bytes of it
MOST_DISPLAYS = 1000


class Finished(NamedTuple):
    """What a detached cell came to.

    Attributes:
        names: what it has changed.
        value: its last expression's value, as the name `VALUE`; None: there is none, or it cannot travel.
        cannot: names of what it has left that cannot travel, with the reasons.
        shown: how the value looked there, where it cannot travel.
        text: the value's short text, likewise.
        displays: what it has displayed and did not clear.
    """

    names: Update
    value: Update | None
    cannot: dict[str, str]
    shown: dict[str, Any]
    text: str
    displays: list[Display]

    def __repr__(self) -> str:
        return f"<result of a detached cell: {', '.join(self.names.names) or 'no names'}>"


class Recorder:
    """Listens to the cell instead of a notebook, and remembers displays."""

    def __init__(self) -> None:
        self.displays: list[Display] = []
        self._clear_next = False

    def tell(self, told: object) -> None:
        """Hear what the cell shows."""
        if isinstance(told, Clear):
            self._clear_next = True
            if not told.wait:
                self._clear()
        elif isinstance(told, Display):
            self._clear()
            self._show(told)

    def ask(self, _question: object) -> None:
        """Nobody answers."""

    def heeded(self) -> bool:
        """Nobody waits for that."""
        return False

    def _clear(self) -> None:
        if self._clear_next:
            self.displays.clear()
            self._clear_next = False

    def _show(self, told: Display) -> None:
        display_id = told.transient.get("display_id")
        if told.update:
            self.displays = [
                told._replace(update=False) if one.transient.get("display_id") == display_id else one
                for one in self.displays
            ]
            return
        if len(self.displays) < MOST_DISPLAYS:
            self.displays.append(told)


def run_cell(update: Update, cell: Cell, settings: Settings, in_kernel: bool) -> Finished:
    """Run a cell with the names that come along.

    Args:
        update: the names.
        cell: what is to be run.
        settings: of the notebook.
        in_kernel: whether it is one, and no terminal.

    Raises:
        BaseException: what the cell raised.
    """
    far = FarEnd(in_kernel=in_kernel)
    far.take(update)
    recorder: Any = Recorder()
    with far.shell.heard_by(recorder, settings):
        ran = far.ran(cell)
        for display in ran.late:
            recorder.tell(display)
    finished = _finished(far, cell, ran, recorder.displays)
    if ran.error is None:
        if ran.has_value:
            context.tell_result(value_in_words(ran.value))
        return finished
    _leave(ran.error, finished)
    far.modules.explain(ran.error)
    raise ran.error.with_traceback(_of_the_cell(ran.error))


def _finished(far: FarEnd, cell: Cell, ran: Ran, displays: list[Display]) -> Finished:
    namespace = far.mirror.namespace
    if ran.has_value:
        namespace[VALUE] = ran.value
    reach = far.mirror.reach(far.touched(cell))
    cannot = {name: pickling_reason(namespace[name], error) for name, error in reach.cannot.items()}
    names = [name for name in reach.changed if name != VALUE]
    found = _alone(far, names)._replace(deleted=tuple(far.mirror.deleted()))
    value = _alone(far, [VALUE]) if VALUE in reach.changed else None
    shown = far.shell.shown(ran.value) if VALUE in cannot else {}
    return Finished(found, value, cannot, shown, short_text(ran.value) if shown else "", displays)


def _alone(far: FarEnd, names: list[str]) -> Update:
    """Return what names stand for, whole: whoever takes it in need not know anything."""
    mirror = Mirror(far.mirror.namespace, first=1, own=far.is_own)
    found = mirror.reach(names)
    return mirror.update(found._replace(changed=names, cannot={}, large=frozenset(), former=()))


def _leave(error: BaseException, finished: Finished) -> None:
    if finished.names.size <= MOST_LEFT:
        try:
            setattr(error, LEFT, finished._replace(value=None))
        except AttributeError:  # its class has slots
            pass


def _of_the_cell(error: BaseException) -> Any:
    """Return an error's traceback from the cell on; what runs cells is of no interest."""
    without_ours(error)
    entry = error.__traceback__
    while entry is not None and is_machinery(entry.tb_frame.f_code.co_filename):
        entry = entry.tb_next
    return entry


for _carried in (Finished, run_cell):
    _carried.__module__ = f"{RUNTIME}.session.detached"
