"""The call stream of a lease on another machine: its first connection, and others when one breaks.

A broken connection is mended by a thread that lives for as long as that takes. Where it cannot be mended in time, or
the far end has given the stream up, it ends.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

from ..backends.host import Host
from ..backends.patience import within
from ..model.errors import HostUnavailable, RemoteExecError, WorkerDied
from ..wire.resumable import ResumableStream
from ..wire.resume import CALLS, Opening
from ..wire.stream import Buffer
from .sending import Outgoing, Sender

if TYPE_CHECKING:
    from .calls import Call

FIRST_NAP_SECONDS = 0.02
LONGEST_NAP_SECONDS = 1.0


class FarStream:
    """Of one channel.

    Args:
        host: where the far end is.
        lease: whose stream it is.
        receive_seconds: as for `ResumableStream`.
    """

    def __init__(self, host: Host, lease: str, *, receive_seconds: float) -> None:
        self._host = host
        self._lease = lease
        self._patience = 0.0
        self._began = time.monotonic()
        self._deadline = (
            0.0  # monotonic, of the present trouble: it ends when anything has come over a connection
        )
        self._progress = (0, 0)
        self._nap = FIRST_NAP_SECONDS
        self._sent = 0  # where in the stream ends what was sent, ...
        self._next_call = 1  # ... and the number behind the last call in it
        # of what did not go at once: the numbers of the first call in it and behind the last, where it begins and ends
        self._held_back: list[tuple[int, int, int, int]] = []
        self.stream = ResumableStream(receive_seconds=receive_seconds, on_cut=self._on_cut)
        self._sender = Sender(self.stream)

    def begin(self, patience: float) -> None:
        """Open the stream: what is sent from now on goes as soon as the way is there.

        Args:
            patience: seconds for which a broken connection is tried to be mended.
        """
        self._patience = patience
        try:
            with within(patience):
                sock = self._host.connect()
            sock.sendall(Opening(CALLS, self._lease, begins=True).pack())
        except (HostUnavailable, OSError):
            self._on_cut()
            return
        self.stream.attach(sock, 0)

    def why_ended(self, call: Call) -> RemoteExecError:
        """Return what to raise for a call that this stream's end leaves without an outcome."""
        name, host = call.label, self._host.name
        lost = self._host.how_lost(self._began)
        if lost is not None:
            return WorkerDied(
                f"the worker that ran {name} on {host} died: {lost.message}",
                certificate=lost,
                hint=f"call again, if {name} may run twice",
            )
        if self.stream.forgotten:
            return WorkerDied(
                f"the worker that ran {name} on {host} is gone; how it ended is not known there: the host, or all that "
                "ran on it, was lost meanwhile",
                hint=f"call again, if {name} may run twice",
            )
        return HostUnavailable(
            f"{host} has been out of reach for {self._patience:g} s (connection_timeout), with {name} under way there",
            hint=f"if it has begun, it goes on as a job: get_future({call.name!r}).result() when the host is back",
        )

    @property
    def is_idle(self) -> bool:
        """Whether what is sent now waits behind nothing."""
        return self._sender.is_idle

    def send_now(self, data: bytes, next_call: int) -> None:
        """Send bytes that are whole frames already.

        Args:
            data: not many.
            next_call: the number behind the last call in it; the same again, where there is more of that.

        Raises:
            NotSentError: a Ctrl-C came before they went.
            KeyboardInterrupt: it came then; they go.
            OSError: the stream has ended.
        """
        try:
            if not (self._sender.is_idle and self.stream.try_send([data])):
                self._sender.send(Outgoing([data]))
        except KeyboardInterrupt:
            self._sent_up_to(next_call)
            raise
        self._sent_up_to(next_call)

    def send_long(self, message: list[Buffer], next_call: int, of: str) -> None:
        """Send a long message; it is shown how far it is.

        Args:
            message: as `CallStream.frame` made it.
            next_call: as for `send_now`.
            of: the function whose call it is.

        Raises:
            NotSentError: a Ctrl-C came before it had gone; at the far end it is nothing.
            KeyboardInterrupt: it came so late that it goes.
            OSError: the stream has ended.
        """
        from .connections import connections

        try:
            with connections.watch("transfer", of) as span:
                span.expect(sum(map(len, message)))
                self._sender.send(Outgoing(message, moved=span.moved))
        except KeyboardInterrupt:
            self._sent_up_to(next_call)
            raise
        self._sent_up_to(next_call)

    def _sent_up_to(self, next_call: int) -> None:
        first, self._next_call = self._next_call, next_call
        start, self._sent = self._sent, self.stream.sent
        if self.stream.reached == self._sent:
            self._held_back.clear()
        else:
            if first == next_call:  # there is more of the last call
                first -= 1
                if self._held_back and self._held_back[-1][1] == next_call:
                    first, _, start, _ = self._held_back.pop()
            self._held_back.append((first, next_call, start, self._sent))

    def never_went(self, call: Call) -> bool:
        """Whether not all of a call has left this machine, so that it cannot have begun elsewhere."""
        for first, following, start, end in self._held_back:
            if first <= call.number < following:
                if call.number == following - 1:
                    return self.stream.reached < end
                return self.stream.reached <= start  # where it ends in its piece is not known
        return call.number >= self._next_call

    def _on_cut(self) -> None:
        progress = (self.stream.received, self.stream.answers)
        if progress != self._progress or not self._deadline:
            self._progress = progress
            self._deadline, self._nap = time.monotonic() + self._patience, FIRST_NAP_SECONDS
        # a host that swallows what it is sent holds up whoever connects, for longer than that
        late = threading.Timer(max(0.0, self._deadline - time.monotonic()), self.stream.give_up)
        late.daemon = True
        try:
            late.start()
            threading.Thread(target=self._mend, args=(late,), name="remote_exec-mend", daemon=True).start()
        except RuntimeError:  # the interpreter is ending
            self.stream.give_up()

    def _mend(self, late: threading.Timer) -> None:
        stream = self.stream
        while not (stream.ended or stream.closed):
            time.sleep(self._nap)
            self._nap = min(2 * self._nap, LONGEST_NAP_SECONDS)
            with contextlib.suppress(HostUnavailable, OSError):
                with within(self._deadline - time.monotonic()):
                    sock = self._host.connect()
                try:
                    sock.sendall(Opening(CALLS, self._lease, stream.received).pack())
                    stream.attach(sock, None)
                except OSError:
                    sock.close()
                    raise
                break
        late.cancel()
