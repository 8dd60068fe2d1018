"""The notebook's end of a session: what a cell needs goes to the one worker of this notebook, what it changed comes back.

Owned by the kernel's main thread. A session's worker lives for as long as the session; when it dies, its namespace is
lost, and the next cell begins another.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from remote_exec.client.generators import RemoteIterator
from remote_exec.errors import RemoteExecError, SerializationError
from remote_exec.options import Options
from remote_exec.remote_class import RemoteInstance
from remote_exec.serial import failures, pickling
from remote_exec.session.far_end import VALUE, Cell, FarEnd, Outcome
from remote_exec.session.mirror import Mirror
from remote_exec.session.shell import Ask, Clear, Display

if TYPE_CHECKING:
    from remote_exec.future import RemoteFuture

MOST_BYTES = 256 << 20
INTERRUPTED_SECONDS = 1.5  # how long an interrupted cell may take to end before its worker is killed


class Shown:
    """What a remote value looks like that stayed there: it shows itself as it did there."""

    def __init__(self, data: dict[str, Any], why: str) -> None:
        self._data = data
        self.why = why

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return self._data

    def __repr__(self) -> str:
        return str(self._data.get("text/plain", "<remote value>"))


class Session:
    """One notebook's namespace, at its two ends.

    Args:
        shell: this kernel's IPython.
        options: of the worker.
    """

    def __init__(self, shell: Any, options: Options) -> None:
        self._shell = shell
        self.options = options
        self.mirror = Mirror(shell.user_ns, first=0, own=self._is_own)
        self._far: RemoteInstance[FarEnd] | None = None

    def _is_own(self, name: str) -> bool:
        if name in self._shell.user_ns_hidden or name in ("In", "Out", "exit", "quit", "open", "get_ipython"):
            return True
        return name.startswith("_") and (name.strip("_") == "" or name[1:].isdigit() or name.startswith(("__", "_i", "_dh", "_oh", "_ih", "_exit_code")))

    def run(self, cell: Cell, names: Iterable[str], *, required: Iterable[str] = ()) -> tuple[Outcome, Any]:
        """Run a cell there; return what came of it and the last expression's value.

        Raises:
            SerializationError: something that the cell certainly uses cannot travel.
            RemoteExecError: the worker could not be had, or has died.
        """
        far = self._connected()
        reach = self.mirror.reach(names)
        for name in required:
            if name in reach.cannot:
                raise self._explained(name)
        update = self.mirror.update(reach)
        cell = cell._replace(names=tuple(sorted(reach.looks)))
        call = far._new_call("run", (update, cell, self._settings()), {})
        talk: RemoteIterator[Any] = RemoteIterator(far._dispatcher, call, at_once=self._show)
        outcome = self._converse(talk, call.future)
        self.mirror.apply(outcome.update)
        value = self.mirror.namespace.pop(VALUE, None) if outcome.value else None
        return outcome, value

    def close(self) -> None:
        """Give the worker back; the namespace there is gone."""
        if self._far is not None:
            self._far.close()
            self._far = None
        self.mirror = Mirror(self._shell.user_ns, first=0, own=self._is_own)

    def _connected(self) -> RemoteInstance[FarEnd]:
        if self._far is None:
            self._far = RemoteInstance(FarEnd, self.options, (), {})
        return self._far

    def _explained(self, name: str) -> Exception:
        try:
            pickling.dump(self.mirror.namespace[name], name=name)
        except SerializationError as error:
            return error
        return SerializationError(f"{name} cannot travel", path=(name,))

    def _converse(self, talk: RemoteIterator[Any], future: RemoteFuture[Any]) -> Outcome:
        while True:
            try:
                told = next(talk)
            except StopIteration as end:
                outcome: Outcome = end.value
                return outcome
            except KeyboardInterrupt:
                self._interrupt(future)
            else:
                talk.answer(self._asked(told))

    def _interrupt(self, future: RemoteFuture[Any]) -> None:
        """Have the cell interrupted there; where it does not heed, its worker is killed and its namespace lost."""
        future.cancel()

    def _show(self, told: object) -> bool:
        if isinstance(told, Display):
            self._shell.display_pub.publish(
                data=told.data, metadata=told.metadata, transient=told.transient, update=told.update
            )
            return True
        if isinstance(told, Clear):
            self._shell.display_pub.clear_output(wait=told.wait)
            return True
        return False

    def _asked(self, told: object) -> str | None:
        if not isinstance(told, Ask):
            return None
        try:
            if told.password:
                import getpass

                return getpass.getpass(told.prompt)
            return input(told.prompt)
        except Exception:
            return None

    def _settings(self) -> dict[str, Any]:
        return {"ast_node_interactivity": self._shell.ast_node_interactivity}


def raised(outcome: Outcome) -> BaseException | None:
    """Return what the cell raised, as it is to be raised here."""
    if outcome.failure is None:
        return None
    return failures.rebuild(outcome.failure, loads=pickling.load)


_ = (contextlib, time, Callable, RemoteExecError)
