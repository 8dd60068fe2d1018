"""The fork server: one process for each pool, inside the pool's environment.

What happens at a fork, step by step:

* fork server: makes the worker's pipes, its lifeline (a socket pair whose end means the fork server's end), and the
  few shared bytes in which the worker notes what it has begun; forks.
* child: leaves for a session of its own, takes its pipes as descriptors 1 and 2, closes every descriptor that it was
  not meant to have, reseeds what is random, and becomes a worker (`worker.main`).
* fork server: closes the child's ends, hands the agent's control stream down the lifeline, tells the agent the pid.

It imports and forks, nothing else: it never unpickles, never runs user code, and never touches CUDA.
"""

from __future__ import annotations

import collections
import contextlib
import gc
import mmap
import os
import select
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..model.record import record
from ..wire import protocol
from ..wire.control import ControlStream
from ..wire.credentials import peer_uid
from . import begun, runtime
from . import main as worker_main
from .children import adopt_orphans
from .guards import TIMED_OUT_EXIT, WATCHDOG_EXIT
from .output import drain_all, make_pipe, to_text
from .preload import import_ahead

ORPHAN_SECONDS = 60.0  # how long it waits for another agent
LAST_BYTES = 16384
LAST_LINES = 100  # a fault handler's stack is long; the agent tells the function's part of it
DEATHS_KEPT = 32  # that the next agent is told of
HAS_PIDFD = hasattr(os, "pidfd_open")
UNTOLD_SECONDS = 0.1  # without pidfds, how often it looks whether a worker has died


@record(frozen=False)
class Child:
    """A worker, as its fork server knows it."""

    pid: int
    pidfd: int
    lifeline: socket.socket
    stdout: int
    stderr: int
    begun: mmap.mmap


