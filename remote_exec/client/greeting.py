"""Hello to an agent, and its welcome. The one may be said long before the other is waited for: see `ahead`."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from concurrent.futures import Future
from typing import Any

from ..backends import runtime
from ..backends.host import Host
from ..backends.patience import Patience, answered, heeding, left, share
from ..backends.progress import heard_by, tell
from ..config import load_config
from ..model.errors import ConfigurationError
from ..options import Options
from ..version import VERSION
from ..wire import protocol
from ..wire.control import ControlStream

Greeted = tuple[ControlStream, protocol.Welcome]

WELCOME_SECONDS = 15.0
LOOK_SECONDS = 0.1
SETTINGS = (
    "agent_idle_timeout_in_seconds",
    "quotas",
    "cache_size_limit",
    "retention_in_days",
    "retention_size_limit",
)


class Greeting:
    """A connection on which hello was said.

    Args:
        host: where the agent is.
        sock: a connection to it; it stays the caller's until the agent is known to be the one.

    Raises:
        OSError: it is broken.
    """

    def __init__(self, host: Host, sock: socket.socket) -> None:
        sock.settimeout(left(WELCOME_SECONDS))
        hello = protocol.Hello(
            protocol.PROTOCOL,
            VERSION,
            runtime.digest(),
            ".".join(map(str, sys.version_info[:3])),
            os.getpid(),
            settings_of_agent(),
            (getattr(sys, "_base_executable", None) or sys.executable) if host.here else "",
        )
        self.stream = _stream(host, sock)
        self.stream.send(hello)

    def welcome(self) -> protocol.Welcome | None:
        """Wait for the welcome; None when that agent has ended, or gives way so that another is to be sought."""
        try:
            self.stream.sock.settimeout(left(WELCOME_SECONDS))
            while not (received := self.stream.receive()):
                if received is None:
                    return None
        except OSError:
            return None
        welcome = received[0].message
        if not isinstance(welcome, protocol.Welcome):
            return None
        if not welcome.accepted:
            _wait_for_end(self.stream.sock)
            return None
        self.stream.sock.settimeout(None)
        return welcome


class _Reaching:
    """A thread in which a host's agent is reached, since the way there is not open."""

    def __init__(self, host: Host) -> None:
        from queue import SimpleQueue

        from .far_session import patience

        self._patience = Patience(patience())
        self._told: SimpleQueue[str | None] = SimpleQueue()
        self._result: Future[Greeted] = Future()
        threading.Thread(target=self._reach, args=(host,), name="remote_exec-reach", daemon=True).start()

    def _reach(self, host: Host) -> None:
        try:
            with heard_by(self._told.put), heeding(self._patience):
                self._result.set_result(_reach(host))
        except BaseException as error:
            self._result.set_exception(error)
        finally:
            self._told.put(None)

    def result(self) -> Greeted:
        from queue import Empty

        share(self._patience)
        while True:
            try:
                detail = self._told.get(timeout=LOOK_SECONDS)
            except Empty:
                if self._patience.heard:
                    answered()
                continue
            if detail is None:
                break
            tell(detail)
        return self._result.result()


_begun: dict[Host, Greeting | _Reaching] = {}
_lock = threading.Lock()


def begin(host: Host, sock: socket.socket | None) -> None:
    """Say hello to a host's agent, for whoever opens a session with it.

    Args:
        host: where it is.
        sock: a connection to it; None: it is reached in a thread.

    Raises:
        OSError: the connection is broken.
    """
    taken = False
    try:
        with _lock:
            if host not in _begun:
                _begun[host] = _Reaching(host) if sock is None else Greeting(host, sock)
                taken = True
    finally:
        if sock is not None and not taken:
            sock.close()


def greeted(host: Host) -> Greeted:
    """Return a control stream to a host's agent, brought up if there is none, and its welcome.

    Raises:
        HostUnavailable: none could be reached.
    """
    with _lock:
        begun = _begun.pop(host, None)
    if isinstance(begun, _Reaching):
        return begun.result()
    if begun is not None:
        welcome = begun.welcome()
        if welcome is not None:
            return begun.stream, welcome
        begun.stream.close()
    return _reach(host)


def _reach(host: Host) -> Greeted:
    found: list[Greeted] = []

    def greet(sock: socket.socket) -> bool:
        try:
            greeting = Greeting(host, sock)
        except OSError:
            return False
        welcome = greeting.welcome()
        if welcome is None:
            return False
        found.append((greeting.stream, welcome))
        return True

    host.reach(greet)
    return found[-1]


def let_go() -> None:
    """Close what was begun and not gone on with; also in a forked child, whose parent goes on with its own."""
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held it
    for begun in _begun.values():
        if isinstance(begun, Greeting):
            begun.stream.close()
    _begun.clear()


os.register_at_fork(after_in_child=let_go)


def settings_of_agent() -> dict[str, Any]:
    """Return what the configuration here sets of the agent's own settings, by option name."""
    try:
        options = load_config().resolve(Options())
    except ConfigurationError:
        return {}  # whoever calls a function is told; asking an agent something needs no configuration
    return {name: getattr(options, name) for name in SETTINGS if name in options}


def _stream(host: Host, sock: socket.socket) -> ControlStream:
    if host.here:
        return ControlStream(sock)
    from .far_session import begin_far

    return begin_far(sock)


def _wait_for_end(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while sock.recv(4096):
            pass
