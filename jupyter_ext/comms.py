"""Widgets that live at the far end: a comm of this kernel stands for each of theirs, under the same id."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from typing import Any

from remote_exec.session.comms import CLOSE, MESSAGE, OPEN, CommMessage


class Comms:
    """See the module's docstring.

    Args:
        send: brings a message of the front end to the far end.
    """

    def __init__(self, send: Callable[[CommMessage], None]) -> None:
        self._send = send
        self._comms: dict[str, Any] = {}

    def take(self, message: CommMessage) -> None:
        """Pass on what the far end tells."""
        sys.stdout.flush()  # what was printed before is shown before
        sys.stderr.flush()
        keywords = {"data": message.data, "metadata": message.metadata, "buffers": list(message.buffers)}
        if message.kind == OPEN:
            self._open(message, keywords)
        elif message.comm in self._comms:
            comm = self._comms[message.comm]
            if message.kind == MESSAGE:
                comm.send(**keywords)
            elif message.kind == CLOSE:
                del self._comms[message.comm]
                comm.close(**keywords)

    def close(self) -> None:
        """Nobody is there any longer: what the page still shows does nothing."""
        for comm in self._comms.values():
            comm.on_msg(None)
            comm.on_close(None)
        self._comms.clear()

    def _open(self, message: CommMessage, keywords: dict[str, Any]) -> None:
        library: Any = importlib.import_module("comm")
        comm = library.create_comm(target_name=message.target, comm_id=message.comm, **keywords)
        comm.on_msg(functools.partial(self._heard, MESSAGE, message.comm))
        comm.on_close(functools.partial(self._heard, CLOSE, message.comm))
        self._comms[message.comm] = comm

    def _heard(self, kind: str, comm: str, told: dict[str, Any]) -> None:
        content = told["content"]
        buffers = tuple(bytes(buffer) for buffer in told.get("buffers") or ())
        self._send(CommMessage(kind, comm, "", content.get("data", {}), told.get("metadata", {}), buffers))
        if kind == CLOSE:
            self._comms.pop(comm, None)
