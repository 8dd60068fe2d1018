"""The one handler of all that a command may raise: what is said, and the exit code."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click

from . import EXPECTED_ERROR, INTERRUPTED, OUR_BUG


def report(error: BaseException) -> int:
    """Say what went wrong on stderr and return the exit code."""
    from ..model.errors import JobNotFound, RemoteExecError

    match error:
        case SystemExit():
            return error.code if isinstance(error.code, int) else int(error.code is not None)
        case KeyboardInterrupt() | click.Abort():
            return INTERRUPTED
        case click.exceptions.Exit():
            return error.exit_code
        case click.ClickException():
            error.show()
            return EXPECTED_ERROR
        case BrokenPipeError():
            # who read us has seen enough; the interpreter must not complain when it flushes at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXPECTED_ERROR
        case RemoteExecError():
            hint = error.hint or ("remote-exec jobs" if isinstance(error, JobNotFound) else "")
            say_error(error.message or type(error).__name__, hint=hint)
            if output := getattr(error, "output", ""):
                click.echo(output, err=True)
            return EXPECTED_ERROR
        case _:
            return _our_bug(error)


def say_error(message: str, *, hint: str = "") -> None:
    """Write an error, and its hint on a line of its own."""
    click.echo(f"error: {message}", err=True)
    if hint:
        click.echo(f"hint: {hint}", err=True)


def _our_bug(error: BaseException) -> int:
    try:
        place = f"its traceback is in {_keep(error)}; please attach that file to an issue"
    except OSError:
        import traceback

        place = "".join(traceback.format_exception(error))
    say_error(f"remote-exec has a bug: {type(error).__name__}: {error}", hint=place)
    return OUR_BUG


def _keep(error: BaseException) -> Path:
    import platform
    import traceback

    from .. import __version__
    from ..model.layout import Layout
    from ..worker.private import make_private_folder

    folder = Layout.of(os.environ).home / "bugs"
    make_private_folder(folder)
    path = folder / f"remote-exec-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.getpid()}.log"
    lines = [
        f"remote_exec {__version__}, Python {platform.python_version()}, {platform.platform()}",
        f"command: {sys.argv[1] if len(sys.argv) > 1 else ''}",  # arguments may be secret
        "",
        *traceback.format_exception(error),
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
