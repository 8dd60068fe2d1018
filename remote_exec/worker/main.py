"""What a child of the fork server does to become a worker, in order, and how a worker ends."""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import gc
import mmap
import os
import random
import signal
import socket
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from types import FrameType

from ..model.record import record
from . import context, facade
from .attendant import Attendant
from .begun import SIZE, Begun
from .calls import Calls
from .output import Output, install

BOOT = (
    "import sys; sys.path[:] = [p for p in sys.path if p]; sys.path.append(sys.argv[1]); "
    "from remote_exec_runtime.worker.main import begin; begin(sys.argv[2])"
)

ENVIRONMENT_FD = 4  # the lock that keeps the environment from being removed, inherited from the fork server


@record
class Ends:
    """The descriptors that a worker is born with."""

    worker: int
    lifeline: int
    stdout_read: int
    stderr_read: int
    stdout: int
    stderr: int
    begun: int
    devices: tuple[int, ...] = ()  # locks that hold its GPUs for as long as it lives

    @classmethod
    def of(cls, numbers: Sequence[int]) -> Ends:
        """Return what `numbers` came from."""
        worker, lifeline, stdout_read, stderr_read, stdout, stderr, begun, *devices = numbers
        return cls(worker, lifeline, stdout_read, stderr_read, stdout, stderr, begun, tuple(devices))

    @property
    def numbers(self) -> tuple[int, ...]:
        """All there is, flat."""
        return (*astuple(self)[:7], *self.devices)

    @property
    def fds(self) -> tuple[int, ...]:
        """All descriptors."""
        return self.numbers[1:]


def become_worker(ends: Ends, variables: Mapping[str, str]) -> None:
    """In a forked child: turn into a worker. Never returns."""
    try:
        os.setsid()
        os.environ.update(variables)
        _close_all_but((*ends.fds, ENVIRONMENT_FD))
        work(ends)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        os._exit(70)


def spawn_worker(ends: Ends, variables: Mapping[str, str]) -> int:
    """Start a worker as an interpreter of its own and return its process id.

    Nothing that a library does at forks is done, since this is none; where no interpreter can be started, a fork
    says so and ends.
    """
    runtime = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    argv = [sys.executable, "-c", BOOT, runtime, ",".join(map(str, ends.numbers))]
    for fd in ends.fds:
        os.set_inheritable(fd, True)
    try:
        return os.posix_spawn(
            sys.executable, argv, {**os.environ, **variables}, setsid=sys.platform == "linux"
        )
    except OSError as error:
        pid = os.fork()
        if pid == 0:
            os.write(ends.stderr, f"{sys.executable}: {error}\n".encode())
            os._exit(127)
        return pid
    finally:
        for fd in ends.fds:
            os.set_inheritable(fd, False)


def begin(told: str) -> None:
    """In a new interpreter: be the worker whose descriptors are told."""
    ends = Ends.of([int(number) for number in told.split(",")])
    try:
        if os.getsid(0) != os.getpid():
            os.setsid()
        for fd in ends.fds:
            os.set_inheritable(fd, False)
        _close_all_but((*ends.fds, ENVIRONMENT_FD))
        work(ends)
    finally:
        os._exit(70)


def work(ends: Ends) -> None:
    """Serve leases until told to stop; ends the process."""
    output = Output(ends.stdout_read, ends.stderr_read)
    install(ends.stdout, ends.stderr, output)
    faulthandler.enable()
    _reseed()
    sys.argv = [""]
    sys.modules["__main__"] = types.ModuleType("__main__")
    facade.install()
    begun = Begun(mmap.mmap(ends.begun, SIZE))
    os.close(ends.begun)
    attendant = Attendant(ends.worker, socket.socket(fileno=ends.lifeline), output)
    calls = Calls(attendant, begun, holds_devices=bool(ends.devices))
    signal.signal(signal.SIGINT, _interrupter(attendant))
    gc.enable()
    attendant.start()
    os.register_at_fork(after_in_child=lambda: _let_go(output))
    while True:
        lease = attendant.next_lease()
        if lease is None:
            break
        calls.enter_bundle(lease)
        calls.serve(lease)
        attendant.lease_ended(lease)
    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()
    output.flush()
    os._exit(0)


def _interrupter(attendant: Attendant) -> Callable[[int, FrameType | None], None]:
    """Return a handler that interrupts the call it is meant for, once, and never the machinery around it."""

    def on_interrupt(_number: int, _frame: FrameType | None) -> None:
        lease = attendant.current
        if lease is not None and lease.running and lease.interrupting == lease.running:
            lease.interrupting = 0
            raise KeyboardInterrupt

    return on_interrupt


def _let_go(output: Output) -> None:
    """In a child that user code forks: what it prints is its parent's to take in, and it is not who answers."""
    output.on_switch = None
    context.leave()


def _reseed() -> None:
    """Workers of one fork server must not share random state."""
    random.seed()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()


def _close_all_but(fds: tuple[int, ...]) -> None:
    previous = 2
    for fd in sorted(fds):
        if fd > previous:
            os.closerange(previous + 1, fd)
        previous = max(previous, fd)
    os.closerange(previous + 1, 65536)
