"""The second thread of a worker: it waits on everything but the calls themselves.

It hears the agent (a lease to serve, a call to interrupt), forwards what a running call prints, notices that the
client is gone, reports calls that run long, and ends the process when the fork server is gone. It is asleep while
calls are short and silent. Logs are written here, to the lease's log file, so that they survive everything.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import socket
import sys
import threading
import time
import traceback
from dataclasses import asdict
from typing import Any

from ..serial import pickling
from ..wire import frames, protocol
from ..wire.control import ControlStream
from ..wire.stream import CallStream
from . import context, progress
from .joblog import LOG_NAME, LogWriter, Stream
from .keeping import INLINE_BYTES, keep_result, keep_trees, without_room
from .lease import Lease, Outcome
from .output import READ_SIZE, Output
from .private import make_private_folder
from .progress import Bars
from .sampling import Sampler, log_gpus

TICK_SECONDS = 0.25
COALESCE_SECONDS = 0.01  # how often a chattering function is listened to
BACKLOG_LIMIT = 4 << 20  # bytes of output kept for a client that does not read
SHOWN_SECONDS = 0.1  # how often the client is told of progress
LOGGED_SECONDS = 1.0  # how often the log is
SWITCH_SECONDS = 0.05

_HANGUP = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)


class Attendant(threading.Thread):
    """Shared state is guarded by `output.lock` (the log, the backlog) and `_control_lock` (the agent's stream)."""

    def __init__(self, worker: int, lifeline: socket.socket, output: Output) -> None:
        super().__init__(name="remote_exec-attendant", daemon=True)
        self.worker = worker
        self.output = output
        self.leases: queue.SimpleQueue[Lease | None] = queue.SimpleQueue()
        self._lifeline = lifeline
        self._control: ControlStream | None = None
        self._control_lock = threading.Lock()
        self._undelivered: list[tuple[object, bytes]] = []
        self._lease: Lease | None = None
        self._main = threading.main_thread().ident or 0
        self._log: LogWriter | None = None
        self._backlog: list[tuple[int, int, int, bytes]] = []  # call, kind of frame, its flags, payload
        self._backlog_size = 0
        self._left_out = 0
        self._printed_call = 0
        self._bars = Bars(SHOWN_SECONDS)
        self._logged_bars = Bars(LOGGED_SECONDS)
        self._bars_call = 0
        self._sampler = Sampler()
        output.on_switch = self._on_switch
        self._deadline: tuple[Lease, int, float] | None = None
        self._flushes = False
        self._wake_read, self._wake_write = os.pipe()

    # --- asked by the main thread ---------------------------------------------------------------------------

    @property
    def current(self) -> Lease | None:
        """The lease that is served now."""
        return self._lease

    def next_lease(self) -> Lease | None:
        """Wait for the next lease; None when the worker is to end."""
        return self.leases.get()

    def lease_ended(self, lease: Lease) -> None:
        """Tell the agent that the worker is free."""
        self.end_with(lease)
        lease.finished = True
        self._lease = None
        lease.stream.close()
        self._tell(protocol.LeaseEnded(lease.id))

    def end_with(self, lease: Lease) -> None:
        """Let nothing be lost of a lease when the process ends now."""
        self.flush(lease)
        lease.metrics.close()
        with self.output.lock:
            self._close_log()

    def call_ended(self, lease: Lease) -> None:
        """Tell the agent, which waits for it, that a call has ended."""
        for call in list(lease.stopping):
            self._tell(protocol.CallStopped(lease.id, call))
        lease.stopping.clear()

    def orphan(self, lease: Lease) -> None:
        """The client is gone: what runs is a job from now on."""
        if not lease.orphaned:
            lease.orphaned = True
            call = lease.running
            if call and lease.about.listed:
                self._tell(lease.as_running(call, protocol.CallOrphaned))

    def orphan_ended(self, lease: Lease, outcome: Outcome) -> None:
        """Give an outcome that no client took to the agent."""
        if not outcome.about.listed and lease.reported != outcome.call:
            return
        outcome = outcome.as_told()
        if outcome.trees:
            keep_trees(lease, outcome.trees)
        body, blob = pickling.join(outcome.stream, outcome.buffers), ""
        if outcome.ok and len(body) > INLINE_BYTES:
            try:
                body, blob = b"", keep_result(lease, body)
            except OSError as error:
                outcome = without_room(outcome, len(body), error)
                body = b"".join(outcome.stream)
        record, attempt = lease.to_record(outcome), lease.to_attempt(outcome)
        about = "" if lease.attach.job else outcome.about.told()
        self._tell(protocol.OrphanEnded(lease.id, record, outcome.ok, attempt, blob, about), body)

    def flush_soon(self) -> None:
        """Tell the agent within moments what has ended: somebody may ask for it."""
        if not self._flushes:
            self._flushes = True
            os.write(self._wake_write, b"f")

    def flush(self, lease: Lease) -> None:
        """Tell the agent now what has ended."""
        ended = lease.take_ended()
        if ended is not None and not lease.attach.job:
            self._tell(protocol.CallsEnded(*ended))

    @property
    def backlogged(self) -> bool:
        """Whether output or progress has been taken in and not been sent yet."""
        return bool(self._backlog) or self._bars.unseen or self._logged_bars.unseen

    def printed(self, lease: Lease) -> bool:
        """Whether the call that just ended has printed."""
        printed, self._printed_call = self._printed_call, 0
        return bool(printed)

    def set_deadline(self, lease: Lease, call: int, seconds: float) -> None:
        """Interrupt this call when the time has passed."""
        self._deadline = (lease, call, time.monotonic() + seconds)
        os.write(self._wake_write, b"d")

    def clear_deadline(self) -> None:
        """The call with a deadline has ended."""
        self._deadline = None

    def forward_output(self, lease: Lease, call: int, *, wait: bool) -> None:
        """Drain the pipes into the log and to the client; `wait` until it is sent, progress too.

        Args:
            lease: that is served.
            call: that has printed; 0: whichever it is.
            wait: until it is sent.
        """
        with self.output.lock:
            self._drain(lease, call, wait=wait)
            if self._bars.unseen or self._logged_bars.unseen:
                self._tell_bars(lease, wait=wait)
                self._send_backlog(lease, wait=wait)

    def forward_event(self, lease: Lease, event: dict[str, Any]) -> None:
        """Take in what a running call tells beside its output, after all that it has printed before."""
        call = lease.running
        if "metrics" in event:
            lease.metrics.add(call, event["metrics"])
            return
        self.output.flush()
        with self.output.lock:
            self._drain(lease, call, wait=False)
            self._printed_call = call or 1
            if "progress" in event:
                if call != self._bars_call:
                    self._clear_bars()
                    self._bars_call = call
                self._bars.take(event["progress"])
                self._logged_bars.take(event["progress"])
                self._tell_bars(lease, wait=False)
            elif "result" in event:
                self._to_log(lease, "event", json.dumps(event).encode(), call)
            elif "shown" in event:
                self._to_log(lease, "out", event["shown"].encode(errors="replace"), call)
            else:
                data = json.dumps(event["log"]).encode()
                self._to_log(lease, "log", data, call)
                self._to_client(lease, call, frames.EVENT, 0, json.dumps(event).encode())
            self._send_backlog(lease, wait=False)

    def _on_switch(self) -> None:
        """Python is about to print to the other stream: what it has printed to this one comes before."""
        lease = self._lease
        # Not for ever: this thread may hold the lock, when a finalizer prints in the midst of our own work.
        if lease is not None and not lease.finished and self.output.lock.acquire(timeout=SWITCH_SECONDS):
            try:
                self._drain(lease, 0, wait=False)
            finally:
                self.output.lock.release()

    # --- the thread -----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Wait, and do what is due; never ends but with the process."""
        try:
            while True:
                self._turn()
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
            os._exit(70)

    def _turn(self) -> None:
        lease = self._lease
        poller = select.poll()
        poller.register(self._lifeline, select.POLLIN)
        poller.register(self._wake_read, select.POLLIN)
        control = self._control
        if control is not None:
            poller.register(control, select.POLLIN)
        for fd in self.output.fds:
            poller.register(fd, select.POLLIN)
        stream = lease.stream if lease is not None and not (lease.orphaned or lease.hung_up_at) else None
        if stream is not None:
            try:
                poller.register(stream, getattr(select, "POLLRDHUP", 0))
            except ValueError:
                stream = None  # closed by the main thread just now
        ready = dict(poller.poll(self._timeout_ms(lease)))
        if self._lifeline.fileno() in ready:
            self._hear_lifeline()
        if self._wake_read in ready:
            os.read(self._wake_read, 4096)
        if control is not None and control.fileno() in ready:
            self._hear_agent(control)
        if any(fd in ready for fd in self.output.fds):
            self._on_output(lease)
        if lease is not None and not lease.finished:
            if stream is not None and ready.get(stream.fileno(), 0) & _HANGUP:
                self._on_hangup(lease)
            self._tick(lease)

    def _timeout_ms(self, lease: Lease | None) -> int | None:
        if self._deadline is not None:
            return max(
                1, min(int(TICK_SECONDS * 1000), int((self._deadline[2] - time.monotonic()) * 1000) + 1)
            )
        return int(TICK_SECONDS * 1000) if lease is not None else None

    def _tick(self, lease: Lease) -> None:
        now = time.time()
        if lease.running and lease.reported != lease.running and now - lease.started_at > TICK_SECONDS:
            self._report_running(lease)
        if self._deadline is not None and time.monotonic() >= self._deadline[2]:
            owner, call, _ = self._deadline
            self._deadline = None
            self._interrupt(owner, call, "timed_out")
        if lease.is_given_up(time.monotonic()):
            self._client_is_gone(lease)
        progress.catch_up()
        self._sampler.tick(lease, context.rank())
        if lease.metrics.waiting:
            lease.metrics.tick(now)
        if self.backlogged:
            self.forward_output(lease, 0, wait=False)
        if self._flushes:
            self._flushes = False
            time.sleep(COALESCE_SECONDS)  # a function that fails may do so again and again
        self.flush(lease)

    def _report_running(self, lease: Lease) -> None:
        with lease.lock:  # what is told to be running is recorded, or summed up, after that
            call, listed = lease.running, lease.about.listed
            if call and (listed or lease.orphaned):  # what is nobody's and goes on is to be seen, too
                lease.reported = call
                self._tell(lease.as_running(call, protocol.CallRunning if listed else protocol.CallOrphaned))

    def _on_output(self, lease: Lease | None) -> None:
        if lease is None:
            with self.output.lock:
                self.output.take()  # nobody's: a thread that outlived its call
            return
        # Before it is drained: what is in the pipe when this process dies is not lost, its fork server reads it there.
        if not self.output.filling():
            time.sleep(COALESCE_SECONDS)
        self.forward_output(lease, 0, wait=False)

    def _on_hangup(self, lease: Lease) -> None:
        if lease.attach.linger_seconds:
            lease.hung_up_at = time.monotonic()  # it may come back; what it has sent is read in its time
        elif lease.running:
            self.orphan(lease)
        else:
            time.sleep(COALESCE_SECONDS)  # the main thread reads the end of the stream itself

    def _drain(self, lease: Lease, call: int, *, wait: bool) -> None:
        """Take in what the pipes hold. Under the lock."""
        while True:
            taken = self.output.take()
            call = call or lease.printing  # asked now: under the lock none ends that has printed
            for index, data in taken:
                self._printed_call = call or 1
                self._to_log(lease, "err" if index else "out", data, call)
                self._to_client(lease, call, frames.OUTPUT, frames.STDERR if index else 0, data)
            self._send_backlog(lease, wait=wait)
            if not taken or not any(len(data) == READ_SIZE for _, data in taken):
                return

    def _tell_bars(self, lease: Lease, *, wait: bool) -> None:
        now, call = time.monotonic(), self._bars_call
        if logged := self._logged_bars.rest() if wait else self._logged_bars.due(now):
            self._to_log(lease, "event", json.dumps({"progress": logged}).encode(), call)
        if shown := self._bars.rest() if wait else self._bars.due(now):
            self._to_client(lease, call, frames.EVENT, 0, json.dumps({"progress": shown}).encode())

    def _log_gpus(self, seen: protocol.GpusSeen) -> None:
        lease = self._lease
        if lease is not None and lease.running and not lease.finished:
            event = {"gpus": [asdict(gpu) for gpu in seen.gpus]}
            with self.output.lock:
                self._to_log(lease, "event", json.dumps(event).encode(), lease.running)
            log_gpus(lease, seen.gpus, context.rank())

    def _clear_bars(self) -> None:
        self._bars.clear()
        self._logged_bars.clear()

    def _to_log(self, lease: Lease, stream: Stream, data: bytes, call: int) -> None:
        with contextlib.suppress(OSError):  # a full disk must not end the call
            if self._log is None:
                make_private_folder(lease.folder)
                path = os.path.join(lease.folder, LOG_NAME)
                self._log = LogWriter(path, limit_bytes=lease.attach.log_limit_bytes)
            self._log.write(stream, data, call=call)

    def _to_client(self, lease: Lease, call: int, kind: int, flags: int, data: bytes) -> None:
        if lease.attach.job or lease.orphaned:
            return
        self._backlog.append((call, kind, flags, data))
        self._backlog_size += len(data)
        while self._backlog_size > BACKLOG_LIMIT:
            *_, lost = self._backlog.pop(0)
            self._backlog_size -= len(lost)
            self._left_out += len(lost)

    def _send_backlog(self, lease: Lease, *, wait: bool) -> None:
        if self._left_out and (wait or not self._backlog):  # one note for all, when the client has caught up
            note = f"[{self._left_out:,} bytes of output left out here; the job's log has them]\n".encode()
            call = self._backlog[0][0] if self._backlog else 0
            self._backlog.insert(0, (call, frames.OUTPUT, frames.STDERR, note))
            self._backlog_size += len(note)
            self._left_out = 0
        while self._backlog and not lease.orphaned:
            call, kind, flags, data = self._backlog[0]
            frame = frames.pack(kind, [data], flags=flags, call=call)
            try:
                if wait:
                    lease.stream.send(frame)
                elif not lease.stream.try_send(frame):
                    return
            except OSError:
                self.orphan(lease)
            self._backlog.pop(0)
            self._backlog_size -= len(data)
        if lease.orphaned:
            self._backlog.clear()
            self._backlog_size = 0

    def _close_log(self) -> None:
        self._clear_bars()
        self._backlog.clear()
        self._backlog_size = self._left_out = 0
        if self._log is not None:
            self._log.close()
            self._log = None

    # --- the agent ------------------------------------------------------------------------------------------

    def _hear_lifeline(self) -> None:
        data, fds, _, _ = socket.recv_fds(self._lifeline, 1, 1)
        if not data:
            from .children import kill_children

            kill_children()
            os._exit(0)  # the fork server is gone: nobody would reap this process
        if self._control is not None:
            self._control.close()
        self._control = ControlStream(socket.socket(fileno=fds[0]))
        lease = self._lease
        if lease is not None:
            lease.reported = 0  # it is news to this agent
        self._tell(protocol.WorkerReady(self.worker, os.getpid(), lease.id if lease else ""))
        undelivered, self._undelivered = self._undelivered, []
        for message, body in undelivered:
            self._tell(message, body)

    def _tell(self, message: object, body: bytes = b"") -> None:
        with self._control_lock:
            try:
                if self._control is None:
                    raise ConnectionError
                self._control.send(message, body)
            except OSError:
                # The agent died; the next one adopts this worker and is told then.
                self._undelivered.append((message, body))

    def _hear_agent(self, control: ControlStream) -> None:
        try:
            received = control.receive()
        except OSError:
            received = None
        if received is None:
            with self._control_lock:
                control.close()
                self._control = None
            return
        for one in received:
            self._obey(control, one.message)

    def _obey(self, control: ControlStream, message: Any) -> None:
        if isinstance(message, protocol.Attach):
            lease = Lease(message, self._stream_of(message, control))
            self._lease = lease
            self.leases.put(lease)
        elif isinstance(message, protocol.StreamArrived):
            sock = socket.socket(fileno=control.take_fds(1)[0])
            if self._lease is not None and self._lease.id == message.lease:
                self._lease.resume(sock, message)
            else:
                sock.close()
        elif isinstance(message, protocol.StreamLost):
            served = self._lease if self._lease is not None and self._lease.id == message.lease else None
            if served is not None and (served.is_idle_and_cut or not message.idle):
                self._client_is_gone(served)
        elif isinstance(message, protocol.Interrupt):
            if self._lease is not None and self._lease.id == message.lease:
                self._interrupt(self._lease, message.call, message.reason)
        elif isinstance(message, protocol.WithdrawCalls):
            if self._lease is not None and self._lease.id == message.lease:
                self._withdraw(self._lease, message.upto)
        elif isinstance(message, protocol.GpusSeen):
            self._log_gpus(message)
        elif isinstance(message, protocol.DumpStack):
            self._tell(protocol.Stack(message.id, self._stack()))
        elif isinstance(message, protocol.StopWorker) and self._lease is None:
            self.leases.put(None)

    def _stream_of(self, attach: protocol.Attach, control: ControlStream) -> CallStream:
        if attach.linger_seconds:
            from ..wire.resumable import ResumableStream

            return ResumableStream()
        fds = [socket.socket(fileno=fd) for fd in control.take_fds(attach.streams)]
        return CallStream(fds[0], fds[1] if len(fds) > 1 else None)

    def _client_is_gone(self, lease: Lease) -> None:
        """A client on another machine has not come back."""
        lease.give_up()
        self.orphan(lease)

    def _interrupt(self, lease: Lease, call: int, reason: str) -> None:
        lease.interrupted[call] = reason
        lease.stopping.add(call)
        if lease.running == call:
            lease.interrupting = call  # not for another call: one that runs may be waiting for its signal
            signal.pthread_kill(self._main, signal.SIGINT)
        elif call in lease.stopping and not lease.ends_yet(call):  # not begun, so it will not be; or over
            lease.stopping.discard(call)
            self._tell(protocol.CallStopped(lease.id, call))

    def _withdraw(self, lease: Lease, upto: int) -> None:
        begun, cut = lease.withdraw(upto)
        try:
            lease.stream.send(frames.pack(frames.WITHDRAWN, function=upto, call=begun, ack=cut))
            batch = lease.batch
            if batch is not None:
                batch.send_ready()
        except OSError:
            self.orphan(lease)

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._main)
        return "".join(traceback.format_stack(frame)) if frame is not None else ""
