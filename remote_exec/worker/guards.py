"""What surrounds a call when it is asked for: commands run before it, a limit to how long it may run."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from ..model.errors import RuntimeEnvironmentError
from ..serial.failures import is_machinery
from .lease import Lease

if TYPE_CHECKING:
    from .attendant import Attendant

GRACE_SECONDS = 2.0  # from the interrupt to the end of the process
WATCHDOG_EXIT = 1  # faulthandler's own
# what is told instead, as timeout(1) has it; of a worker that ends to free what it holds, too
TIMED_OUT_EXIT = 124
CANCELLED_EXIT = 123  # of a worker that ends with its call, to free what it holds


def run_commands(commands: tuple[str, ...]) -> None:
    """Run shell commands, one after the other, their output going to the call's own.

    Raises:
        RuntimeEnvironmentError: one failed; the error holds its standard error.
    """
    import subprocess

    for command in commands:
        done = subprocess.run(  # noqa: S602 - the user's own shell commands
            command,
            shell=True,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
            executable=_shell(),
        )
        if done.stderr:
            sys.stderr.write(done.stderr.decode(errors="replace"))
        if done.returncode:
            raise RuntimeEnvironmentError(
                f"a pre-execution command failed with exit code {done.returncode}: {command}",
                output=done.stderr.decode(errors="replace")[-4000:],
            )


@contextmanager
def max_runtime(attendant: Attendant, lease: Lease, call: int, seconds: float) -> Generator[None, None, None]:
    """Interrupt the call after `seconds` (0: never); end the process when it does not heed the interrupt.

    The second step is faulthandler's watchdog, a thread in C: it works while the function holds the GIL, too.
    """
    if not seconds:
        yield
        return
    attendant.set_deadline(lease, call, seconds)
    faulthandler.dump_traceback_later(seconds + GRACE_SECONDS, exit=True, file=sys.__stderr__ or 2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        attendant.clear_deadline()


def die_as(code: int) -> NoReturn:
    """End this process as another has ended: with its exit code, or by the signal that killed it, which is negative."""
    if code < 0:
        import resource

        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError, ValueError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(max(code, 0))


def print_stack(error: BaseException) -> None:
    """Print where the user's code was interrupted."""
    import traceback

    stack = error.__traceback__
    while stack is not None and is_machinery(stack.tb_frame.f_code.co_filename):
        stack = stack.tb_next
    sys.stderr.write("stopped at:\n")
    traceback.print_tb(stack)


def _shell() -> str:
    return "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh"
