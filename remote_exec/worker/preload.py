"""Imports ahead of the forks: each with a deadline, and a look at the threads that they leave.

A fork has the forking thread alone. What libraries written in C start (numpy's BLAS, say) knows how to deal with
that, and is trusted; a thread of Python's that is gone in the child is one that somebody waits for.
"""

from __future__ import annotations

import importlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

from ..wire import protocol

AGAIN_SECONDS = 1.0  # for a module that swallows what is raised in it
# Importing these starts threads or claims devices, so that a fork of the importer is not sound.
NEVER_PRELOADED = frozenset({"jax", "tensorflow", "cupy", "cudf", "rmm", "ray", "pyspark", "grpc", "obstore"})


class TooSlow(BaseException):
    """Raised in an import that takes too long; no module should take it for an error of its own."""


def import_ahead(
    modules: tuple[str, ...], *, seconds: float, on_start: Callable[[str], None]
) -> protocol.Preloaded:
    """Import modules in the main thread, and say what became of it.

    Args:
        modules: dotted names.
        seconds: how long each may take; 0: as long as it takes.
        on_start: told each name before it is imported.
    """
    started = time.monotonic()
    failed: dict[str, str] = {}
    hung: list[str] = []
    threads: dict[int, str] = {}
    before = set(sys._current_frames())
    for name in modules:
        if name.partition(".")[0] in NEVER_PRELOADED or name in sys.modules:
            continue
        on_start(name)
        try:
            with _deadline(seconds):
                importlib.import_module(name)
        except TooSlow:
            hung.append(name)
            failed[name] = f"given up after {seconds:g} s"
        except BaseException as error:
            failed[name] = f"{type(error).__name__}: {error}"
        for ident in set(sys._current_frames()) - before - set(threads):
            threads[ident] = name
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    alive = set(sys._current_frames())
    return protocol.Preloaded(
        failed,
        time.monotonic() - started,
        len(alive),
        tuple(hung),
        tuple(f"{names.get(ident, 'one')} of {name}" for ident, name in threads.items() if ident in alive),
    )


@contextmanager
def _deadline(seconds: float) -> Generator[None, None, None]:
    """Raise `TooSlow` in the main thread when the time is over; what waits in C without a look at signals goes on."""

    def give_up(_number: int, _frame: FrameType | None) -> None:
        raise TooSlow

    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
