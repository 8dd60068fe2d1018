"""Large buffers on one machine: shared memory that is reused, since fresh pages cost many times the copy.

The sender copies a message's parts into an arena (a sealed memfd) and names the arena in the frame; the receiver
maps it once and builds its arrays right on it. An arena belongs to the receiver until no view of it lives there;
then its id goes back in a RELEASE frame, and only then may the sender write to it again: a reused arena never lies
under a living array. The descriptor of a new arena travels over a socket of its own (`fd_socket`), so that the
call stream needs no ancillary data.

Each object here is owned by one end of one call stream. Its sender and its reader may be two threads; `released`
is appended to from elsewhere too (finalizers run in any thread), and a deque's append is atomic.
A forked child keeps its parent's mappings, but not its promise: arrays that were received before a fork may
change in the child once the parent has let go of theirs.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any, Union

from ..model.errors import ProtocolError
from . import descriptors

Buffer = Union[bytes, bytearray, memoryview]  # noqa: UP007 - evaluated when imported, on 3.10 too

ALIGNMENT = 64  # a cache line, and what AVX-512 loads like
THRESHOLD = 1 << 18  # below this a copy through the socket is as fast
SMALLEST = 1 << 20
IDLE_LIMIT = 1 << 30  # bytes kept for reuse by one end of one stream
LENT_LIMIT = (
    128  # arenas: bounds the receiver's mappings, and what waits in `fd_socket`, so that it never blocks
)
ROOMY = 4  # an array that lives on pins its whole arena: none is reused for less than a quarter of it

_HEAD = struct.Struct("<IIQ")  # arena id, number of parts, capacity
_ID = struct.Struct("<I")
SUPPORTED = hasattr(os, "memfd_create") and hasattr(socket, "send_fds")


class _Arena:
    __slots__ = ("capacity", "id", "view")

    def __init__(self, number: int, capacity: int, view: memoryview) -> None:
        self.id, self.capacity, self.view = number, capacity, view


class SendingArenas:
    """The arenas that one end writes to.

    Args:
        fd_socket: where the descriptors of new arenas go.
        idle_limit: how many bytes are kept for reuse.
    """

    def __init__(self, fd_socket: socket.socket, *, idle_limit: int = IDLE_LIMIT) -> None:
        self._fd_socket = fd_socket
        self._lock = (
            threading.Lock()
        )  # for what follows: arenas are taken by senders, given back by the reader
        self._idle: list[_Arena] = []
        self._lent: dict[int, _Arena] = {}
        self._dropped: list[int] = []
        self._next_id = 1
        self._idle_limit = idle_limit

    def pack(self, parts: Sequence[Buffer]) -> bytes | None:
        """Copy the parts into an arena and return the payload that tells the peer where they lie.

        None when no arena can be had: the peer keeps too many, or the system is out of descriptors or memory.
        """
        sizes = [len(part) for part in parts]
        offsets, total = _offsets(sizes)
        arena = self._take(total)
        if arena is None:
            return None
        for part, offset, size in zip(parts, offsets, sizes):  # noqa: B905
            arena.view[offset : offset + size] = part
        return _HEAD.pack(arena.id, len(parts), arena.capacity) + struct.pack(f"<{len(sizes)}Q", *sizes)

    def released(self, ids: Sequence[int]) -> None:
        """Take back arenas that the peer holds no view of.

        Raises:
            ProtocolError: one of them was not lent.
        """
        with self._lock:
            for number in ids:
                arena = self._lent.pop(number, None)
                if arena is None:
                    raise ProtocolError("an arena was released that was not lent")
                self._idle.append(arena)
            kept = sum(arena.capacity for arena in self._idle)
            while kept > self._idle_limit:
                arena = self._idle.pop(0)
                kept -= arena.capacity
                self._dropped.append(arena.id)

    def take_dropped(self) -> list[int]:
        """Return the arenas given up since the last call, for a DROP frame."""
        if not self._dropped:
            return self._dropped
        with self._lock:
            dropped, self._dropped = self._dropped, []
        return dropped

    def close(self) -> None:
        """Give all memory back that the peer does not hold."""
        with self._lock:
            self._idle.clear()
            self._lent.clear()

    def _take(self, size: int) -> _Arena | None:
        with self._lock:
            if len(self._lent) >= LENT_LIMIT:
                return None
            roomy = max(SMALLEST, ROOMY * size)
            fitting = [arena for arena in self._idle if size <= arena.capacity <= roomy]
            if fitting:
                arena = min(fitting, key=lambda arena: arena.capacity)
                self._idle.remove(arena)
            else:
                try:
                    arena = self._make(size)
                except OSError:
                    return None
            self._lent[arena.id] = arena
            return arena

    def _make(self, size: int) -> _Arena:
        capacity = max(SMALLEST, 1 << (size - 1).bit_length()) if size < 1 << 26 else size
        capacity += -capacity % mmap.PAGESIZE
        fd = os.memfd_create("remote_exec-arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, capacity)
            _seal(fd)
            view = memoryview(mmap.mmap(fd, capacity))
            socket.send_fds(self._fd_socket, [_ID.pack(self._next_id)], [fd])
        finally:
            os.close(fd)
        self._next_id += 1
        return _Arena(self._next_id - 1, capacity, view)


class ReceivingArenas:
    """The peer's arenas, as mapped here.

    Args:
        fd_socket: where the descriptors of the peer's new arenas come from.
    """

    def __init__(self, fd_socket: socket.socket) -> None:
        self.released: deque[int] = deque()  # ids; emptied by `take_released`
        self._fd_socket = fd_socket
        self._mapped: dict[int, mmap.mmap] = {}

    def unpack(self, payload: Buffer) -> list[memoryview]:
        """Return the parts of a message as writable views; the arena is released when the last one is gone.

        Raises:
            ProtocolError: the payload does not name an arena, or reaches beyond it.
        """
        if len(payload) < _HEAD.size:
            raise ProtocolError("an arena message is cut")
        number, count, capacity = _HEAD.unpack_from(payload)
        if not count or len(payload) != _HEAD.size + 8 * count:
            raise ProtocolError("an arena message is cut")
        sizes = struct.unpack_from(f"<{count}Q", payload, _HEAD.size)
        mapped = self._mapping(number)
        offsets, total = _offsets(sizes)
        if total > len(mapped) or capacity != len(mapped):
            raise ProtocolError("an arena message reaches beyond its arena")
        owner = _exporter(mapped)
        weakref.finalize(owner, self.released.append, number).atexit = False
        whole = memoryview(owner).cast("B")
        return [whole[offset : offset + size] for offset, size in zip(offsets, sizes)]  # noqa: B905

    def drop(self, ids: Sequence[int]) -> None:
        """Forget arenas that the peer has given up; arrays that live there keep their memory."""
        for number in ids:
            self._mapped.pop(number, None)

    def close(self) -> None:
        """Let go of all mappings; arrays that live there keep their memory."""
        self._mapped.clear()

    def take_released(self) -> list[int]:
        """Return the arenas released since the last call, for a RELEASE frame."""
        ids: list[int] = []
        try:
            while self.released:
                ids.append(self.released.popleft())
        except IndexError:  # another thread took the last one
            pass
        return ids

    def _mapping(self, number: int) -> mmap.mmap:
        while (mapped := self._mapped.get(number)) is None:
            self._map_next()
        return mapped

    def _map_next(self) -> None:
        # An arena's descriptor is sent before the first message that names it: there is nothing to wait for.
        try:
            data, fds, _ = descriptors.receive(self._fd_socket, _ID.size, 1, socket.MSG_DONTWAIT)
        except OSError:
            raise ProtocolError("an arena was named that has not been sent") from None
        try:
            if len(data) != _ID.size or len(fds) != 1 or not _is_sealed(fds[0]):
                raise ProtocolError("what was sent as an arena is none")
            self._mapped[_ID.unpack(data)[0]] = mmap.mmap(fds[0], os.fstat(fds[0]).st_size)
        except (OSError, ValueError) as error:
            raise ProtocolError(f"an arena cannot be mapped: {error}") from None
        finally:
            for fd in fds:
                os.close(fd)


def pack_ids(ids: Sequence[int]) -> bytes:
    """Return the payload of a RELEASE or DROP frame."""
    return struct.pack(f"<{len(ids)}I", *ids)


def unpack_ids(payload: Buffer) -> tuple[int, ...]:
    """Return the arena ids of a RELEASE or DROP frame.

    Raises:
        ProtocolError: the payload is none of `pack_ids`.
    """
    if len(payload) % 4:
        raise ProtocolError("a list of arenas is cut")
    return struct.unpack(f"<{len(payload) // 4}I", payload)


def _offsets(sizes: Sequence[int]) -> tuple[list[int], int]:
    offsets: list[int] = []
    position = 0
    for size in sizes:
        offsets.append(position)
        position += size + -size % ALIGNMENT
    return offsets, position


def _exporter(mapped: mmap.mmap) -> Any:
    # An object of its own exports the buffer, so that its death tells when the last array on it is gone;
    # the mapping itself stays, with its page tables, for the next message.
    import ctypes

    return (ctypes.c_char * len(mapped)).from_buffer(mapped)


def _seal(fd: int) -> None:
    import fcntl

    # The peer maps this file: it must never shrink under it (SIGBUS).
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)


def _is_sealed(fd: int) -> bool:
    import fcntl

    return bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)
