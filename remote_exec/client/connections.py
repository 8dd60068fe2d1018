"""This process's sessions and dispatchers, and what becomes of them when it forks or ends.

When a script ends with calls pending, it waits for them, as with the standard library's executors; when it ends
by Ctrl-C, they are cancelled. A forked child lets go of its parent's connections and opens its own.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from ..backends import local, runtime
from ..backends.host import Host
from ..backends.patience import Patience, given_up, is_over, left, within
from ..backends.progress import heard_by
from ..model.errors import HostUnavailable
from ..model.versions import numbers_of
from ..version import VERSION
from . import greeting
from .channel import Channel
from .dispatcher import Dispatcher
from .interrupts import ends_program
from .phases import Phases, Span
from .reporter import Console, Reporter
from .session import Session, open_session

NAP_SECONDS = 0.01
LOOK_SECONDS = 0.1
T = TypeVar("T")


class Connections:
    """One for each process."""

    def __init__(self) -> None:
        self.reporter: Reporter = Console()
        self._phases = Phases(self.reporter)
        self._lock = threading.RLock()
        self._sessions: dict[Host, Session] = {}
        self._opening: dict[Host, threading.RLock] = {}
        self._connecting: dict[Host, Patience | None] = {}  # of whoever has that lock
        self._dispatchers: dict[tuple[Host, str], Dispatcher] = {}

    def report_to(self, reporter: Reporter) -> None:
        """Have another reporter hear of all calls, from now on."""
        with self._lock:
            former, self.reporter = self.reporter, reporter
            self._phases.report_to(reporter)
            for dispatcher in self._dispatchers.values():
                dispatcher.report_to(reporter, instead_of=former)

    def prepare(self, host: Host) -> None:
        """Begin to reach the agent, in a thread, if there is no session yet: starting one takes a while."""
        if host not in self._sessions:
            threading.Thread(target=self._prepare, args=(host,), daemon=True).start()

    def _prepare(self, host: Host) -> None:
        with contextlib.suppress(Exception):  # it is said to whoever asks for the session
            self.session(host)

    def session(self, host: Host | None = None, *, seconds: float | None = None) -> Session:
        """Return a session with the agent of a host, connected anew if the last one was lost.

        Args:
            host: by default this machine.
            seconds: how long another may take to answer; by default as the call's options or the configuration say.

        Raises:
            HostUnavailable: no agent could be reached or started.
        """
        host = host or local.here()
        session = self._sessions.get(host)
        if session is not None and not session.lost:
            return session
        if host.here:
            return self._open(host)
        from .far_session import patience

        with within(patience() if seconds is None else seconds) as mine:
            return self._open(host, mine)

    def _open(self, host: Host, mine: Patience | None = None) -> Session:
        with (
            self.watch("start", "the agent") as span,
            heard_by(span.tell),
            self._alone(host, span),
        ):
            session = self._sessions.get(host)
            if session is not None and not session.lost:
                return session
            self._connecting[host] = mine
            session = self._sessions[host] = open_session(host)
        self._say_if_older(host, session)
        if not host.here:
            from .inventory import note_reached

            note_reached(host, version=session.welcome.version)
        return session

    def _say_if_older(self, host: Host, session: Session) -> None:
        """An older agent gives way when it has no work; until then what is new here may not be understood there."""
        agents, place, stop = session.welcome, "this machine", "remote-exec hosts stop"
        if not host.here:
            place, stop = host.name, f"{stop} {host.name}"
        if agents.runtime != runtime.digest() and numbers_of(agents.version) <= numbers_of(VERSION):
            self.reporter.note(
                f"the agent on {place} has work and is of another installation (version {agents.version}, here is "
                f"{VERSION}); one of this version follows when its work is done, or is ended by `{stop}`"
            )

    @contextlib.contextmanager
    def _alone(self, host: Host, span: Span) -> Generator[None]:
        """Have the connecting to a host to oneself; give up in time, unless whoever has it has heard the host."""
        lock = self._opening.setdefault(host, threading.RLock())  # one that does not answer holds up no other
        meanwhile = f"another thread is connecting to {host.name}"
        while not lock.acquire(timeout=left(LOOK_SECONDS)):
            span.tell(meanwhile)
            other = self._connecting.get(host)
            if is_over() and (other is None or not other.heard):
                raise given_up(host.name, meanwhile=meanwhile)
        try:
            yield
        finally:
            lock.release()

    def watch(self, name: str, of: str) -> Span:
        """Return a phase of a function's call, to be entered by ``with``: it is shown when it lasts."""
        return self._phases.watch(name, of)

    def with_agent(self, host: Host, work: Callable[[Session], T]) -> T:
        """Do what may be done twice; do it again with the next agent if this one dies meanwhile.

        Raises:
            HostUnavailable: no agent could be reached, or two have died.
        """
        session = self.session(host)
        try:
            return work(session)
        except HostUnavailable:
            return work(self.session(host))

    def dispatcher(self, host: Host, key: str, request: dict[str, Any], *, max_workers: int) -> Dispatcher:
        """Return the dispatcher of a pool and bundle."""
        with self._lock:
            found = self._dispatchers.get((host, key))
            if found is None:
                found = self._make(host, request, max_workers=max_workers)
                self._dispatchers[host, key] = found
            return found

    def pending(self, host: Host) -> int:
        """Return how many calls of this process have not ended that were given to a host."""
        return sum(one.pending for (there, _), one in list(self._dispatchers.items()) if there == host)

    def leases(self, host: Host) -> int:
        """Return how many leases this process has on a host, or waits for."""
        return sum(one.leases for (there, _), one in list(self._dispatchers.items()) if there == host)

    def priced(self, since: float) -> list[Channel]:
        """Return the channels whose worker has a price, and is at work on a call made at that time or later."""
        return [found for one in list(self._dispatchers.values()) for found in one._lanes.priced(since)]

    def is_there(self, host: Host) -> bool:
        """Whether there is a session with a host's agent, whose connection is not broken."""
        session = self._sessions.get(host)
        return session is not None and not (session.lost or session.away)

    def is_away(self, host: Host) -> bool:
        """Whether the connection to a host's agent is broken just now, and not mended yet."""
        session = self._sessions.get(host)
        return session is not None and session.away

    def private(self, host: Host, request: dict[str, Any], **settings: Any) -> Dispatcher:
        """Return a dispatcher that nobody else gets; `drop` it when it is done with."""
        made = self._make(host, request, **settings)
        with self._lock:
            self._dispatchers = {key: one for key, one in self._dispatchers.items() if not one.closed}
            self._dispatchers[host, f"private-{id(made)}"] = made
        return made

    def _make(self, host: Host, request: dict[str, Any], **settings: Any) -> Dispatcher:
        settings = {"reporter": self.reporter, **settings}
        return Dispatcher(
            lambda: self.session(host, seconds=request.get("linger_seconds")), request, **settings
        )

    def drop(self, dispatcher: Dispatcher, *, cancel: bool = False) -> None:
        """Close a dispatcher that will not be used again."""
        with self._lock:
            for key, found in list(self._dispatchers.items()):
                if found is dispatcher:
                    del self._dispatchers[key]
        dispatcher.close(cancel=cancel)

    def close(self) -> None:
        """Wait for what is pending, or cancel it after Ctrl-C; give every worker back."""
        interrupted = ends_program()
        while not interrupted and any(one.pending for one in list(self._dispatchers.values())):
            try:
                time.sleep(NAP_SECONDS)
            except KeyboardInterrupt:
                interrupted = True
        for dispatcher in list(self._dispatchers.values()):
            dispatcher.close(cancel=interrupted)
        for session in list(self._sessions.values()):
            session.close()
        greeting.let_go()
        local.let_go()

    def abandon(self) -> None:
        """In a forked child."""
        for dispatcher in self._dispatchers.values():
            dispatcher.abandon()
        for session in list(self._sessions.values()):
            session.abandon()
        local.let_go()
        self.__init__()  # type: ignore[misc]


connections = Connections()

atexit.register(connections.close)
os.register_at_fork(after_in_child=connections.abandon)
