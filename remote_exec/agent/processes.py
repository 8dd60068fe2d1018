"""The processes below the agent: starting fork servers, and the links to them and to their workers."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field, replace
from typing import Any

from ..model.cost import Price
from ..model.pool import PoolInfo
from ..model.record import record
from ..wire import protocol
from ..wire.credentials import peer_uid
from .early import Spare, spawn_fork_server
from .link import Link
from .reactor import Reactor

_log = logging.getLogger(__name__)

END_SECONDS = 0.05  # from a fork server's end of stream to its own, mostly far less ...
NAP_SECONDS = 0.001
REAP_SECONDS = 1.0  # ... and if not
LAST_LINES = 20
LAST_BYTES = 16 << 10
_OWN_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ ")  # of the agent, in the same log


@record(frozen=False)
class ForkServerLink:
    """A fork server, as the agent knows it."""

    pool: str
    link: Link
    pid: int
    socket_path: str
    log_from: int = 0  # where in the agent's log its output begins
    workers: dict[int, Link] = field(default_factory=dict[int, Link])
    pids: dict[int, int] = field(default_factory=dict[int, int])
    prices: dict[int, Price] = field(default_factory=dict[int, Price])  # at which workers were leased last


Told = Callable[[str, int, Any, bytes], None]  # pool, worker (0: the fork server itself), message, body


class Processes:
    """Starts, links and forgets. Owned by the loop's thread; what is heard goes to `on_message`."""

    def __init__(
        self,
        reactor: Reactor,
        *,
        runtime: str,
        sockets: str,
        log: str,
        on_message: Told,
        on_lost: Callable[[str, str, str], None],
        spare: Spare | None,
    ) -> None:
        self._reactor = reactor
        self._runtime = runtime
        self._sockets = sockets
        self._log = log
        self._on_message = on_message
        self._on_lost = on_lost
        self._spare = spare
        self._adopted: dict[
            int, bool
        ] = {}  # process ids of a former agent's workers: whether they have spoken
        self.fork_servers: dict[str, ForkServerLink] = {}

    def start(
        self, pool: str, python: str, variables: Mapping[str, str], log: int, held: int | None = None
    ) -> ForkServerLink:
        """Start a pool's fork server; `held` is a descriptor that holds its environment.

        Raises:
            OSError: its Python could not be run.
        """
        spare = self._spare
        if spare is not None and spare.python == python and spare.variables == variables:
            self._spare = None
            return self._link(pool, spare.control, spare.pid, spare.path, spare.log_from)
        self.end_spare()
        ours, theirs = socket.socketpair()
        path, log_from = os.path.join(self._sockets, f"f-{pool}"), os.fstat(log).st_size
        try:
            pid = spawn_fork_server(
                python, self._runtime, path, dict(variables), control=theirs.fileno(), log=log, held=held
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        return self._link(pool, ours, pid, path, log_from)

    def end_spare(self) -> None:
        """End the spare fork server, if there is one."""
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.control.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(spare.pid, signal.SIGKILL)
            _unlink(spare.path)

    def connect(self, pool: str, pid: int, path: str) -> ForkServerLink:
        """Take over a fork server that a former agent left.

        Raises:
            OSError: it is gone.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(2.0)
            sock.connect(path)
            if peer_uid(sock) != os.getuid():
                raise PermissionError(f"{path} belongs to another user")
        except OSError:
            sock.close()
            raise
        return self._link(pool, sock, pid, path, os.path.getsize(self._log))

    def _link(self, pool: str, sock: socket.socket, pid: int, path: str, log_from: int) -> ForkServerLink:
        link = Link(
            self._reactor,
            sock,
            on_message=lambda message, body: self._on_message(pool, 0, message, body),
            on_end=lambda reason: self._ended(pool, reason),
        )
        server = self.fork_servers[pool] = ForkServerLink(pool, link, pid, path, log_from)
        return server

    def fork(
        self, pool: str, worker: int, variables: dict[str, str], *, fresh: bool, devices: tuple[int, ...]
    ) -> None:
        """Ask for a worker, whose control stream is made here; `devices` are locks that it is to hold."""
        message = protocol.Fork(worker, variables, fresh, len(devices))
        self._send_with_stream(pool, worker, message, devices)

    def adopt(self, pool: str, worker: int, pid: int) -> None:
        """Have a worker that is there already talk to this agent."""
        self.fork_servers[pool].pids[worker] = pid
        self._adopted[pid] = False
        self._send_with_stream(pool, worker, protocol.Adopt(worker))

    def spoke(self, pid: int) -> None:
        """Take note that a worker has told what it serves, or that nothing comes of it any longer."""
        if pid in self._adopted:
            self._adopted[pid] = True

    def has_spoken(self, pid: int) -> bool:
        """Whether a former agent's worker was there, and has told this one all that it had to."""
        return self._adopted.get(pid, False)

    def is_silent(self, pid: int) -> bool:
        """Whether a former agent's worker is there, and has not said anything yet."""
        there = any(pid in server.pids.values() for server in self.fork_servers.values())
        return there and not self._adopted.get(pid, True)

    def kill(self, pool: str, reason: str) -> None:
        """End a fork server that does not hear; `on_lost` is told."""
        server = self.fork_servers.get(pool)
        if server is None:
            return
        _log.warning("the fork server of pool %s is killed: %s", pool, reason)
        with contextlib.suppress(ProcessLookupError):
            os.kill(server.pid, signal.SIGKILL)
        # a child that hangs in its fork may hold the other end of the link
        self._reactor.soon(lambda: server.link.end(f"killed, since {reason}"))

    def _send_with_stream(self, pool: str, worker: int, message: object, fds: tuple[int, ...] = ()) -> None:
        server = self.fork_servers.get(pool)
        if server is None:
            return
        ours, theirs = socket.socketpair()
        server.workers[worker] = Link(
            self._reactor,
            ours,
            on_message=lambda told, body: self._on_message(pool, worker, told, body),
            on_end=lambda reason: None,  # its fork server tells how it died
        )
        server.link.send(message, fds=(theirs.fileno(), *fds))
        theirs.close()

    def tell_server(self, pool: str, message: object) -> None:
        """Send to a pool's fork server."""
        server = self.fork_servers.get(pool)
        if server is not None:
            server.link.send(message)

    def tell_worker(self, pool: str, worker: int, message: object, fds: tuple[int, ...] = ()) -> bool:
        """Send to a worker; False when there is none."""
        server = self.fork_servers.get(pool)
        link = server.workers.get(worker) if server is not None else None
        if link is None or link.closed:
            return False
        link.send(message, fds=fds)
        return True

    def hear_out(self, pool: str, worker: int) -> None:
        """Take in what a worker that has been reaped had told before its end."""
        server = self.fork_servers.get(pool)
        link = server.workers.get(worker) if server is not None else None
        if link is not None:
            link.hear_out()

    def note_price(self, pool: str, worker: int, price: Price | None) -> None:
        """A worker is leased at a price, or without one."""
        server = self.fork_servers.get(pool)
        if server is not None and price is not None:
            server.prices[worker] = price
        elif server is not None:
            server.prices.pop(worker, None)

    def priced(self, pools: Iterable[PoolInfo]) -> tuple[PoolInfo, ...]:
        """Return pools with the prices of their workers."""
        return tuple(self._priced(pool) for pool in pools)

    def _priced(self, pool: PoolInfo) -> PoolInfo:
        server = self.fork_servers.get(pool.key)
        if server is None or not server.prices:
            return pool
        workers = tuple(replace(worker, price=server.prices.get(worker.id)) for worker in pool.workers)
        return replace(pool, workers=workers)

    def forget_worker(self, pool: str, worker: int) -> None:
        """It has been reaped."""
        server = self.fork_servers.get(pool)
        if server is not None:
            link = server.workers.pop(worker, None)
            self.spoke(server.pids.pop(worker, 0))
            server.prices.pop(worker, None)
            if link is not None:
                link.close()

    def _ended(self, pool: str, reason: str) -> None:
        server = self.fork_servers.pop(pool, None)
        if server is None:
            return
        for link in server.workers.values():
            link.close()
        _unlink(server.socket_path)  # one that was killed has left it
        status = _wait_for(server.pid, END_SECONDS)
        if status is None:
            self._reactor.after(REAP_SECONDS, lambda: _wait_for(server.pid))
        if status:
            reason = f"exit status {os.waitstatus_to_exitcode(status)}"
        self._on_lost(pool, reason, _last_words(self._log, server.log_from))


def _last_words(log: str, start: int) -> str:
    """Return the last of what others than the agent have written to its log from `start` on."""
    with contextlib.suppress(OSError), open(log, "rb") as file:
        file.seek(max(start, os.fstat(file.fileno()).st_size - LAST_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
        return "\n".join([line for line in lines if not _OWN_LINE.match(line)][-LAST_LINES:])
    return ""


def _wait_for(pid: int, seconds: float = 0.0) -> int | None:
    """Collect a process that has ended, or does so in a moment; None: it has not, or is not our child."""
    until = time.monotonic() + seconds
    with contextlib.suppress(OSError):
        while not (found := os.waitpid(pid, os.WNOHANG))[0] and time.monotonic() < until:
            time.sleep(NAP_SECONDS)
        return found[1] if found[0] else None
    return None


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
