"""The notebook's end of a session: what a cell needs goes to this notebook's worker, what it changed comes back.

Owned by the kernel's main thread. A session's worker lives for as long as the session; when it dies, its namespace is
lost, and the next cell begins another.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any, NamedTuple

from remote_exec.capture.function import log_levels
from remote_exec.client.finding import refuse_taken
from remote_exec.client.generators import RemoteIterator
from remote_exec.client.home_files import locate
from remote_exec.client.interrupts import shield, unshield
from remote_exec.client.notebook import notebook_path
from remote_exec.errors import RemoteExecError, RuntimeEnvironmentError, SerializationError, WorkerDied
from remote_exec.options import Options
from remote_exec.remote_class import RemoteInstance
from remote_exec.serial import failures, pickling
from remote_exec.session.comms import CommMessage
from remote_exec.session.far_end import VALUE, Cell, FarEnd, Heeded, Outcome
from remote_exec.session.kept import LOST, NOT_HERE, Handles, Kept
from remote_exec.session.mirror import Reach
from remote_exec.session.shell import Ask
from remote_exec.session.updates import NotLoaded, OutOfStep

from .arrivals import Arrivals
from .comms import Comms
from .conversation import Conversation
from .figures import make_ready
from .front_end import header_of, is_kernel
from .holding import saying_who_holds
from .modules import LocalModules, environment_for, import_as_there, needs_of
from .namespace import kept_in, mirror_of
from .reporter import notebook_reporter
from .settings import TellSettings
from .tracebacks import frames_are

if TYPE_CHECKING:
    from threading import RLock

    from remote_exec.backends.host import Host
    from remote_exec.future import RemoteFuture

MOST_BYTES = 256 << 20
HEED_SECONDS = 1.8  # how long an interrupted cell has to heed; the agent ends its process before
ANSWER_SECONDS = 2.0
CANCELLED = "the cell was cancelled from the list of jobs; the remote namespace is still there"
IDLE_SECONDS = 12 * 3600.0  # a namespace is not thrown away while one thinks


class RemoteInterrupted(KeyboardInterrupt):
    """The cell was interrupted and did not heed it: its worker is gone, and all that was there alone."""


class Together(NamedTuple):
    """What the sessions of one notebook share.

    Attributes:
        sessions: by their instance types.
        handles: what stands here for what has stayed in them.
        turns: is held by who makes use of the notebook's namespace, here and there.
    """

    sessions: dict[tuple[str, ...], Session]
    handles: Handles
    turns: RLock


class Session:
    """One notebook's namespace, at its two ends.

    Args:
        shell: this kernel's IPython.
        options: of the worker.
        together: what it shares with the notebook's other sessions.

    Attributes:
        has_begun: whether there has been a worker.
    """

    def __init__(self, shell: Any, options: Options, together: Together) -> None:
        self._shell = shell
        self.options = options
        self._together = together
        self.has_begun = False
        self._far: RemoteInstance[FarEnd] | None = None
        self._comms = Comms(self._hear)
        self._conversation = Conversation(shell, self._comms)
        self._modules: LocalModules | None = None
        self._cancelled = False  # the cell that runs, or ran last, by others than this notebook
        self._unheard = False  # what was to be done last: it was interrupted before it had gone there
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.mirror = mirror_of(self._shell, self, self._together.handles)
        self._settings = TellSettings(self._shell)

    @property
    def place(self) -> str:
        """Its instance type; of several, any that can be had."""
        return ", ".join(self.options.instance_type)

    def serves(self, options: Options) -> bool:
        """Whether cells with these options can run in it: they ask for nothing that it was not begun with."""
        began = self.options.keywords()
        return all(name in began and began[name] == value for name, value in options.keywords().items())

    # --- turns --------------------------------------------------------------------------------------------------

    def run(
        self,
        cell: Cell,
        names: Iterable[str],
        *,
        deletes: Iterable[str] = (),
        required: Iterable[str] = (),
        codes: Iterable[CodeType] = (),
    ) -> tuple[Outcome, Any]:
        """Run a cell there; return what came of it and the last expression's value.

        Args:
            cell: what is to be run.
            names: that it may use.
            deletes: what it may delete, whatever that is.
            required: of these, what it certainly uses.
            codes: its code.

        Raises:
            SerializationError: something that the cell certainly uses cannot travel.
            RemoteInterrupted: it was interrupted and had to be killed.
            WorkerDied: it is gone, and the namespace there with it.
            RemoteExecError: the worker could not be had.
        """
        with self._together.turns:
            self._see_whether_it_lives()
            used = frozenset(names)
            held = [self.mirror.namespace.get(name) for name in used]
            opaque = any(isinstance(value, Kept) and not value.size for value in held)
            withheld: dict[str, Exception] = {}
            parts = set[str]()

            def look() -> Reach:
                reached = used | self.mirror.agreed if opaque else used
                reach, found = self._look(reached, deletes=deletes, required=required, codes=codes)
                withheld.update(reach.cannot)
                parts.update(found)
                if cell.name and self.host is not None:
                    refuse_taken(cell.name, self.host)
                return reach

            def what(reach: Reach) -> Cell:
                names = tuple(sorted({*reach.looks, *reach.cannot}))
                return cell._replace(names=names, opaque=opaque, parts=tuple(sorted(parts)))

            try:
                outcome, value = self._turn("run", look, what)
                import_as_there(codes, self.mirror.namespace)
                return with_reason(outcome, withheld)._replace(cancelled=self._cancelled), value
            finally:
                if self._modules is not None:
                    self._modules.settle()

    def _look(
        self,
        names: Iterable[str],
        *,
        deletes: Iterable[str] = (),
        required: Iterable[str] = (),
        codes: Iterable[CodeType] = (),
    ) -> tuple[Reach, frozenset[str]]:
        """Find what there is to tell of names, bring the modules there that they need; return parts of these, too."""
        reach = self.mirror.reach(names, deletes=deletes)
        for name in required:
            self._refuse(name, reach)
        needs = needs_of(reach.looks, codes, self.mirror.namespace)
        modules = self._connected()
        modules.bring(needs.all)
        reach = modules.without_missing(reach, needs)
        for name in required:
            self._refuse(name, reach)
        return reach, needs.parts

    def fetch(self, kept: Kept) -> Any:
        """Bring an object that has stayed there.

        Raises:
            RemoteExecError: the session in which it was is lost.
            SerializationError: it cannot travel.
        """
        __tracebackhide__ = True  # IPython leaves this frame out
        with self._together.turns:
            self._see_whether_it_lives()
            if self._far is None or kept.session is not self:
                raise RemoteExecError(f"{kept!r}: it cannot be brought")
            outcome, value = self._turn("bring", lambda: self.mirror.reach(()), lambda _: kept.number)
        if isinstance(value, Kept):
            raise SerializationError(f"it cannot travel: {outcome.cannot.get(VALUE, value.reason)}")
        return value

    def _hear(self, message: CommMessage) -> None:
        """The front end says something to a widget there."""
        error: BaseException | None = None
        try:
            with self._together.turns:  # the page's messages may come in a thread of their own
                self._see_whether_it_lives()
                if self._far is not None:
                    if (reporter := notebook_reporter()) is not None:
                        reporter.belongs_to(header_of(self._shell))
                    outcome, _ = self._turn(
                        "hear", lambda: self._look(self.mirror.agreed)[0], lambda _: message
                    )
                    error = raised(outcome)
        except (RemoteExecError, KeyboardInterrupt) as ended:
            error = frames_are(ended, None)
        if error is not None:
            self._shell.showtraceback((type(error), error, error.__traceback__))

    def _turn(
        self, method: str, look: Callable[[], Reach], what: Callable[[Reach], object]
    ) -> tuple[Outcome, Any]:
        """Have something done there, and take in what has changed by it. Whatever goes wrong, both ends go on.

        Args:
            method: of the far end.
            look: finds what there is to tell before.
            what: is to be done, with that.
        """
        told = self._unheard = False
        if (reporter := notebook_reporter()) is not None:
            reporter.leave_out(name_of_notebook())
        try:
            settings = self._settings.changed()
            while True:
                reach = look()
                told = True
                said = self._said(method, self.mirror.update(reach), what(reach), settings)
                if isinstance(said, Outcome):
                    break
                if isinstance(said, NotLoaded):
                    self.mirror.take_back(said)
                else:
                    self.mirror.forget()
                told = False
            shielded = shield()  # what is half applied would be neither here nor there
            try:
                return self._taken(said)
            finally:
                if shielded:
                    unshield()
        except WorkerDied as error:
            error.message = f"{error.message}\n{self._lost()}"
            raise
        except BaseException:
            if self._unheard:
                self.mirror.take_back()
            elif told and self._far is not None:  # it is not known what the far end knows
                self.mirror.forget()
            self._settings = TellSettings(self._shell)
            raise

    def _said(self, method: str, *arguments: object) -> Outcome | NotLoaded | OutOfStep:
        """Talk with the far end until it has done what is asked."""
        far = self._far
        if far is None:
            raise RemoteExecError("the session has ended")
        levels = log_levels()
        if levels != far._sent.log_levels:
            far._sent.log_levels = levels
        call = far._new_call(method, arguments, {})
        if isinstance(arguments[1], Cell):
            call.called = arguments[1].name
        future = call.future
        with self._conversation.began(call):
            try:
                talk = RemoteIterator[Any](far._dispatcher, call, at_once=self._conversation.show)
            except KeyboardInterrupt:
                self._unheard = future.cancelled()
                raise
            return self._converse(talk, future)

    def _taken(self, outcome: Outcome) -> tuple[Outcome, Any]:
        """Take in what has changed; return it, and the last expression's value."""
        while True:
            try:
                names = self.mirror.apply(outcome.update)
                make_ready(self.mirror.namespace[name] for name in names)
                break
            except (NotLoaded, OutOfStep) as error:
                if self._far is None:
                    raise
                refused = error.with_traceback(None) if isinstance(error, NotLoaded) else None
                outcome = self._far.tell_again(refused)
        if not outcome.value:
            return outcome, None
        value = self.mirror.namespace.pop(VALUE, None)
        if isinstance(value, Kept):
            value.shown = outcome.shown
        return outcome, value

    # --- the worker ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give the worker back; the namespace there is gone."""
        if self._far is not None:
            self._far.close()
            self._far = None
        for kept in list(self._together.handles.values()):
            if kept.session is self:
                kept.session, kept.reason = None, LOST
        self._comms.close()
        self._begin_anew()

    def _connected(self) -> LocalModules:
        if self._far is None or self._modules is None:
            others = [one for one in self._together.sessions.values() if one is not self]
            with saying_who_holds(self.options, others):
                self._far = RemoteInstance(
                    FarEnd,
                    self.options,
                    (),
                    {"in_kernel": is_kernel(self._shell)},
                    name=name_of_notebook(),
                    listed=False,
                    idle_seconds=IDLE_SECONDS,
                    **environment_for(self._shell, self.options),
                )
            self.has_begun = True
            self._modules = LocalModules(self._shell, self._far)
        return self._modules

    @property
    def host(self) -> Host | None:
        """Where its worker is, if it has begun."""
        return None if self._far is None else self._far._host

    @property
    def died_of(self) -> BaseException | None:
        """What has ended its worker since the last cell; the next cell will begin another."""
        return None if self._far is None else self._far._dispatcher._broken

    def _see_whether_it_lives(self) -> None:
        """Where the worker has died since the last cell, say so; another will be begun."""
        broken = self.died_of
        if broken is not None:
            why = broken.message if isinstance(broken, RemoteExecError) else str(broken)
            print(f"{why}\n{self._lost()}", file=sys.stderr)

    def _lost(self) -> str:
        """Give up what is there; return what that means to the user."""
        gone = kept_in(self._shell, self)
        self.close()
        told = "The remote namespace is lost; this notebook's own names are as they were before that cell."
        if gone:
            told += f" What had stayed there is gone: {', '.join(gone)}."
        return f"{told} The next %%remote cell begins another."

    def _refuse(self, name: str, reach: Reach) -> None:
        """Raise why a name that is certainly used cannot be used there."""
        value = self.mirror.namespace.get(name)
        if isinstance(value, Kept) and value.session is not self:
            raise self._elsewhere(name, value)
        error = reach.cannot.get(name)
        if isinstance(error, NotLoaded):
            hint = self._modules.what_helps_with(error) if self._modules is not None else ""
            raise SerializationError(f"{name} cannot be loaded there: {error}", path=(name,), hint=hint)
        if isinstance(error, RuntimeEnvironmentError):
            raise error
        if error is not None:
            pickling.dump(value, name=name)  # it tells of the path to the culprit
            raise SerializationError(f"{name} cannot travel: {error}", path=(name,))

    def _elsewhere(self, name: str, kept: Kept) -> SerializationError:
        """Return why what has stayed in another session cannot be used in this one."""
        if kept.session is None:
            told, hint = LOST, f"make {name} again"
        else:
            there = kept.session.place
            told = f"has stayed on {there}, and this cell runs on {self.place}"
            hint = f"use it in a cell there (%%remote {there})"
            if kept.travels:
                hint += f", or bring it first: {name} = {name}.fetch()"
        return SerializationError(f"{name} {told}", path=(name,), hint=hint)

    # --- while a cell runs --------------------------------------------------------------------------------------

    def _converse(
        self, talk: RemoteIterator[Any], future: RemoteFuture[Any]
    ) -> Outcome | NotLoaded | OutOfStep:
        until, interrupted = 0.0, False
        self._cancelled = False
        with Arrivals(talk, name_of_notebook()) as arrivals:
            while arrivals.said is None:
                try:
                    if until and not talk.wait(until):
                        raise RemoteInterrupted(self._lost_by_interrupt())
                    told = arrivals.next()
                    if isinstance(told, Heeded):
                        until = 0.0
                        self._cancelled = told.asked and not interrupted
                    elif isinstance(told, Ask):
                        talk.answer(self._conversation.ask(told))
                    elif arrivals.said is not None:
                        self._conversation.is_over()
                except CancelledError:
                    if self._is_alive():  # it had not begun
                        raise KeyboardInterrupt from None
                    raise RemoteInterrupted(self._lost_by_interrupt()) from None
                except RemoteInterrupted:
                    raise
                except KeyboardInterrupt:
                    if (
                        interrupted and arrivals.said is None
                    ):  # whoever does so wants to go on, whatever is lost
                        raise RemoteInterrupted(self._lost_by_interrupt()) from None
                    until, interrupted = time.monotonic() + HEED_SECONDS, True
                    future.cancel()
            return arrivals.said

    def _lost_by_interrupt(self) -> str:
        return f"the cell did not heed the interrupt, and its process was ended. {self._lost()}"

    def _is_alive(self) -> bool:
        if self._far is None:
            return False
        try:
            return bool(self._far.is_there.submit().result(ANSWER_SECONDS))
        except (RemoteExecError, TimeoutError, CancelledError):
            return False


def with_reason(outcome: Outcome, withheld: Mapping[str, Exception]) -> Outcome:
    """Have an error say which names of the cell's could not go there, where it comes of that."""
    failure = outcome.failure
    if failure is None or not withheld:
        return outcome
    if NOT_HERE in failure.message:  # what stands for them there
        named = list(withheld)
    else:
        named = [name for name in withheld if failure.message == f"name {name!r} is not defined"]
    notes = [f"{name} stays here: {withheld[name]}" for name in named]
    return outcome._replace(failure=replace(failure, notes=(*failure.notes, *notes)))


def raised(outcome: Outcome) -> BaseException | None:
    """Return what the cell raised, as it is to be raised here."""
    if outcome.failure is None:
        return None
    error = failures.rebuild(outcome.failure, loads=pickling.load, locate=locate, values=True)
    if outcome.cancelled:
        error.args = (CANCELLED,)
    return error


def name_of_notebook() -> str:
    """Return what its cells are called in lists of jobs."""
    name = Path(notebook_path()).stem
    return re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_")[:40] or "notebook"
