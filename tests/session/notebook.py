"""A notebook whose cells run here or at a far end in another process, for tests of the mirror alone."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import types
from multiprocessing.connection import Pipe
from typing import Any

from remote_exec.serial import pickling
from remote_exec.session.mirror import Mirror, Reach
from remote_exec.session.scoping import names_of
from remote_exec.session.updates import NotLoaded, OutOfStep

from .far_end import BrokenFarEndError, is_own, serve


class Process:
    """Another process, with one far end after the other."""

    def __init__(self) -> None:
        self._ours, theirs = Pipe()
        code = f"from multiprocessing.connection import Connection; from {serve.__module__} import serve; "
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"{code}serve(Connection({theirs.fileno()}))"],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "FAR_END": "1"},
        )
        theirs.close()
        self.ask("begin")

    def ask(self, method: str, *arguments: Any) -> Any:
        """Have a method of the far end called."""
        self._ours.send_bytes(pickling.dump_bytes((method, arguments)))
        reply = pickling.load(self._ours.recv_bytes())
        if isinstance(reply, BrokenFarEndError):
            raise reply
        return reply

    def close(self) -> None:
        """End it."""
        self._ours.close()
        self._process.wait()


class Notebook:
    """One namespace at two ends, the near one this process's `__main__`.

    Args:
        process: with the far end.
        most_bytes: of a value, that may come.
        beside: another, with which it shares the near end.
    """

    def __init__(
        self, process: Process, *, most_bytes: int | None = None, beside: Notebook | None = None
    ) -> None:
        self.process = process
        process.ask("begin")
        main = types.ModuleType("__main__")
        if beside is None:
            sys.modules["__main__"] = main
        self.names: dict[str, Any] = vars(main) if beside is None else beside.names
        self.mirror = Mirror(self.names, first=0, own=is_own)
        self.most_bytes = most_bytes
        self.cannot: dict[str, str] = {}
        self.sent = self.came = 0

    def __getitem__(self, name: str) -> Any:
        return self.names[name]

    def here(self, source: str) -> str:
        """Run a cell here; return what it raised."""
        failure = ""
        try:
            exec(compile(source, "<cell>", "exec"), self.names)
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
        self.mirror.prune()
        return failure

    def there(self, source: str) -> str:
        """Run a cell at the far end; return what it raised."""
        names = names_of(compile(source, "<cell>", "exec"))
        while True:
            reach = self.mirror.reach(names.could_read(self.names), deletes=names.deletes)
            update = self.mirror.update(reach)
            self.sent = update.size
            reply = self.process.ask("run", update, _followed(reach), source, self.most_bytes)
            if isinstance(reply, NotLoaded):
                self.mirror.take_back(reply)
            elif isinstance(reply, OutOfStep):
                self.mirror.forget()
            else:
                break
        update, self.cannot, failure = reply
        while True:
            try:
                self.mirror.apply(update)
            except (NotLoaded, OutOfStep) as error:
                update, cannot = self.process.ask(
                    "tell_again", error if isinstance(error, NotLoaded) else None
                )
                self.cannot |= cannot
            else:
                break
        self.came = update.size
        assert isinstance(failure, str)
        return failure

    def reached(self, source: str) -> Reach:
        """Return what a cell would use."""
        return self.mirror.reach(names_of(compile(source, "<cell>", "exec")).could_read(self.names))


def _followed(reach: Reach) -> list[str]:
    return sorted({*reach.looks, *reach.cannot})


def value_of(notebook: Notebook, expression: str) -> Any:
    """Return an expression's value here."""
    ast.parse(expression, mode="eval")
    return eval(expression, notebook.names)  # noqa: S307 - the test's own
