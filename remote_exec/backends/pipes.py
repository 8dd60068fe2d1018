"""The streams that a tunnel's near end can run over: a command's pipes, or the socket of an exec in a container."""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import subprocess
import time
from typing import Protocol

from ..model.errors import ProtocolError
from ..wire.pump import MOST_PIECES, Descriptors, Pipe
from ..wire.tunnel import Buffer

LAST_BYTES = 4096  # of what a command says beside the stream
LAST_LINES = 20
LISTEN_SECONDS = 0.3  # how long a command's last words are waited for: a child of it may keep its output open
END_SECONDS = 3.0  # from the end of its input to its own

_FRAME = struct.Struct(">BxxxI")  # Docker's: which of the outputs, and how much of it
_STDOUT, _STDERR, _SYSTEM = 1, 2, 3


class NearPipe(Pipe, Protocol):
    """A pipe whose other end may have something to say beside the stream."""

    talking: int | None  # a descriptor to wait on for that, if it is not the stream's

    def listen(self) -> bool:
        """Take in what is said beside the stream; False when that has ended."""
        ...

    def last_words(self) -> str:
        """Return, after `close`, how it ended and its last lines; empty when there is nothing to tell."""
        ...

    def abandon(self) -> None:
        """In a forked child: close what is this process's copy."""
        ...


class LastLines:
    """The end of what a command says; the rest is forgotten."""

    def __init__(self) -> None:
        self._tail = b""

    def add(self, data: bytes) -> None:
        """Take in some more."""
        self._tail = (self._tail + data)[-LAST_BYTES:]

    def __str__(self) -> str:
        text = self._tail.decode(errors="replace").replace("\r\n", "\n")
        lines = "".join(char for char in text if char.isprintable() or char in "\n\t").strip().split("\n")
        return "\n".join(lines[-LAST_LINES:])


class Command(Descriptors):
    """A running command whose standard input and output are the stream.

    Args:
        process: started with pipes for all three of its standard streams, unbuffered (``bufsize=0``), and best in a
            process group of its own, so that Ctrl-C does not end it. It is the pipe's from now on.

    Example::

        process = subprocess.Popen(argv, bufsize=0, stdin=PIPE, stdout=PIPE, stderr=PIPE, process_group=0)
        tunnel = Tunnel(Command(process), on_end=print)
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise ValueError("a tunnel needs a process with pipes for its input and both its outputs")
        self._process = process
        self._stderr = process.stderr
        self._lines = LastLines()
        self.talking: int | None = process.stderr.fileno()
        os.set_blocking(process.stderr.fileno(), False)
        super().__init__(process.stdout.fileno(), process.stdin.fileno())

    def listen(self) -> bool:
        """See `NearPipe`."""
        try:
            data = os.read(self._stderr.fileno(), LAST_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._lines.add(data)
        return bool(data)

    def close(self) -> None:
        """Close the stream and see to it that the command ends."""
        self._close_streams()
        deadline = time.monotonic() + LISTEN_SECONDS
        while (left := deadline - time.monotonic()) > 0 and not self._stderr.closed:
            if select.select([self._stderr], [], [], left)[0] and not self.listen():
                break
        self._stderr.close()
        for force in (self._process.terminate, self._process.kill):
            try:
                self._process.wait(END_SECONDS)
                return
            except subprocess.TimeoutExpired:
                force()
        self._process.wait()

    def last_words(self) -> str:
        """See `NearPipe`."""
        code = self._process.returncode
        if code is None:
            how = "its command has not ended"
        elif code < 0:
            how = f"its command was ended by {signal.Signals(-code).name}"
        else:
            how = f"its command ended with exit status {code}"
        lines = str(self._lines)
        return f"{how}; its last lines:\n{lines}" if lines else how

    def abandon(self) -> None:
        """See `NearPipe`."""
        self._close_streams()
        self._stderr.close()
        self._process.returncode = 0  # it is the parent's to wait for

    def _close_streams(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


class Exec:
    """The socket of an exec in a container, without a terminal: Docker frames what the two outputs say.

    Args:
        sock: connected, its HTTP answer read and not a byte more, plain or TLS. It is the pipe's from now on.
    """

    talking: int | None = None

    def __init__(self, sock: socket.socket) -> None:
        import ssl  # a tunnel by a command does without

        sock.setblocking(False)
        self._encrypted = isinstance(sock, ssl.SSLSocket)
        self._again = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
        self.reading = self.writing = sock.fileno()
        self._sock = sock
        self._lines = LastLines()
        self._head = bytearray()
        self._kind = self._left = 0

    def read_into(self, space: memoryview) -> int:
        """See `Pipe`.

        Raises:
            ProtocolError: this is not how Docker frames it.
        """
        while True:
            size = self._receive(space)
            if not size:
                return 0
            kept = self._unframe(space[:size])
            if kept:
                return kept

    def write(self, pieces: list[Buffer]) -> int:
        """See `Pipe`."""
        if not self._encrypted:
            return self._sock.sendmsg(pieces[:MOST_PIECES])
        try:
            return self._sock.send(pieces[0])
        except self._again:
            raise BlockingIOError from None

    def listen(self) -> bool:
        """See `NearPipe`."""
        return False

    def last_words(self) -> str:
        """See `NearPipe`."""
        lines = str(self._lines)
        return f"its last lines:\n{lines}" if lines else ""

    def close(self) -> None:
        """See `Pipe`. The engine then closes the command's input."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it was gone
        self._sock.close()

    def abandon(self) -> None:
        """See `NearPipe`."""
        if self._sock.fileno() >= 0:
            os.close(self._sock.detach())  # the connection is the parent's: no goodbye

    def _receive(self, space: memoryview) -> int:
        # With TLS it gives a record, and leaves nothing decrypted that no descriptor would tell of: that fits in.
        try:
            return self._sock.recv_into(space)
        except self._again:
            raise BlockingIOError from None

    def _unframe(self, view: memoryview) -> int:
        """Move what is of the stream to the front, take in the rest; return how much is of the stream."""
        kept = start = 0
        while start < len(view):
            if not self._left:
                size = min(_FRAME.size - len(self._head), len(view) - start)
                self._head += view[start : start + size]
                start += size
                if len(self._head) == _FRAME.size:
                    self._kind, self._left = _FRAME.unpack(self._head)
                    self._head.clear()
                    if self._kind not in (_STDOUT, _STDERR, _SYSTEM):
                        raise ProtocolError(
                            "what came is not framed as Docker does: has the exec a terminal?"
                        )
                continue
            size = min(self._left, len(view) - start)
            piece = view[start : start + size]
            if self._kind == _STDOUT:
                view[kept : kept + size] = piece
                kept += size
            else:
                self._lines.add(bytes(piece))
            self._left -= size
            start += size
        return kept
