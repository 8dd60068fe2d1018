"""The folder that this runtime was unpacked into: whoever runs from it holds it, so that nobody removes it."""

from __future__ import annotations

import contextlib
import fcntl
import os

FOLDER = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def hold() -> None:
    """Hold this process's own runtime for as long as the process lives."""
    with contextlib.suppress(OSError):  # a file system without locks: its age protects it for a while
        fcntl.flock(os.open(FOLDER, os.O_RDONLY | os.O_CLOEXEC), fcntl.LOCK_SH | fcntl.LOCK_NB)
