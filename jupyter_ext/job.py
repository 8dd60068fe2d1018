"""Cells that run as durable jobs: handing one over, and what it came to."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import CodeType
from typing import Any

from remote_exec.capture.function import FunctionCapture
from remote_exec.client.caller import sent_of
from remote_exec.client.connections import connections
from remote_exec.client.finding import find_job, future_of
from remote_exec.client.groups import refuse_group
from remote_exec.client.jobs import JobFuture, job_name, submit_job
from remote_exec.client.target import bring_trees, find_place
from remote_exec.errors import SerializationError
from remote_exec.model.ids import new_id
from remote_exec.options import Options
from remote_exec.serial import pickling
from remote_exec.session.cell_text import CELL, as_written
from remote_exec.session.detached import LEFT, Finished, run_cell
from remote_exec.session.far_end import VALUE, Cell
from remote_exec.session.kept import Kept
from remote_exec.session.updates import NotLoaded, Update

from .cards import Card, card_of_job
from .front_end import is_kernel
from .modules import environment_for, needs_of
from .namespace import mirror_of
from .session import name_of_notebook
from .settings import TellSettings

FUNCTION = "cell"


class DetachedCell:
    """A cell that runs as a job of its own, or has. Its display goes on updating while the kernel lives.

    Example:
        >>> fit = %remote attach fit        # doctest: +SKIP
        >>> fit.result()  # the last expression's value  # doctest: +SKIP
        >>> fit.apply()  # bind the names that it has changed  # doctest: +SKIP
    """

    def __init__(self, shell: Any, future: JobFuture) -> None:
        self._shell = shell
        self._future = future
        self._shown = False

    @property
    def name(self) -> str:
        """The job's name."""
        return self._future.job

    @property
    def status(self) -> str:
        """One of queued, running, succeeded, failed, cancelled."""
        return self._future.status

    @property
    def future(self) -> JobFuture:
        """The job's future, as `remote_exec.get_future` gives it."""
        return self._future

    def done(self) -> bool:
        """Return whether it has ended."""
        return self._future.done()

    def why(self) -> str:
        """Say in words what it waits for."""
        return self._future.why()

    def logs(self) -> str:
        """Return what it has printed so far."""
        return self._future.logs()

    def cancel(self, wait: bool = False) -> bool:
        """Ask for it to be stopped; see `RemoteFuture.cancel`."""
        return self._future.cancel(wait)

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the cell, show what it has displayed, once, and return its last expression's value.

        No name of this notebook is bound: that does `apply`. Ctrl-C ends the waiting, not the job.

        Args:
            timeout: seconds to wait at most; None waits for as long as it takes.

        Raises:
            TimeoutError: it has not ended in time; it goes on.
            CancelledError: it was cancelled.
            BaseException: what the cell raised.
        """
        __tracebackhide__ = True
        finished = self._future.result(timeout)
        if not isinstance(finished, Finished):
            return finished
        self._show(finished)
        if finished.value is not None:
            return self._taken(finished.value)
        return Unbrought(finished) if finished.shown else None

    def apply(self, timeout: float | None = None) -> tuple[str, ...]:
        """Wait for the cell and bind the names here that it has changed; return them.

        Where it ended in an exception, they are those that it had changed till then.

        Raises:
            TimeoutError: it has not ended in time; it goes on.
            CancelledError: it was cancelled.
            BaseException: what the cell raised, where nothing is known of its names.
        """
        __tracebackhide__ = True
        try:
            finished = self._future.result(timeout)
        except Exception as error:
            finished = getattr(error, LEFT, None)
            if finished is None:
                raise
        if not isinstance(finished, Finished):
            return ()
        for name, reason in finished.cannot.items():
            if name != VALUE:
                print(f"{name} did not come: {reason}", file=sys.stderr)
        return tuple(sorted({*self._take_in(finished.names), *finished.names.deleted}))

    def __reduce__(self) -> Any:
        raise TypeError("it belongs to this kernel: pass what the cell came to, its .result()")

    def card(self) -> Card:
        """Return how it stands, for its display."""
        return card_of_job(self._future.told())

    def __repr__(self) -> str:
        return f"<detached cell {self.name}>"

    def _taken(self, update: Update) -> Any:
        self._take_in(update)
        return self._shell.user_ns.pop(VALUE, None)

    def _take_in(self, update: Update) -> list[str]:
        try:
            return mirror_of(self._shell).apply(update)
        except NotLoaded as error:
            raise SerializationError(
                f"{self.name}: what it has left cannot be loaded here: {error}"
            ) from None

    def _show(self, finished: Finished) -> None:
        shown, self._shown = self._shown, True
        for one in [] if shown else finished.displays:
            self._shell.display_pub.publish(data=one.data, metadata=one.metadata)


class Unbrought:
    """A value that could not travel: it looks as it did there."""

    def __init__(self, finished: Finished) -> None:
        self._data = finished.shown
        self._text = finished.text
        self.reason = finished.cannot.get(VALUE, "")

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return self._data

    def __repr__(self) -> str:
        return self._text


def detach(
    shell: Any,
    cell: Cell,
    names: Iterable[str],
    *,
    required: Iterable[str],
    codes: Iterable[CodeType],
    options: Options,
) -> DetachedCell:
    """Hand a cell over as a durable job, with a snapshot of the names that it uses; return when it is written down.

    Args:
        shell: this kernel's IPython.
        cell: what is to be run.
        names: that it may use.
        required: of these, those that it certainly uses.
        codes: it, compiled.
        options: of the job.

    Raises:
        SerializationError: something that the cell certainly uses cannot travel.
        ConfigurationError: an option is wrong, or a job of that name exists.
        HostUnavailable: no agent could be reached.
    """
    stay = {name for name in names if isinstance(shell.user_ns.get(name), Kept)}
    for name in required:
        if name in stay:
            raise SerializationError(
                f"{name} stays in this notebook's worker, and a detached cell has one of its own",
                hint=f"bring it first: {name} = {name}.fetch()",
                path=(name,),
            )
    mirror = mirror_of(shell)
    reach = mirror.reach(name for name in names if name not in stay)
    for name in required:
        if name in reach.cannot:
            pickling.dump(shell.user_ns[name], name=name)  # it says why
            raise SerializationError(f"{name} cannot travel", path=(name,))
    needs = needs_of(reach.looks, codes, mirror.namespace)
    cell = cell._replace(names=tuple(sorted(reach.looks)), parts=tuple(sorted(needs.parts)))
    told = (mirror.update(reach), cell, TellSettings(shell).changed(), is_kernel(shell))
    arguments = pickling.dump_arguments(told, {})
    environment = environment_for(shell, options)
    found = FunctionCapture(
        run_cell,
        name=FUNCTION,
        options=options,
        modules=needs.all | environment["modules"],
        requires=environment["requires"],
        watch=connections.watch,
    ).current()
    place = find_place(found, options, private=new_id())
    refuse_group(place.options, "a cell")
    bring_trees(arguments, place.host, FUNCTION)
    job = submit_job(
        place,
        sent_of(FUNCTION, found, place),
        arguments,
        name=job_name(place.options, f"{name_of_notebook()}-{cell.number}"),
        code=as_written(cell.source),
        tags=((CELL, str(cell.number)),),
    )
    return DetachedCell(shell, job)


def attached(shell: Any, name: str) -> DetachedCell | JobFuture:
    """Return a job as it is found again: a detached cell, or the future of what else it is.

    Raises:
        JobNotFound: there is none of that name.
    """
    host, told = find_job(name)
    future = future_of(name, host, told)
    return DetachedCell(shell, future) if told["job"]["function"] == FUNCTION else future
