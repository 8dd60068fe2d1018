"""The metrics of one lease on disk: beside its log and in the same format, so that output and numbers do not crowd
each other out. Written at once, in the thread that logs: what was logged before a death is there after it.

::

    {"metrics": [["loss", 1764150000.123, 10, 0.3], ["accuracy", 1764150000.123, 10, 0.9]]}
"""

from __future__ import annotations

import contextlib
import json
import os
import threading

from .joblog import LogWriter
from .metrics import Row, Thinning
from .private import make_private_folder

METRICS_NAME = "metrics"  # in the folder of a lease
LIMIT_BYTES = 16 << 20


class MetricLog:
    """Takes the points of a lease's calls, one call after the other. No file is made before there is one.

    Args:
        folder: the lease's; made when it is needed.

    Attributes:
        call: the last that has logged any.
        waiting: whether something is held back.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self.call = 0
        self._thinning: Thinning | None = None
        self._writer: LogWriter | None = None
        self._closed = False
        self.waiting = False  # looked at after every call: it costs next to nothing

    def add(self, call: int, rows: list[Row]) -> None:
        """Take in points of a call."""
        if os.getpid() != self._pid:
            return  # a forked child has no right to the file
        with self._lock:
            if call != self.call or self._thinning is None:
                self.finish()
                self.call, self._thinning = call, Thinning(self._write)
            self._thinning.add(rows)
            self.waiting = self._thinning.waiting

    def tick(self, now: float) -> None:
        """Write what has been held back and whose time has come."""
        with self._lock:
            if self._thinning is not None:
                self._thinning.tick(now)
                self.waiting = self._thinning.waiting

    def finish(self) -> None:
        """Write all that has been held back."""
        with self._lock:
            if self._thinning is not None:
                self._thinning.finish()
            self.waiting = False

    def close(self) -> None:
        """The lease ends."""
        with self._lock:
            self.finish()
            self._closed, self._thinning = True, None
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def _write(self, rows: list[Row]) -> None:
        if self._closed:
            return
        data = json.dumps({"metrics": rows}, separators=(",", ":")).encode()
        with contextlib.suppress(OSError):  # a full disk must not end the call
            if self._writer is None:
                make_private_folder(self._folder)
                path = os.path.join(self._folder, METRICS_NAME)
                self._writer = LogWriter(path, limit_bytes=LIMIT_BYTES)
            self._writer.write("event", data, call=self.call)
