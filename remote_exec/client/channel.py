"""One lease: its call stream, the functions the worker knows, the calls in flight on it.

A channel is touched only under its dispatcher's lock, but for `on_lease`, which the session's thread calls and
which only leaves word.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..model import errors
from ..model.ids import new_id
from ..wire import arenas, frames, protocol
from ..wire.frames import HEADER
from ..wire.messages import from_plain
from ..wire.stream import Buffer, CallStream
from .calls import SHORT_SECONDS, Call, Captured
from .reporter import interactive
from .sending import NotSentError

if TYPE_CHECKING:
    from ..model.cost import Price
    from .far_stream import FarStream
    from .session import Session

RECEIVE_SECONDS = 0.05  # how long the waiting thread sleeps in the kernel before it looks around
CERTIFICATE_SECONDS = 3.0  # how long a dead worker's certificate is waited for
SUCCESSOR_SECONDS = 8.0  # the same, where the agent has died too: the next one has to start first
SMALL = 1 << 16
TOLD_SECONDS = 0.5  # a call that has waited for longer is sent with what it has waited for
LEAST_SECONDS = 0.01


class Channel:
    """The client's end of one lease.

    Args:
        session: with the agent that is asked for it.
        reconnect: gives a session with the next agent, when that one is lost.
        on_recall: called when the agent wants the worker back.
        outlives_agent: calls may be sent after that agent has died, too.
    """

    def __init__(
        self,
        session: Session,
        *,
        reconnect: Callable[[], Session],
        on_recall: Callable[[], None] | None = None,
        outlives_agent: bool = False,
    ) -> None:
        self.session = session
        self._reconnect = reconnect
        self._asked = False  # the next agent has been
        self.usable = (
            True  # calls may be sent: its worker is not known to be gone, wanted back, or out of sight
        )
        self.recalled = False
        self._outlives_agent = outlives_agent
        self._on_recall = on_recall
        self.lease = new_id()
        self.in_flight: dict[int, Call] = {}
        self.withdrawing = False  # calls that have not begun were asked back
        self.outbox: list[bytes] = []  # frames that go in one piece
        self.bytes_in_flight = 0
        self.granted: protocol.LeaseGranted | None = None
        self.granted_at = 0.0
        self.refused: protocol.LeaseRefused | None = None
        self.lost: protocol.WorkerLost | None = None
        self.waits: protocol.LeaseWaits | None = None
        self.closed = False
        self.sent_at = self.last_result = time.monotonic()
        self._word = threading.Event()
        self._defined: dict[int, int] = {}  # token -> number, of the functions that the worker keeps
        self._next_function = 1
        self._folder: str = ""
        self._log_levels: dict[str, int] = {}
        self._root_level: int = -1
        self._next_call = 1
        self.price: Price | None = None  # of its worker
        self._acknowledged = 0
        self.to_acknowledge = 0
        self._far_ends: list[socket.socket] = []
        self._link: FarStream | None = None
        if session.host.here:
            ours, theirs = socket.socketpair()
            pair = socket.socketpair() if arenas.SUPPORTED else (None, None)
            seconds, micros = divmod(int(RECEIVE_SECONDS * 1_000_000), 1_000_000)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", seconds, micros))
            self.stream = CallStream(ours, pair[0])
            self._far_ends = [end for end in (theirs, pair[1]) if end is not None]
        else:
            from .far_stream import FarStream

            self._link = FarStream(
                session.host,
                self.lease,
                receive_seconds=RECEIVE_SECONDS,
            )
            self.stream = self._link.stream

    def open(self, request: dict[str, Any]) -> None:
        """Ask for the lease. Calls may be sent at once: they wait in the socket."""
        self.price = request["instance"].price
        if self._link is not None:
            message = protocol.RequestLease(lease=self.lease, streams=0, **request)
            self.session.request_lease(message, (), self)
            self._link.begin(request["linger_seconds"])
            return
        fds = tuple(end.fileno() for end in self._far_ends)
        message = protocol.RequestLease(lease=self.lease, streams=len(fds), **request)
        try:
            self.session.request_lease(message, fds, self)
        finally:
            for end in self._far_ends:
                end.close()
            self._far_ends = []

    # --- the session's thread ---------------------------------------------------------------------------------

    def on_lease(self, message: object) -> None:
        """Leave word of what became of the lease."""
        if isinstance(message, protocol.LeaseGranted):
            self.granted, self.granted_at = message, time.monotonic()
        elif isinstance(message, protocol.LeaseWaits):
            self.waits = message
        elif isinstance(message, protocol.LeaseRecalled):
            if self._on_recall is not None:
                self.recalled, self.usable = True, False
                self._on_recall()
        elif isinstance(message, protocol.LeaseRefused):
            self.refused, self.usable = message, False
            self._word.set()
            self._hang_up()
        elif isinstance(message, protocol.WorkerLost):
            self.lost, self.usable = message, False
            self._word.set()
            self._hang_up()

    def on_session_lost(self) -> None:
        """The agent is gone. If it had given the far end to a worker, the lease goes on; else the stream ends.

        Nothing new is sent: nobody would tell how its worker died. But the one worker of an instance is kept to,
        since its state is the point.
        """
        self.usable = self.usable and self._outlives_agent
        self._word.set()

    def learn_death(self) -> None:
        """Ask how the worker died, where the far end of its stream is gone and the agent's word has not come yet."""
        if self._link is not None and self._link.stream.forgotten and self.lost is None:
            with contextlib.suppress(errors.RemoteExecError, OSError):
                self.lost = self.ask_death(self._reconnect())

    @property
    def out_of_reach(self) -> bool:
        """Whether its stream has ended since its host was out of reach for too long, for one of both sides."""
        return self._link is not None and self.lost is None and self.refused is None

    @property
    def never_granted(self) -> bool:
        """Whether its agent died before any worker got its stream: nothing that was sent on it has run."""
        return self.granted is None and self.lost is None and self.refused is None and self.session.lost

    def _hang_up(self) -> None:
        self.stream.finish()  # wakes the thread that waits for this stream's next byte

    @property
    def is_free(self) -> bool:
        """Whether what is sent now does not wait behind something large that a slow link has yet to take."""
        return self._link is None or self._link.is_idle

    # --- sending ----------------------------------------------------------------------------------------------

    def send_again(self, call: Call) -> bool:
        """Send a small call of a function that the worker knows, when it differs from the last by its arguments alone.

        Returns:
            Whether that was the case: what `post` and `flush` do otherwise, in the shortest way.
        """
        captured = call.captured
        function = self._defined.get(captured.token)
        stream, buffers = call.pickled
        data = stream[0]
        if (
            function is None
            or buffers
            or self.outbox
            or len(stream) != 1
            or len(data) >= SMALL
            or call.folder != self._folder
            or captured.log_levels is not self._log_levels
            or logging.root.level != self._root_level
            or captured.phases
        ):
            return False
        number = call.number = self._next_call
        self._next_call = number + 1
        call.channel = self
        self.in_flight[number] = call
        size = call.size = len(data)
        self.bytes_in_flight += size
        call.sent_at = self.sent_at = time.monotonic()
        ack = self._acknowledged = self.to_acknowledge
        self._send_now(HEADER.pack(size, call.kind, 0, 0, function, number, ack) + data)
        return True

    def post(self, call: Call) -> None:
        """Put a call into the outbox, or send it at once where it is big; it is in flight now."""
        try:
            self._post(call)
        except NotSentError as interrupted:
            del self.in_flight[call.number]
            self.bytes_in_flight -= call.size
            call.channel, call.number, call.size = None, 0, 0
            raise interrupted.why from None

    def _post(self, call: Call) -> None:
        number = call.number = self._next_call
        self._next_call = number + 1
        call.channel, call.size = self, 0
        self.in_flight[number] = call
        captured = call.captured
        function = self._defined.get(captured.token)
        pieces = self.outbox
        if function is None:
            function = self._define(captured)
        folder = call.folder
        levels, root_level = captured.log_levels, logging.root.level
        if folder != self._folder or levels is not self._log_levels or root_level != self._root_level:
            self._folder, self._log_levels, self._root_level = folder, levels, root_level
            told = {
                "working_folder": folder,
                "log_levels": {**levels, "": root_level},
                "terminals": [interactive(sys.stdout), interactive(sys.stderr)],
            }
            pieces += _joined(frames.pack(frames.CONTEXT, [json.dumps(told).encode()]))
        if captured.phases or call.sent_at - call.started_at > TOLD_SECONDS:
            pieces += _phases(call)
        ack = self._acknowledged = self.to_acknowledge
        stream, buffers = call.pickled
        if not buffers and len(stream) == 1 and len(data := stream[0]) < SMALL:
            size = call.size = len(data)
            self.bytes_in_flight += size
            pieces.append(HEADER.pack(size, call.kind, 0, 0, function, number, ack) + data)
        else:
            call.size = call.pickled.size_bytes
            self.bytes_in_flight += call.size
            raw = [buffer.raw() for buffer in buffers]
            message = self.stream.frame(call.kind, stream, raw, function=function, call=number, ack=ack)
            self._send_big(message, captured.name)

    def withdraw(self) -> None:
        """Ask back what has not begun: the call before takes long.

        Raises:
            HostUnavailable: the agent is gone.
        """
        if not self.withdrawing:
            self.session.withdraw_calls(self.lease, self._next_call - 1)
            self.withdrawing = True

    def withdrawn(self, begun: int, upto: int) -> list[Call]:
        """Take back the calls that will not begin here."""
        self.withdrawing = False
        calls = [call for number, call in self.in_flight.items() if begun < number <= upto]
        for call in calls:
            del self.in_flight[call.number]
            self.bytes_in_flight -= call.size
            call.channel, call.number = None, 0
        return calls

    @property
    def running_since(self) -> float:
        """When the call that runs now began, as far as can be told from here; now, if there is none."""
        first = next(iter(self.in_flight.values()), None)
        return time.monotonic() if first is None else max(first.sent_at, self.last_result)

    def flush(self) -> None:
        """Send what is in the outbox."""
        if self.outbox:
            data = self.outbox[0] if len(self.outbox) == 1 else b"".join(self.outbox)
            self.outbox.clear()
            self._send_now(data)

    def _send_now(self, data: bytes) -> None:
        try:
            if self._link is None:
                self.stream.send_now(data)
            else:
                self._link.send_now(data, self._next_call)
        except NotSentError as interrupted:
            self.outbox.insert(0, data)
            raise interrupted.why from None
        except OSError:
            return  # whoever reads finds the end of the stream, and settles what was in flight

    def _send_big(self, message: list[Buffer], of: str) -> None:
        try:
            self.flush()
        except BaseException as why:
            raise NotSentError(why) from why
        try:
            if self._link is None:
                self.stream.send(message)
            else:
                self._link.send_long(message, self._next_call, of)
        except OSError:
            return  # as above

    def cost(self, call: Call) -> int:
        """Return how many bytes sending a call takes, with its function if the worker does not know it."""
        known = call.captured.token in self._defined
        return call.pickled.size_bytes + (0 if known else call.captured.pickled.size_bytes)

    def _define(self, captured: Captured) -> int:
        function, self._next_function = self._next_function, self._next_function + 1
        if len(self._defined) >= frames.FUNCTIONS_KEPT:
            del self._defined[next(iter(self._defined))]
        self._defined[captured.token] = function
        self.outbox += _joined(
            frames.pack(frames.CONTEXT, [json.dumps({"functions": {function: captured.told}}).encode()])
        )
        stream, buffers = captured.pickled.stream, captured.pickled.buffers
        message = self.stream.frame(frames.DEFINE, stream, [b.raw() for b in buffers], function=function)
        if sum(len(part) for part in message) < SMALL:
            self.outbox += _joined(message)
        else:
            self._send_definition(captured, message)
        return function

    def _send_definition(self, captured: Captured, message: list[Buffer]) -> None:
        try:
            self._send_big(message, captured.name)
        except BaseException as why:  # its call has not gone yet
            del self._defined[captured.token]
            raise why if isinstance(why, NotSentError) else NotSentError(why) from why

    def flush_acknowledgement(self) -> None:
        """Tell it now, when no other frame is going to."""
        if self.to_acknowledge > self._acknowledged and not self.closed:
            message = frames.pack(frames.ACK, ack=self.to_acknowledge)
            try:
                if self._link is None:
                    self.stream.send(message)
                elif not self.stream.try_send(message):
                    return  # the link is busy; it has time
                self._acknowledged = self.to_acknowledge
            except OSError:
                pass  # its end is noticed by who reads

    # --- ending -----------------------------------------------------------------------------------------------

    def release(self) -> None:
        """Give the worker back, in good order."""
        if self.closed:
            return
        if self.is_free:
            self.flush()
            self._say_goodbye()
        else:  # nobody waits for what a slow link has yet to take
            threading.Thread(target=self._say_goodbye, name="remote_exec-goodbye", daemon=True).start()
        self.closed = True
        self.session.forget_lease(self.lease)

    def _say_goodbye(self) -> None:
        try:
            self.stream.send(frames.pack(frames.BYE, ack=self.to_acknowledge))
        except OSError:
            pass
        self.stream.close()

    def abandon(self) -> None:
        """Let go without a word: in a forked child, or after the worker's death."""
        self.closed = True
        for end in self._far_ends:
            end.close()
        self.stream.close()
        self.session.forget_lease(self.lease)

    def why_ended(self, call: Call) -> errors.RemoteExecError:
        """Return what to raise for a call whose stream has ended; waits a moment for the agent's word."""
        if self._link is not None and self.lost is None and self.refused is None:
            return self._link.why_ended(call)
        if self.refused is None and self.lost is None and not self.session.lost:
            self._word.wait(CERTIFICATE_SECONDS)
        if self.granted is not None and self.lost is None and self.session.lost and not self._asked:
            self._asked = True
            self.lost = self._ask_successor()
        if self.refused is not None:
            return _refusal(self.refused)
        if self.lost is not None:
            return _death(self.lost, call)
        if self.granted is None:
            return errors.HostUnavailable(
                "the agent is gone before it gave this call a worker",
                hint="call again: another will be started",
            )
        return errors.WorkerDied(
            f"the worker that ran {call.label} is gone; how it died is unknown, since its agent is gone too"
        )

    def session_again(self) -> Session | None:
        """Return a session by which to ask what became of its calls, where its host is there and has given it up.

        Raises:
            HostUnavailable: the host is out of reach again.
        """
        return self._reconnect() if self._link is not None and self._link.stream.forgotten else None

    def never_went(self, call: Call) -> bool:
        """Whether not all of a call has left this machine, since its stream was broken when it was sent."""
        return self._link is not None and self._link.never_went(call)

    def may_be_sent_again(self, session: Session) -> bool:
        """Whether what the host has no record of was never begun there.

        Raises:
            HostUnavailable: the agent is gone.
        """
        return self.granted is None or bool(session.ask("ended", {"lease": self.lease})["ended"])

    def ask_death(self, session: Session) -> protocol.WorkerLost | None:
        """Ask an agent how the worker died; None where it has not, or that is not known.

        Raises:
            HostUnavailable: the agent is gone.
        """
        told = session.ask("death", {"lease": self.lease})
        return from_plain(protocol.WorkerLost, told) if told is not None else None

    def _ask_successor(self) -> protocol.WorkerLost | None:
        """Ask the next agent how the worker died; its fork server, if that is alive, has told it."""
        answers: list[protocol.WorkerLost] = []

        def ask() -> None:
            try:
                told = self.ask_death(self._reconnect())
            except (errors.RemoteExecError, OSError):
                return  # then it is not known
            if told is not None:
                answers.append(told)

        asking = threading.Thread(target=ask, name="remote_exec-death", daemon=True)
        try:
            asking.start()
        except RuntimeError:  # the interpreter is ending
            return None
        asking.join(SUCCESSOR_SECONDS)
        return answers[0] if answers else None


