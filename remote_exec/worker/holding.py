"""What a process holds of folders that are made once (`unpacked`): nobody removes them while it lives.

::

    <folder>/<random>    the names that one process holds, a line each; locked for as long as it lives
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import threading
from pathlib import Path

from .atomic import same_file, write_all
from .private import make_private_folder


class Holder:
    """The names that this process holds. Threads may call.

    Args:
        folder: where all processes keep theirs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._descriptor = -1
        self._names: set[str] = set()

    def hold(self, name: str) -> None:
        """Hold a folder by its name, from before it is looked for."""
        with self._lock:
            if name not in self._names:
                if self._descriptor < 0:
                    self._descriptor = _begin(self._folder)
                write_all(self._descriptor, f"{name}\n".encode())
                self._names.add(name)

    def let_go(self) -> None:
        """Hold nothing any longer."""
        with self._lock:
            self._names.clear()
            if self._descriptor >= 0:
                os.close(self._descriptor)  # whoever looks next removes the file
                self._descriptor = -1


def held_in(folder: Path) -> frozenset[str]:
    """Return all names that living processes hold; what dead ones have left is removed."""
    found: set[str] = set()
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError), open(entry.path, "rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    found.update(file.read().decode(errors="replace").split("\n")[:-1])
                else:
                    os.unlink(entry.path)
    return frozenset(found)


def _begin(folder: Path) -> int:
    make_private_folder(folder)
    while True:
        path = folder / secrets.token_hex(8)
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if same_file(descriptor, path):  # else somebody took it for a dead process's
            return descriptor
        os.close(descriptor)
