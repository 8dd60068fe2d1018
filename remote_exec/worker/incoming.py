"""A blob on its way in."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..model.errors import ProtocolError
from .atomic import CHUNK_BYTES, write_all

if TYPE_CHECKING:
    from .blobs import BlobStore


class Upload:
    """A blob on its way in. Got from `BlobStore.put_stream`, never built.

    Write the bytes from `offset` on, then `commit`; or `abort`. When neither comes to pass (the client went
    away: `suspend`, or this process died), what has come stays for a while, and `put_stream` goes on with it.
    """

    def __init__(self, store: BlobStore, digest: str, *, path: Path, descriptor: int, durable: bool) -> None:
        self.digest = digest
        self._store = store
        self._path = path
        self._descriptor = descriptor
        self._durable = durable
        self._hasher = hashlib.sha256()
        self.offset = 0
        while chunk := os.read(descriptor, CHUNK_BYTES):
            self._hasher.update(chunk)
            self.offset += len(chunk)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes at `offset`."""
        write_all(self._descriptor, data)
        self._hasher.update(data)
        self.offset += len(data)

    def commit(self) -> None:
        """Publish the blob.

        Raises:
            ProtocolError: the bytes are not what the digest says; they are dropped.
        """
        found = f"sha256:{self._hasher.hexdigest()}"
        if found != self.digest:
            self.abort()
            raise ProtocolError(f"{self.offset} bytes came for {self.digest}, but they are {found}")
        try:
            self._store._publish(self._descriptor, self._path, self.digest, durable=self._durable)  # pyright: ignore[reportPrivateUsage]
        finally:
            self.suspend()

    def abort(self) -> None:
        """Drop what has come; after `commit` or `suspend`, nothing."""
        if self._descriptor >= 0:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
            self.suspend()

    def suspend(self) -> None:
        """Leave what has come for a later `put_stream`."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