def _phases(call: Call) -> list[bytes]:
    """Return what tells how a call came here, where that took a while."""
    captured, queued = call.captured, call.sent_at - call.started_at
    phases = [[phase.name, phase.seconds] for phase in captured.phases if phase.seconds > LEAST_SECONDS]
    captured.phases = ()
    if queued > TOLD_SECONDS and captured.seconds > SHORT_SECONDS:
        phases.append(["queue", queued])
    if not phases:
        return []
    return _joined(frames.pack(frames.CONTEXT, [json.dumps({"phases": {call.number: phases}}).encode()]))


def _joined(message: list[Any]) -> list[bytes]:
    return [b"".join(message)]


def _refusal(refused: protocol.LeaseRefused) -> errors.RemoteExecError:
    cls = next((e for e in errors.ALL if e.__name__ == refused.error), errors.RemoteExecError)
    if cls is errors.RuntimeEnvironmentError:
        return errors.RuntimeEnvironmentError(refused.text, output=refused.output, hint=refused.hint)
    return cls(refused.text, hint=refused.hint)


def _death(lost: protocol.WorkerLost, call: Call) -> errors.RemoteExecError:
    certificate = lost.certificate
    if certificate.cause.value == "timed_out":
        return errors.MaxRuntimeExceeded(f"{call.label}: {certificate.message}")
    lines = "".join(f"\n  | {line}" for line in certificate.last_lines[-10:])
    peak = f"; peak memory {certificate.peak_memory / 1e6:,.0f} MB" if certificate.peak_memory else ""
    told = f"\nits last lines:{lines}" if lines else ""
    hint = f"remote-exec jobs {call.name}" if sys.stderr is not None else ""
    return errors.WorkerDied(
        f"the worker that ran {call.label} died: {certificate.message}{peak}{told}",
        certificate=certificate,
        hint=hint,
    )
