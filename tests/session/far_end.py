"""The far end of a mirrored namespace in a process of its own: cells are plain `exec`."""

from __future__ import annotations

import gc
import sys
import traceback
import types
import weakref
from multiprocessing.connection import Connection
from typing import Any

from remote_exec.serial import pickling
from remote_exec.session.mirror import Mirror
from remote_exec.session.updates import NotLoaded, OutOfStep, Update


class FarEnd:
    """One namespace, and what is asked of it."""

    def __init__(self) -> None:
        main = types.ModuleType("__main__")
        sys.modules["__main__"] = main
        self.mirror = Mirror(vars(main), first=1, own=is_own)
        self._names: list[str] = []
        self._watched: dict[str, weakref.ref[Any]] = {}
        self._most: int | None = None

    def run(self, update: Update, names: list[str], source: str, most_bytes: int | None) -> Any:
        """Run a cell; return what has changed, what cannot travel and what the cell raised."""
        try:
            self.mirror.apply(update)
        except (NotLoaded, OutOfStep) as error:
            return error
        failure = ""
        try:
            exec(compile(source, "<cell>", "exec"), self.mirror.namespace)
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
        self._names, self._most = names, most_bytes
        return (*self._told(), failure)

    def tell_again(self, error: NotLoaded | None) -> Any:
        """Say again what has changed: home could not take it."""
        if error is None:
            self.mirror.forget()
        else:
            self.mirror.take_back(error)
        return self._told()

    def _told(self) -> tuple[Update, dict[str, str]]:
        reach = self.mirror.reach([*self._names, *self.mirror.rebound()], most_bytes=self._most)
        cannot = {name: str(error) for name, error in reach.cannot.items()}
        return self.mirror.update(reach), cannot

    def watch(self, name: str) -> None:
        """Note an object, for `lives`."""
        self._watched[name] = weakref.ref(self.mirror.namespace[name])

    def lives(self, name: str) -> bool:
        """Whether it is still there."""
        gc.collect()
        return self._watched[name]() is not None

    def size(self) -> int:
        """How many objects are known by number."""
        return self.mirror.size

    def kept(self) -> int:
        """How many objects stay here."""
        return len(self.mirror.kept)


def is_own(name: str) -> bool:
    """Whether a name is one end's alone."""
    return name.startswith("__")


def serve(connection: Connection) -> None:
    """Do what is asked until nothing is."""
    far = FarEnd()
    while True:
        try:
            told = connection.recv_bytes()
        except EOFError:
            return
        try:
            method, arguments = pickling.load(told)
            if method == "begin":
                far = FarEnd()
                reply: Any = None
            else:
                reply = getattr(far, method)(*arguments)
        except Exception as error:
            reply = BrokenFarEndError("".join(traceback.format_exception(error)))
        connection.send_bytes(pickling.dump_bytes(reply))


class BrokenFarEndError(Exception):
    """The far end itself has failed."""
