"""Large buffers on one machine: shared memory that is reused, since fresh pages cost many times the copy.

The sender copies a message's parts into an arena (a sealed memfd) and names the arena in the frame; the receiver
maps it once and builds its arrays right on it. An arena belongs to the receiver until no view of it lives there;
then its id goes back in a RELEASE frame, and only then may the sender write to it again: a reused arena never lies
under a living array. The descriptor of a new arena travels over a socket of its own (`fd_socket`), so that the
call stream needs no ancillary data.

Each object here is owned by one end of one call stream; only `_released` is touched from elsewhere (finalizers run
in any thread), and a deque's append is atomic.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any, Union

from ..model.errors import ProtocolError

Buffer = Union[bytes, bytearray, memoryview]

ALIGNMENT = 64  # a cache line, and what AVX-512 loads like
THRESHOLD = 1 << 18  # below this a copy through the socket is as fast
SMALLEST = 1 << 20
IDLE_LIMIT = 1 << 30  # bytes kept for reuse by one end of one stream

_HEAD = struct.Struct("<IIQ")  # arena id, number of parts, capacity
SUPPORTED = hasattr(os, "memfd_create") and hasattr(socket, "send_fds")


class _Arena:
    __slots__ = ("capacity", "id", "view")

    def __init__(self, number: int, capacity: int, view: memoryview) -> None:
        self.id, self.capacity, self.view = number, capacity, view


class SendingArenas:
    """The arenas that one end writes to."""

    def __init__(self, fd_socket: socket.socket, *, idle_limit: int = IDLE_LIMIT) -> None:
        self._fd_socket = fd_socket
        self._idle: list[_Arena] = []
        self._lent: dict[int, _Arena] = {}
        self._next_id = 1
        self._idle_limit = idle_limit
        self.dropped: list[int] = []  # to be told to the peer by the next DROP frame

    def pack(self, parts: Sequence[Buffer]) -> bytes:
        """Copy the parts into an arena and return the payload that tells the peer where they lie."""
        sizes = [len(part) for part in parts]
        offsets, total = _offsets(sizes)
        arena = self._take(total)
        for part, offset, size in zip(parts, offsets, sizes):  # noqa: B905
            arena.view[offset : offset + size] = part
        self._lent[arena.id] = arena
        return _HEAD.pack(arena.id, len(parts), arena.capacity) + struct.pack(f"<{len(sizes)}Q", *sizes)

    def released(self, ids: Sequence[int]) -> None:
        """Take back arenas that the peer holds no view of."""
        for number in ids:
            arena = self._lent.pop(number, None)
            if arena is None:
                raise ProtocolError("an arena was released that was not lent")
            self._idle.append(arena)
        while len(self._idle) > 1 and sum(a.capacity for a in self._idle) > self._idle_limit:
            self.dropped.append(self._idle.pop(0).id)

    def _take(self, size: int) -> _Arena:
        fitting = [a for a in self._idle if a.capacity >= size]
        if fitting:
            arena = min(fitting, key=lambda a: a.capacity)
            self._idle.remove(arena)
            return arena
        capacity = max(SMALLEST, 1 << (size - 1).bit_length()) if size < 1 << 26 else size
        capacity += -capacity % mmap.PAGESIZE
        fd = os.memfd_create("remote_exec-arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, capacity)
            _seal(fd)
            view = memoryview(mmap.mmap(fd, capacity))
            socket.send_fds(self._fd_socket, [struct.pack("<I", self._next_id)], [fd])
        finally:
            os.close(fd)
        self._next_id += 1
        return _Arena(self._next_id - 1, capacity, view)


class ReceivingArenas:
    """The peer's arenas, as mapped here."""

    def __init__(self, fd_socket: socket.socket) -> None:
        self._fd_socket = fd_socket
        self._mapped: dict[int, mmap.mmap] = {}
        self._released: deque[int] = deque()

    def unpack(self, payload: Buffer) -> list[memoryview]:
        """Return the parts of a message as writable views; the arena is released when the last one is gone.

        Raises:
            ProtocolError: the payload does not name an arena, or reaches beyond it.
        """
        number, count, capacity = _HEAD.unpack_from(payload)
        if len(payload) != _HEAD.size + 8 * count:
            raise ProtocolError("an arena message is cut")
        sizes = struct.unpack_from(f"<{count}Q", payload, _HEAD.size)
        mapped = self._mapped.get(number) or self._map(number, capacity)
        offsets, total = _offsets(sizes)
        if total > len(mapped):
            raise ProtocolError("an arena message reaches beyond its arena")
        owner = _exporter(mapped)
        weakref.finalize(owner, self._released.append, number).atexit = False
        whole = memoryview(owner).cast("B")
        return [whole[offset : offset + size] for offset, size in zip(offsets, sizes)]  # noqa: B905

    def drop(self, ids: Sequence[int]) -> None:
        """Forget arenas that the peer has given up."""
        for number in ids:
            self._mapped.pop(number, None)

    def take_released(self) -> list[int]:
        """Return the arenas released since the last call, for a RELEASE frame."""
        ids: list[int] = []
        while self._released:
            ids.append(self._released.popleft())
        return ids

    def _map(self, number: int, capacity: int) -> mmap.mmap:
        data, fds, _, _ = socket.recv_fds(self._fd_socket, 4, 1)
        try:
            if len(data) != 4 or struct.unpack("<I", data)[0] != number or len(fds) != 1:
                raise ProtocolError("another arena than the one named arrived")
            if os.fstat(fds[0]).st_size != capacity or not _is_sealed(fds[0]):
                raise ProtocolError("an arena is not what its message says")
            mapped = mmap.mmap(fds[0], capacity)
        finally:
            for fd in fds:
                os.close(fd)
        self._mapped[number] = mapped
        return mapped


def pack_ids(ids: Sequence[int]) -> bytes:
    """Return the payload of a RELEASE or DROP frame."""
    return struct.pack(f"<{len(ids)}I", *ids)


def unpack_ids(payload: Buffer) -> tuple[int, ...]:
    """Return the arena ids of a RELEASE or DROP frame."""
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
