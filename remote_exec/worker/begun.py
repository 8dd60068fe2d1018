"""What a worker has begun, in a page that it shares with its fork server: the one thing that outlives its death.

The worker writes a few bytes at each call, the fork server reads them when it has reaped it. So calls behind the
one that killed it can be run elsewhere, and no other runs twice.
"""

from __future__ import annotations

import mmap
import struct
from typing import NamedTuple

BEGUN = struct.Struct("<24sQQ")  # lease, call, item of a batch: the last that was begun
ITEM = struct.Struct("<Q")  # the last of these
ITEM_AT = 32
END_BY = struct.Struct("<d")  # when a watchdog ends the process, on the monotonic clock; 0: never
END_BY_AT = 40
FUNCTION = struct.Struct("<96s")  # the name of the last call's function
FUNCTION_AT = 48
ENDED = (1 << 63) - 1  # instead of an item: the call has been answered


class Begun(NamedTuple):
    """What a fork server finds."""

    lease: str
    call: int
    item: int
    end_by: float
    function: str


def read(page: mmap.mmap) -> Begun:
    """Return what the page says."""
    lease, call, item = BEGUN.unpack_from(page)
    (end_by,) = END_BY.unpack_from(page, END_BY_AT)
    (function,) = FUNCTION.unpack_from(page, FUNCTION_AT)
    return Begun(_text(lease), call, item, end_by, _text(function))


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="ignore")
