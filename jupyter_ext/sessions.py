"""A notebook's sessions: one for each instance type that its cells have named, and the one namespace here between them.

Each session is told what the notebook's names have come to stand for since it was told last, by whatever cell, here or
in another session. What has stayed in one session is of use there alone. Cells take turns, also those of a kernel's
subshells, and what widgets have to say.
"""

from __future__ import annotations

import sys
import threading
import weakref
from typing import Any

from remote_exec.client.connections import connections
from remote_exec.config import load_config, resolve_instance_types
from remote_exec.errors import ConfigurationError
from remote_exec.options import Options, check_readers

from .namespace import kept_in
from .session import Session, Together


class Sessions:
    """See the module's docstring. Owned by the kernel's main thread.

    Args:
        shell: this kernel's IPython.

    Attributes:
        last: the one that a cell has used last.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._together = Together({}, weakref.WeakValueDictionary(), threading.RLock())
        self.last: Session | None = None

    def __iter__(self) -> Any:
        return iter(list(self._together.sessions.values()))

    def of(self, options: Options) -> Session:
        """Return the session of these options' instance type; it begins where there is none.

        Raises:
            ConfigurationError: it was begun with other options, and something lives there that would be lost.
        """
        options = _read_there(options)
        kind = tuple(options.instance_type)
        session = self._together.sessions.get(kind)
        if session is not None and not session.has_begun:
            session = None
        if session is not None and not session.serves(options):
            self._see_that_nothing_is_lost(session, options)
            print(
                f"{session.place}: another worker begins, with {_told(options)}; the one with {_told(session.options)} "
                "is given back",
                file=sys.stderr,
            )
            session.close()
            session = None
        if session is None:
            session = self._together.sessions[kind] = Session(self._shell, options, self._together)
        self.last = session
        return session

    def named(self, name: str) -> Session | None:
        """Return the session of an instance type, if it has begun."""
        return next((session for session in self if session.place == name), None)

    def prune(self) -> None:
        """Hold on to nothing that the notebook has let go."""
        for session in self:
            session.mirror.prune()

    def end(self, session: Session) -> None:
        """Give its worker back."""
        session.close()
        self._together.sessions.pop(tuple(session.options.instance_type), None)
        if self.last is session:
            self.last = None

    def close(self) -> None:
        """Give all workers back."""
        for session in self:
            self.end(session)

    def _see_that_nothing_is_lost(self, session: Session, options: Options) -> None:
        lost = kept_in(self._shell, session)
        if not lost:
            return
        restart = f"%remote restart {session.place}"
        brings = [name for name in lost if self._shell.user_ns[name].travels]
        bring = f"bring what can travel ({brings[0]} = {brings[0]}.fetch()), and then: " if brings else ""
        raise ConfigurationError(
            f"{session.place} has a session with {_told(session.options)}; {_told(options)} means another "
            f"worker, and what has stayed in the former one would be lost: {', '.join(lost)}",
            hint=f"leave the options out, and the cell runs in that session; or {bring}{restart}",
        )


def _told(options: Options) -> str:
    """Return in one line what else than the instance type was asked for."""
    told = ", ".join(f"{name}={text}" for name, text in options.shown().items() if name != "instance_type")
    return told or "no options"


def _read_there(options: Options) -> Options:
    """Leave out what the backend does not read, and say so, once: it makes no other session."""
    config = load_config()
    instances = resolve_instance_types(config.resolve(options).instance_type, config)
    if len(instances) != 1:
        return options
    backend = instances[0].backend
    for sentence in check_readers(options, backend):
        connections.reporter.note(sentence)
    return Options(
        {name: one for name, one in options.settings.items() if Options.rows[name].read_by(backend)}
    )
