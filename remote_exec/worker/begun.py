"""What a worker has begun, in a page of memory that its fork server reads after it has died.

Written at every call, so that each note is one packing of numbers; lease and function are written when they change.
A number is written after what it refers to: whenever the worker dies, what is read was true.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from functools import partial

from ..model.record import record
from .about import NOTED_BYTES, About

_CALL = struct.Struct("=QQd")  # call, item of a batch, when it began
_NUMBER = struct.Struct("=Q")
_TIME = struct.Struct("=d")
_LENGTH = struct.Struct("=H")
_ENDED_AT = _CALL.size
_END_BY_AT = _ENDED_AT + _NUMBER.size
_LEASE_AT = 64
_FUNCTION_AT = 1024
_ABOUT_AT = 4096
SIZE = _ABOUT_AT + mmap.PAGESIZE * -(-(NOTED_BYTES + 2) // mmap.PAGESIZE)


@record
class Noted:
    """What a worker had noted when it died."""

    lease: str
    call: int
    item: int
    started_at: float  # UTC, seconds since the epoch
    function: str
    running: bool  # the call had begun and was not answered
    about: str  # what is told of the call, see `About.noted`
    end_by: float  # when a watchdog ends the process, on the monotonic clock; 0: never


class Begun:
    """The worker's side. Owned by its main thread.

    Attributes:
        call: note that a call has begun: its number, its first item, the time.
        numbers: the page as numbers of eight bytes, which is the quickest way to note one.
        ended: note that a call, and all before it, has been answered.
        end_by: note when a watchdog ends the process.
    """

    ITEM = 1  # of `numbers`: the item of the call's batch that has begun

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._about: About | None = None
        self.call: Callable[[int, int, float], None] = partial(_CALL.pack_into, memory, 0)
        self.numbers = memoryview(memory).cast("Q")
        self.ended: Callable[[int], None] = partial(_NUMBER.pack_into, memory, _ENDED_AT)
        self.end_by: Callable[[float], None] = partial(_TIME.pack_into, memory, _END_BY_AT)

    def lease(self, lease: str) -> None:
        """Note which lease is served from now on; nothing of it has begun."""
        self.call(0, 0, 0.0)
        self.ended(0)
        self._write(_LEASE_AT, lease, _FUNCTION_AT)

    def function(self, about: About) -> None:
        """Note what is told of the call that is noted next, or has just been."""
        if about is not self._about:
            self._about = about
            self._write(_FUNCTION_AT, about.name, _ABOUT_AT)
            self._write(_ABOUT_AT, about.noted(), SIZE)

    def last(self) -> tuple[int, int, float]:
        """Return call, item and time as they are noted."""
        call, item, at = _CALL.unpack_from(self._memory, 0)
        return call, item, at

    def _write(self, at: int, text: str, end: int) -> None:
        data = text.encode(errors="replace")[: end - at - _LENGTH.size]
        _LENGTH.pack_into(self._memory, at, len(data))
        self._memory[at + _LENGTH.size : at + _LENGTH.size + len(data)] = data


def read(memory: mmap.mmap) -> Noted:
    """Return what a dead worker had noted."""
    call, item, started_at = _CALL.unpack_from(memory, 0)
    (ended,) = _NUMBER.unpack_from(memory, _ENDED_AT)
    (end_by,) = _TIME.unpack_from(memory, _END_BY_AT)
    return Noted(
        lease=_text(memory, _LEASE_AT),
        call=call,
        item=item,
        started_at=started_at,
        function=_text(memory, _FUNCTION_AT),
        about=_text(memory, _ABOUT_AT),
        running=call > ended,
        end_by=end_by,
    )


def _text(memory: mmap.mmap, at: int) -> str:
    (length,) = _LENGTH.unpack_from(memory, at)
    start = at + _LENGTH.size
    return memory[start : start + length].decode(errors="replace")
