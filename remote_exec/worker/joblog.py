"""Temporary shim."""

from __future__ import annotations

import os

from ..agent.joblog import LogReader as _Reader
from ..agent.joblog import LogWriter as _Writer


class LogWriter:
    def __init__(self, folder, *, limit_bytes):
        os.makedirs(folder, exist_ok=True)
        self._w = _Writer(os.path.join(folder, "log"), limit_bytes=limit_bytes)

    def append(self, call, stream, data):
        self._w.write(stream, data)

    def close(self):
        self._w.close()


class LogReader:
    def __init__(self, folder):
        self._r = _Reader(os.path.join(folder, "log"))

    def tail_lines(self, n):
        return self._r.tail_lines(n)

    def read(self, offset):
        return self._r.read(offset)
