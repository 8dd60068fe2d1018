"""One connection to one agent, and the thread that reads it. Calls do not pass here, only what leads to them."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from ..backends.host import Host
from ..model import errors
from ..model.bundle import Bundle
from ..wire import protocol
from ..wire.compression import LEAST, Compression
from ..wire.control import ControlStream
from .greeting import greeted
from .interrupts import shield, unshield
from .phases import Span

PIECE = 1 << 20  # one is taken in while the next is on its way
UNANSWERED = 64  # files that may be under way at once


class LeaseListener(Protocol):
    """What hears of one lease; called in the session's thread."""

    def on_lease(self, message: object) -> None:
        """Hear that it waits, was granted, refused, or has lost its worker."""

    def on_session_lost(self) -> None:
        """Hear that the agent is gone; the call stream may live on."""


class Session:
    """Use `open_session`."""

    def __init__(self, host: Host, stream: ControlStream, welcome: protocol.Welcome) -> None:
        self.host = host
        self.welcome = welcome
        self.pid = os.getpid()
        self.lost = False
        self.away = False  # its connection is broken, and not mended yet
        self._told_loss = False
        self._stream = stream
        self._compression = Compression()
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._replies: dict[int, tuple[Future[tuple[Any, bytes]], list[tuple[Any, bytes]] | None]] = {}
        self._uploads: dict[str, Future[tuple[Any, bytes]]] = {}  # by digest
        self._streams: dict[int, Callable[[protocol.Reply, bytes], None]] = {}
        self._leases: dict[str, LeaseListener] = {}
        threading.Thread(target=self._read, name="remote_exec-session", daemon=True).start()

    # --- leases -----------------------------------------------------------------------------------------------

    def request_lease(
        self, request: protocol.RequestLease, fds: tuple[int, ...], listener: LeaseListener
    ) -> None:
        """Ask for a worker; the listener hears what comes of it."""
        self._leases[request.lease] = listener
        self._send(request, fds=fds)

    def cancel_call(self, lease: str, call: int) -> None:
        """Have a call stopped."""
        self._send(protocol.CancelCall(lease, call))

    def withdraw_calls(self, lease: str, upto: int) -> None:
        """Have the calls up to this number given back that have not begun."""
        self._send(protocol.WithdrawCalls(lease, upto))

    def forget_lease(self, lease: str) -> None:
        """Hear no more of a lease."""
        self._leases.pop(lease, None)

    # --- requests ---------------------------------------------------------------------------------------------

    def ask(self, what: str, arguments: Mapping[str, Any] | None = None, *, body: bytes = b"") -> Any:
        """Ask the agent something and wait for the answer.

        Raises:
            HostUnavailable: the agent is gone.
            RemoteExecError: what the agent answered.
        """
        return self.start(what, arguments, body=body).result()[0]

    def start(
        self, what: str, arguments: Mapping[str, Any] | None = None, *, body: bytes = b""
    ) -> Future[tuple[Any, bytes]]:
        """Ask the agent something; the future gives the answer and its body, all pieces joined."""
        number = next(self._ids)
        return self._expect(number, protocol.Request(number, what, dict(arguments or {})), body)

    def follow(self, what: str, arguments: Mapping[str, Any]) -> Iterator[Any]:
        """Ask for something that comes in pieces, and yield them."""
        import queue

        pieces: queue.SimpleQueue[tuple[Any, bool] | Exception] = queue.SimpleQueue()
        number = next(self._ids)

        def take(reply: protocol.Reply, _body: bytes) -> None:
            error = _error(reply)
            pieces.put(error if error is not None else (reply.value, reply.more))

        self._streams[number] = take
        self._send(protocol.Request(number, what, dict(arguments)))
        while True:
            piece = pieces.get()
            if isinstance(piece, Exception):
                raise piece
            yield piece[0]
            if not piece[1]:
                return

    def upload(self, bundle: Bundle, sources: Mapping[str, Path], span: Span | None = None) -> int:
        """Bring a bundle to the host: the files that it lacks, by digest; return how many bytes went.

        Args:
            bundle: its manifest.
            sources: where the files lie, by digest.
            span: told how far it is.

        Raises:
            RemoteExecError: the host refused it.
        """
        sent = 0
        for _ in range(2):
            number = next(self._ids)
            answer, _body = self._expect(number, protocol.OfferBundle(number, bundle)).result()
            if not answer["missing"]:
                return sent
            if span is not None:
                sizes = {file.digest: file.size for file in bundle.files}
                span.expect(sum(sizes[digest] for digest in answer["missing"]))
            sent += self._upload_blobs({digest: sources[digest] for digest in answer["missing"]}, span)
        raise errors.HostUnavailable("the host keeps missing files that were sent to it")

    def _upload_blobs(self, paths: Mapping[str, Path], span: Span | None) -> int:
        """Bring files to the host, many at a time; return how many bytes went."""
        sent = 0
        waiting: deque[Future[Any]] = deque()
        for digest, path in paths.items():
            with open(path, "rb") as file:
                size = path.stat().st_size
                waiting.append(self.send_file(digest, file, size=size, span=span))
            sent += size
            if len(waiting) >= UNANSWERED:
                waiting.popleft().result()
        for reply in waiting:
            reply.result()
        return sent

    def upload_blob(self, digest: str, path: Path, span: Span | None = None) -> int:
        """Bring one file to the host; return its size."""
        with open(path, "rb") as file:
            return self.upload_file(digest, file, size=path.stat().st_size, span=span)

    def upload_file(self, digest: str, file: BinaryIO, *, size: int, span: Span | None = None) -> int:
        """Bring the content of an open file to the host as a blob; return its size."""
        self.send_file(digest, file, size=size, span=span).result()
        return size

    def send_file(
        self, digest: str, file: BinaryIO, *, size: int, span: Span | None = None
    ) -> Future[tuple[Any, bytes]]:
        """Send the content of an open file; the future tells when the host has it as a blob, or why it has not.

        What another thread is sending already is not sent twice.
        """
        reply: Future[tuple[Any, bytes]] = Future()
        number, sent, last = next(self._ids), 0, False
        under_way = self._uploads.setdefault(digest, reply)
        if under_way is not reply:
            return under_way
        try:
            reply.add_done_callback(lambda _: self._uploads.pop(digest, None))
            self._replies[number] = (reply, None)
            while not last:
                piece = file.read(PIECE)
                sent += len(piece)
                last = sent >= size or not piece or reply.done()  # refused: it need not hear the rest
                self._send_piece(number, digest, piece, last=last)
                if span is not None:
                    span.moved(len(piece))
        except BaseException:
            self._uploads.pop(digest, None)
            with contextlib.suppress(errors.HostUnavailable):
                self._send(protocol.PutBlob(number, digest, True))
            raise
        return reply

    def _send_piece(self, number: int, digest: str, piece: bytes, *, last: bool) -> None:
        """Send a piece of a blob; compressed, where the link is slow."""
        if self.host.here or len(piece) < LEAST:
            self._send(protocol.PutBlob(number, digest, last), piece)
            return
        began = time.monotonic()
        packed = self._compression.packed([piece], len(piece))
        body = piece if packed is None else b"".join(packed)
        ready = time.monotonic()
        self._send(protocol.PutBlob(number, digest, last, packed is not None), body)
        ended = time.monotonic()
        self._compression.took(len(body), ended - began, ended - ready)

    def _expect(self, number: int, message: object, body: bytes = b"") -> Future[tuple[Any, bytes]]:
        reply: Future[tuple[Any, bytes]] = Future()
        self._replies[number] = (reply, [])
        self._send(message, body)
        return reply

    # --- the stream -------------------------------------------------------------------------------------------

    def _send(self, message: object, body: bytes = b"", fds: tuple[int, ...] = ()) -> None:
        # Whoever expects an answer has registered before: either this fails, or the loss is told to it.
        shielded = self.host.here and shield()  # what is half sent elsewhere is sent again
        try:
            with self._lock:
                if self.lost:
                    raise ConnectionError("its session has ended")
                self._stream.send(message, body, fds)
        except OSError as error:
            self._lose()
            raise errors.HostUnavailable(f"the agent is gone: {error}") from error
        finally:
            if shielded:
                unshield()

    def _read(self) -> None:
        try:
            while True:
                received = self._stream.receive()
                if received is None and not self._is_mended():
                    break
                for one in received or ():
                    self._dispatch(one.message, one.body)
        except (OSError, errors.ProtocolError):
            pass
        self._lose()
        with self._lock:
            self._stream.close()

    def _is_mended(self) -> bool:
        """Whether the stream goes on over another connection: one to another machine may."""
        if self.lost or self.host.here:
            return False
        from .far_session import mend

        self.away = True
        self.away = not mend(self.host, self._stream, lambda: self.lost)
        return not self.away

    def _dispatch(self, message: Any, body: bytes) -> None:
        if isinstance(message, protocol.Goodbye):
            self.lost = True
            return
        if isinstance(message, protocol.Reply):
            stream = self._streams.get(message.id)
            if stream is not None:
                if not message.more:
                    self._streams.pop(message.id, None)
                stream(message, body)
                return
            waiting = self._replies.get(message.id)
            if waiting is None:
                return
            future, pieces = waiting
            if message.more and pieces is not None:
                pieces.append((message.value, body))
                return
            self._replies.pop(message.id, None)
            error = _error(message)
            if error is not None:
                future.set_exception(error)
            else:
                joined = b"".join([piece for _, piece in pieces or ()]) + body if pieces else body
                future.set_result((message.value, joined))
            return
        listener = self._leases.get(getattr(message, "lease", ""))
        if listener is not None:
            listener.on_lease(message)

    def _lose(self) -> None:
        with self._lock:
            if self._told_loss:
                return
            self.lost = self._told_loss = True
        gone = errors.HostUnavailable("the agent is gone", hint="call again: another will be started")
        for future, _ in list(self._replies.values()):
            if not future.done():
                future.set_exception(gone)
        self._replies.clear()
        for stream in list(self._streams.values()):
            stream(protocol.Reply(0, None, "HostUnavailable", gone.message), b"")
        for listener in list(self._leases.values()):
            listener.on_session_lost()

    def close(self) -> None:
        """End the connection."""
        self.lost = True
        with contextlib.suppress(OSError, errors.ProtocolError):
            if not self.host.here:
                self._stream.send(protocol.Goodbye())
        try:
            self._stream.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def abandon(self) -> None:
        """In a forked child: let go of the parent's connection without disturbing it."""
        self.lost = True
        self._stream.close()


def _error(reply: protocol.Reply) -> errors.RemoteExecError | None:
    if not reply.error:
        return None
    cls = next((e for e in errors.ALL if e.__name__ == reply.error), errors.RemoteExecError)
    return cls(reply.text)


def open_session(host: Host) -> Session:
    """Connect to a host's agent, brought up if there is none.

    Raises:
        HostUnavailable: none could be reached.
    """
    return Session(host, *greeted(host))
