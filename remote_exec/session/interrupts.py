"""An interrupt of a cell is heard by the cell, and by nothing around it.

The worker's handler raises KeyboardInterrupt in the main thread whenever the running call is to be interrupted. What
takes changes in, gathers them, or sends a message must not be cut off in the middle: here it is noted instead.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any


class Interrupts:
    """Made once, in the main thread, before the first cell.

    Args:
        raising: the handler that raises, where that is meant.
    """

    def __init__(self, raising: Callable[[int, FrameType | None], Any]) -> None:
        self._raising = raising
        self._off = 1  # nothing is interrupted but a cell that runs
        self._noted = False

    @classmethod
    def installed(cls) -> Interrupts:
        """Take the place of the handler that is there."""
        former: Any = signal.getsignal(signal.SIGINT)
        made = cls(former)
        signal.signal(signal.SIGINT, made._on_signal)
        return made

    def begin(self) -> None:
        """Forget what was noted: it was for a cell that has ended."""
        self._noted = False

    @contextlib.contextmanager
    def let(self) -> Generator[None, None, None]:
        """Let interrupts through; one that has come before is raised now.

        Raises:
            KeyboardInterrupt: there was one.
        """
        self._off -= 1
        try:
            self._raise_noted()
            yield
        finally:
            self._off += 1

    def heed(self) -> None:
        """Raise one that has come, although none is let through otherwise.

        Raises:
            KeyboardInterrupt: there was one.
        """
        with self.let():
            pass

    @contextlib.contextmanager
    def kept_off(self) -> Generator[None, None, None]:
        """Keep interrupts off; one that comes meanwhile is raised at the end, where they are let through.

        Raises:
            KeyboardInterrupt: there was one.
        """
        if threading.current_thread() is not threading.main_thread():  # no other hears of them
            yield
            return
        self._off += 1
        try:
            yield
        finally:
            self._off -= 1
        self._raise_noted()

    def _raise_noted(self) -> None:
        if self._noted and not self._off:
            self._noted = False
            _interrupt_children()
            raise KeyboardInterrupt

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        try:
            self._raising(number, frame)
        except KeyboardInterrupt:
            if not self._off:
                _interrupt_children()
                raise
            self._noted = True


def _interrupt_children() -> None:
    """Interrupt what a cell has started, such as a shell's command, as the stop button does to that of a kernel."""
    if os.getpgrp() == os.getpid():
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            os.killpg(0, signal.SIGINT)
        finally:
            signal.signal(signal.SIGINT, handler)