class ForkServer:
    """Owned by the process's only thread."""

    def __init__(self, listener: socket.socket, control: socket.socket) -> None:
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._control: ControlStream | None = None
        self._children: dict[int, Child] = {}
        # An agent that dies may have been told of a death and have done nothing about it.
        self._exited: collections.deque[protocol.WorkerExited] = collections.deque(maxlen=DEATHS_KEPT)
        self._orphan_since = 0.0
        self._used = False
        self._adopted = False  # whether processes that workers have left are ours now
        self._stopping = False
        self._adopt(control)

    def run(self) -> None:
        """Serve until told to stop, or until no agent has come for a while."""
        while not self._stopping or self._children:
            for key, _ in self._selector.select(self._timeout()):
                callback: Callable[[], None] = key.data
                callback()
            if not HAS_PIDFD:
                self._look_for_dead()
            if self._adopted:
                self._reap_adopted()
            if self._control is None and not self._stopping:
                self._end_when_forgotten()

    def _timeout(self) -> float | None:
        if not HAS_PIDFD and self._children:
            return UNTOLD_SECONDS
        return None if self._control and not self._adopted else 1.0

    def _look_for_dead(self) -> None:
        for worker, child in list(self._children.items()):
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                self._reap(worker, status, usage)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            if peer_uid(connection) != os.getuid():
                connection.close()
                return
            self._adopt(connection)

    def _adopt(self, sock: socket.socket) -> None:
        self._lose_agent()
        sock.setblocking(False)
        self._control = ControlStream(sock)
        self._selector.register(sock, selectors.EVENT_READ, self._hear)
        workers = tuple((worker, child.pid) for worker, child in self._children.items())
        python = sys.version.split()[0]
        self._tell(protocol.ForkServerReady(os.getpid(), python, workers, tuple(self._exited)))

    def _lose_agent(self) -> None:
        if self._control is not None:
            self._selector.unregister(self._control.sock)
            self._control.close()
            self._control = None
        self._orphan_since = time.monotonic()

    def _end_when_forgotten(self) -> None:
        if time.monotonic() - self._orphan_since > ORPHAN_SECONDS:
            self._stop()

    def _tell(self, message: object) -> None:
        if self._control is not None:
            try:
                self._control.send(message)
                while self._control.wants_write:
                    select.select([], [self._control], [])
                    self._control.flush()
            except OSError:
                self._lose_agent()

    def _hear(self) -> None:
        if self._control is None:  # lost by another callback of this round
            return
        try:
            received = self._control.receive()
        except BlockingIOError:
            return
        except OSError:
            received = None
        if received is None:
            self._lose_agent()
            self._stopping = self._stopping or not self._used  # a spare: no other agent knows of it
            return
        for one in received:
            self._obey(one.message)

    def _obey(self, message: Any) -> None:
        self._used = True
        if isinstance(message, protocol.Fork):
            self._fork(message)
        elif isinstance(message, protocol.Preload):
            self._preload(message)
        elif isinstance(message, protocol.Adopt):
            for fd in self._take_fds(1):
                self._hand_control(message.worker, fd)
        elif isinstance(message, protocol.Signal):
            child = self._children.get(message.worker)
            if child is not None:
                self._signal(child, message.signal)
        elif isinstance(message, protocol.StopForkServer):
            self._stop()

    def _preload(self, message: protocol.Preload) -> None:
        told = import_ahead(
            message.modules,
            seconds=message.seconds,
            on_start=lambda name: self._tell(protocol.ImportStarted(name)),
        )
        gc.collect()
        gc.freeze()  # a child's collections must not touch, and so copy, these pages
        self._tell(told)

    def _fork(self, message: protocol.Fork) -> None:
        fds = self._take_fds(1 + message.devices)
        if not fds:  # the agent that asked is gone
            return
        control, *devices = fds
        stdout, stdout_write = make_pipe()
        stderr, stderr_write = make_pipe()
        lifeline, lifeline_child = socket.socketpair()
        begun_fd = _shared_bytes()
        memory = mmap.mmap(begun_fd, begun.SIZE)
        ends = worker_main.Ends(
            worker=message.worker,
            lifeline=lifeline_child.fileno(),
            stdout_read=stdout,
            stderr_read=stderr,
            stdout=stdout_write,
            stderr=stderr_write,
            begun=begun_fd,
            devices=tuple(devices),
        )
        pid = worker_main.spawn_worker(ends, message.variables) if message.fresh else os.fork()
        if pid == 0:
            worker_main.become_worker(ends, message.variables)
        for fd in (stdout_write, stderr_write, begun_fd, *devices):
            os.close(fd)
        lifeline_child.close()
        pidfd = os.pidfd_open(pid) if HAS_PIDFD else -1
        child = Child(pid, pidfd, lifeline, stdout, stderr, memory)
        self._children[message.worker] = child
        if pidfd >= 0:
            self._selector.register(pidfd, selectors.EVENT_READ, lambda: self._ended(message.worker))
        self._tell(protocol.Forked(message.worker, pid))
        self._hand_control(message.worker, control)

    def _take_fds(self, count: int) -> list[int]:
        return self._control.take_fds(count) if self._control is not None else []

    def _hand_control(self, worker: int, fd: int) -> None:
        child = self._children.get(worker)
        if child is not None:
            with contextlib.suppress(OSError):
                socket.send_fds(child.lifeline, [b"c"], [fd])
        os.close(fd)

    def _ended(self, worker: int) -> None:
        child = self._children[worker]
        self._selector.unregister(child.pidfd)
        os.close(child.pidfd)
        _, status, usage = os.wait4(child.pid, 0)
        self._reap(worker, status, usage)

    def _reap(self, worker: int, status: int, usage: Any) -> None:
        child = self._children.pop(worker)
        self._kill_session(child.pid)
        rest = drain_all(child.stdout), drain_all(child.stderr)
        last = rest[0][-LAST_BYTES:] + rest[1][-LAST_BYTES:]
        noted = begun.read(child.begun)
        child.begun.close()
        child.lifeline.close()
        os.close(child.stdout)
        os.close(child.stderr)
        code = os.waitstatus_to_exitcode(status)
        if code == WATCHDOG_EXIT and 0.0 < noted.end_by <= time.monotonic():
            code = TIMED_OUT_EXIT
        scale = 1 if sys.platform == "darwin" else 1024
        exited = protocol.WorkerExited(
            worker=worker,
            pid=child.pid,
            signal=-code if code < 0 else None,
            exit_code=code if code >= 0 else None,
            peak_memory=usage.ru_maxrss * scale,
            last_lines=tuple(last.decode(errors="replace").splitlines()[-LAST_LINES:]),
            rest=(to_text(rest[0]), to_text(rest[1])),
            lease=noted.lease,
            begun=noted.call,
            item=noted.item,
            running=noted.running,
            function=noted.function,
            started_at=noted.started_at,
            about=noted.about,
        )
        out, err = exited.rest
        self._exited.append(replace(exited, rest=(out[-LAST_BYTES:], err[-LAST_BYTES:])))
        self._tell(exited)
        self._reap_adopted()

    def _signal(self, child: Child, number: int) -> None:
        if number == signal.SIGKILL:
            self._kill_session(child.pid)
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            with contextlib.suppress(ProcessLookupError):
                os.kill(
                    child.pid, number
                )  # it may hang in what a library does after forks, in our group still

    def _kill_session(self, session: int) -> None:
        """Kill what a worker started and left: every process of its session, and orphans that came to us."""
        live = {child.pid for child in self._children.values()}
        for pid, parent, sid in _processes():
            stray = parent == os.getpid() and pid not in live and sid not in live
            if (sid == session and pid != session) or stray:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)

    def _reap_adopted(self) -> None:
        """As a subreaper, collect processes whose parents, workers or their children, have died."""
        own = {child.pid for child in self._children.values()}
        self._adopted = False
        for pid, parent, _ in _processes():
            if parent == os.getpid() and pid not in own:
                with contextlib.suppress(ChildProcessError):
                    lives = os.waitpid(pid, os.WNOHANG)[0] == 0
                    self._adopted = self._adopted or lives

    def _stop(self) -> None:
        self._stopping = True
        for child in self._children.values():
            self._signal(child, signal.SIGKILL)


def _processes() -> list[tuple[int, int, int]]:
    """Return (pid, parent, session) of every process of this machine that can be seen."""
    rows: list[tuple[int, int, int]] = []
    try:
        names = os.listdir("/proc")
    except OSError:
        return rows
    for name in names:
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            rows.append((int(name), int(fields[1]), int(fields[3])))
    return rows


def _shared_bytes() -> int:
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("remote_exec-begun", os.MFD_CLOEXEC)
    else:
        import tempfile

        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, begun.SIZE)
    return fd


def main(socket_path: str, control_fd: int) -> None:
    """Run a fork server that listens at `socket_path` and is told what to do over `control_fd`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.umask(0o077)
    runtime.hold()
    adopt_orphans()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(socket_path)
    listener.bind(socket_path)
    listener.listen(4)
    listener.setblocking(False)
    gc.collect()
    gc.freeze()
    try:
        ForkServer(listener, socket.socket(fileno=control_fd)).run()
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(socket_path)
