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
from collections.abc import Callable, Mapping
from dataclasses import astuple
from types import FrameType

from ..model.record import record
from . import facade
from .attendant import Attendant
from .calls import Calls
from .output import Output, install

BOOT = (
    "import sys; sys.path[:] = [p for p in sys.path if p]; sys.path.append(sys.argv[1]); "
    "from remote_exec_runtime.worker.main import begin; begin(sys.argv[2])"
)


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

    @property
    def fds(self) -> tuple[int, ...]:
        """All of them."""
        return astuple(self)[1:]


def become_worker(ends: Ends, variables: Mapping[str, str], *, fresh: bool) -> None:
    """In a forked child: turn into a worker; `fresh` through a new interpreter. Never returns."""
    try:
        os.setsid()
        os.environ.update(variables)
        _close_all_but(ends.fds)
        if fresh:
            for fd in ends.fds:
                os.set_inheritable(fd, True)
            runtime = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
            told = ",".join(str(number) for number in astuple(ends))
            os.execv(sys.executable, [sys.executable, "-c", BOOT, runtime, told])  # noqa: S606
        work(ends)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        os._exit(70)


def begin(told: str) -> None:
    """In a new interpreter: be the worker whose descriptors are told."""
    ends = Ends(*(int(number) for number in told.split(",")))
    for fd in ends.fds:
        os.set_inheritable(fd, False)
    try:
        work(ends)
    finally:
        os._exit(70)


def work(ends: Ends) -> None:
    """Serve leases until told to stop; ends the process."""
    output = Output(ends.stdout_read, ends.stderr_read)
    install(ends.stdout, ends.stderr)
    faulthandler.enable()
    _reseed()
    sys.argv = [""]
    sys.modules["__main__"] = types.ModuleType("__main__")
    facade.install()
    begun = mmap.mmap(ends.begun, mmap.PAGESIZE)
    os.close(ends.begun)
    attendant = Attendant(ends.worker, socket.socket(fileno=ends.lifeline), output)
    calls = Calls(attendant, begun)
    signal.signal(signal.SIGINT, _interrupter(attendant))
    gc.enable()
    attendant.start()
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
