"""The main thread of a worker: reads frames, runs calls one at a time, answers.

The way of a small call is `serve` → `_on_call` → `_run` → `_send`; it is kept short enough to read.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from ..model.errors import DeserializationError, MaxRuntimeExceeded, SerializationError
from ..model.failure import Failure
from ..model.group import Group
from ..model.job import Cause, Phase
from ..serial import directories, failures, failures_json, pickling
from ..wire import frames
from ..wire.frames import HEADER, Frame
from . import context, streams
from .about import KEPT_FAILURE_CHARS, About, kept, summary_of
from .batches import AWAITED, Batch
from .begun import Begun
from .keeping import keep_trees
from .lease import Function, Lease, Outcome

if TYPE_CHECKING:
    from .attendant import Attendant

QUICK_SECONDS = 0.0001  # after a call that took less, the next is waited for awake
SMALL = 1 << 16  # bytes that are sent in one piece


class Calls:
    """Runs the calls of one lease after another. Owned by the main thread."""

    def __init__(self, attendant: Attendant, begun: Begun, *, holds_devices: bool = False) -> None:
        self._attendant = attendant
        self._holds_devices = holds_devices
        self._output = attendant.output
        # shared with the fork server, which reads it after this process has died: what had been begun
        self._begun = begun
        self._in_group = self._group_sound = False  # whether this lease is a group's, and all went well
        self._quick = False  # whether the last call was one of those that come in quick succession
        self._handlers: dict[int, Callable[[Lease, Frame], None]] = {
            frames.CALL: self._on_call,
            frames.GENERATE: self._on_call,
            frames.BATCH: self._on_batch,
            frames.DEFINE: self._on_define,
            frames.CONTEXT: self._on_context,
            frames.ACK: lambda lease, frame: None,
            frames.CREDIT: lambda lease, frame: None,
            frames.ANSWER: lambda lease, frame: None,
            frames.CLOSE_GENERATOR: lambda lease, frame: None,
        }

    def enter_bundle(self, lease: Lease) -> None:
        """Make the lease's local code importable. A worker sees one bundle in its life; the agent sees to that."""
        roots = [
            os.path.normpath(os.path.join(lease.attach.bundle_path, root))
            for root in lease.attach.import_roots
        ]
        new = [root for root in roots if root not in sys.path]
        if lease.attach.bundle_path and new:
            sys.path[:0] = new
            importlib.invalidate_caches()

    def serve(self, lease: Lease) -> None:
        """Run the calls of a lease until its client says goodbye or is gone."""
        context.enter(lease, self._attendant.forward_event)
        directories.install(lambda: _side_of(lease))
        self._begun.lease(lease.id)
        lease.note_about = self._begun.function
        goodbye = False
        receive, handlers = lease.stream.receive, self._handlers
        try:
            while (frame := receive(soon=self._quick)) is not None:
                if frame.ack:
                    lease.acknowledge(frame.ack)
                if frame.kind == frames.BYE:
                    goodbye = True
                    break
                handlers[frame.kind](lease, frame)
        except OSError:
            pass  # the client is gone
        finally:
            context.leave()
            directories.leave()
            if not goodbye:
                for outcome in lease.unacknowledged:
                    self._attendant.orphan_ended(lease, outcome)
            if self._in_group:
                self._leave_group(lease)

    def _leave_group(self, lease: Lease) -> None:
        """Let nothing of a group be left for the next lease: end the process, where that is what it takes."""
        from .groups import leave_process_group

        if not leave_process_group(sound=self._group_sound):
            self._attendant.end_with(lease)
            os._exit(0)
        self._in_group = self._group_sound = False

    def _on_call(self, lease: Lease, frame: Frame) -> None:
        if not lease.begin(frame.call):
            lease.stream.parts(frame)  # its arena can be used again
            return
        function = lease.functions.get(frame.function)
        if function is None or function.call is None:
            self._refuse(lease, frame.call, function)
            return
        started_at = time.time()
        lease.started_at, lease.about = started_at, function.about
        self._begun.function(function.about)
        self._begun.call(frame.call, 0, started_at)
        arguments: Any = None
        value: Any = None
        try:
            if function.launch is not None:  # they are for the processes that it starts
                arguments = ((pickling.join(*lease.stream.parts(frame)),), {})
            elif frame.flags or frame.buffers:
                arguments = pickling.load(*lease.stream.parts(frame))
            else:
                arguments = pickling.load(frame.payload)
            if function.pre_execution or function.max_runtime_seconds or function.group is not None:
                value = self._run_guarded(lease, frame, function, *arguments)
            else:
                value = self._run(lease, frame, function.call, *arguments)
            arguments = None  # its arena can be used again
            pickled = pickling.dump(value, name="result")
            trees = directories.noted.take() if directories.noted.digests else ()
            if trees and lease.attach.job:
                keep_trees(lease, trees)
        except BaseException as error:
            arguments = value = None
            self._fail(lease, frame.call, function, started_at, error)
            return
        value = None
        printed = self._flush_output(lease, frame.call)
        sent = not lease.orphaned and self._send(
            lease, frame.call, pickled.stream, pickled.buffers, frames.TREES if trees else 0
        )
        # the answer is on its way: now the books
        ended_at = time.time()
        self._quick = ended_at - started_at < QUICK_SECONDS
        outcome = Outcome(
            frame.call,
            lease.about,
            started_at,
            ended_at,
            True,
            pickled.stream,
            pickled.buffers,
            trees=trees,
        )
        self._settle(lease, outcome, sent=sent, printed=printed)

    def _run(
        self,
        lease: Lease,
        frame: Frame,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        # From here to the end an interrupt meant for this call raises KeyboardInterrupt in the function.
        lease.running = frame.call
        try:
            if frame.call in lease.interrupted:
                raise KeyboardInterrupt
            value = function(*args, **kwargs)
            if type(value) in AWAITED:
                value = streams.exhaust(self, lease, frame, value)
            return value
        finally:
            lease.running = 0

    def _run_guarded(
        self, lease: Lease, frame: Frame, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        from . import guards

        if function.pre_execution:
            lease.running = frame.call  # an interrupt stops them, too
            try:
                guards.run_commands(function.pre_execution)
            finally:
                lease.running = 0
        assert function.call is not None  # noqa: S101
        seconds = function.max_runtime_seconds
        self._begun.end_by(time.monotonic() + seconds if seconds else 0.0)
        try:
            with guards.max_runtime(self._attendant, lease, frame.call, seconds):
                if function.group is None:
                    return self._run(lease, frame, function.call, args, kwargs)
                from . import groups

                self._in_group = True
                with groups.member(function.group):
                    value = self._run(lease, frame, function.call, args, kwargs)
                self._group_sound = True
                return value if function.returns else None
        finally:
            self._begun.end_by(0.0)

    def _cause_of(
        self, lease: Lease, call: int, function: Function, error: BaseException
    ) -> tuple[BaseException, Cause]:
        """Return what to raise at home for what was raised here, and of what kind it is."""
        from . import guards

        reason = lease.interrupted.pop(call, "")
        if reason:
            from .children import end_children

            end_children(lease.started_at)
        if isinstance(error, KeyboardInterrupt) and reason == "cancelled":
            if self._holds_devices:  # what libraries hold of a GPU is free by nothing less
                self._end_with(lease, call, guards.CANCELLED_EXIT)
            return error, Cause.CANCELLED
        if isinstance(error, KeyboardInterrupt) and reason == "timed_out":
            if self._holds_devices:
                guards.print_stack(error)  # which the error cannot bring home now
                self._end_with(lease, call, guards.TIMED_OUT_EXIT)
            timeout = MaxRuntimeExceeded(
                f"{function.name} ran longer than max_runtime_in_seconds "
                f"({function.max_runtime_seconds:g} s) and was stopped",
                hint="raise max_runtime_in_seconds, or let the function save checkpoints",
            )
            timeout.__traceback__ = error.__traceback__
            return timeout, Cause.TIMED_OUT
        if isinstance(error, (SerializationError, DeserializationError)):
            return error, Cause.SERIALIZATION
        return error, Cause.USER_ERROR

    def _end_with(self, lease: Lease, call: int, code: int) -> NoReturn:
        """End the process with this code, as `guards.die_as` does, so that nothing of the call is lost."""
        from . import guards

        if lease.batch is not None:
            with contextlib.suppress(OSError):
                lease.batch.send_ready()
        self._flush_output(lease, call)
        self._attendant.end_with(lease)
        guards.die_as(code)

    def _die_as_rank(self, lease: Lease, call: int, error: BaseException) -> None:
        """Where a rank has died that this process had started, die as it did: to the agent, a job is one process."""
        from .launch import RankDeathError

        if isinstance(error, RankDeathError):
            sys.stderr.write(f"{error}\n")
            self._end_with(lease, call, error.code)

    def _fail(
        self, lease: Lease, call: int, function: Function, started_at: float, error: BaseException
    ) -> None:
        error, cause = self._cause_of(lease, call, function, error)
        if function.launch is not None:
            self._die_as_rank(lease, call, error)
        failure = failure_of(error)
        text = failures_json.to_json(failure)
        outcome = Outcome(
            call,
            lease.about,
            started_at,
            time.time(),
            False,
            [text.encode()],
            cause=cause,
            summary=summary_of(failure),
            failure=kept(text, failure),
        )
        self._answer_failure(lease, outcome)

    def _refuse(self, lease: Lease, call: int, function: Function | None) -> None:
        about = function.about if function else About()
        text = function.failure if function else ""
        if not text:
            error = DeserializationError("the call names a function that was not defined on this stream")
            text = failures_json.to_json(failures.capture(error, dumps=pickling.dump_bytes))
        now = time.time()
        self._answer_failure(
            lease,
            Outcome(
                call,
                about,
                now,
                now,
                False,
                [text.encode()],
                cause=Cause.SERIALIZATION,
                summary="could not be loaded",
                failure=text if len(text) <= KEPT_FAILURE_CHARS else "",
            ),
        )

    def _answer_failure(self, lease: Lease, outcome: Outcome) -> None:
        printed = self._flush_output(lease, outcome.call)
        flags = frames.FAILED | (frames.CANCELLED if outcome.cause is Cause.CANCELLED else 0)
        sent = not lease.orphaned and self._send(lease, outcome.call, outcome.stream, (), flags)
        self._settle(lease, outcome, sent=sent, printed=printed)

    def _settle(self, lease: Lease, outcome: Outcome, *, sent: bool, printed: bool) -> None:
        """Keep an outcome until the client has acknowledged it, or give it to the agent if the client is gone."""
        if sent:
            lease.unacknowledged.append(outcome)
        else:
            self._attendant.orphan_ended(lease, outcome)
        self._ended(lease, outcome.call)
        if lease.record(outcome, printed=printed):
            if outcome.about.own:  # they are not made by the thousand, and the next may ask for this one
                self._attendant.flush(lease)
            else:
                self._attendant.flush_soon()
        lease.enter_folder()

    def _send(self, lease: Lease, call: int, parts: list[Any], buffers: Any, flags: int) -> bool:
        """Send an outcome to the client; False when it is gone."""
        stream = lease.stream
        try:
            if not buffers and len(parts) == 1 and len(data := parts[0]) < SMALL:
                stream.send_now(HEADER.pack(len(data), frames.RESULT, flags, 0, 0, call, 0) + data)
            else:
                stream.send(stream.frame(frames.RESULT, parts, _raw(buffers), flags=flags, call=call))
        except OSError:
            self._attendant.orphan(lease)
            return False
        return True

    def _on_batch(self, lease: Lease, frame: Frame) -> None:
        """Run a list of calls of one function; send what is ready every few milliseconds."""
        if not lease.begin(frame.call):
            lease.stream.parts(frame)
            return
        function, number = lease.functions.get(frame.function), frame.call
        if function is None or function.call is None:
            self._refuse(lease, number, function)
            return
        since, started_at = time.monotonic(), time.time()
        lease.started_at, lease.about = started_at, function.about
        self._begun.function(function.about)
        self._begun.call(number, 0, started_at)
        try:
            items = pickling.load(*lease.stream.parts(frame))
        except BaseException as error:
            self._fail(lease, number, function, started_at, error)
            return
        alone = len(items) == 1
        batch = lease.batch = Batch(self, lease, frame, function, items, self._begun)
        sent, failure = batch.run(since), batch.failure
        lease.batch = None
        if not sent:
            batch.leave(alone=alone)
        elif failure is None:
            lease.record_many(function.about, number, batch.ran, started_at)
        else:
            failure = failure._replace(items=batch.ran, failed=batch.failed, ended_at=time.time())
            if lease.record(failure, printed=True):
                self._attendant.flush_soon()
        self._ended(lease, number)

    def _ended(self, lease: Lease, call: int) -> None:
        """A call is over: whoever interrupts it from now on is told so at once."""
        self._begun.ended(call)
        lease.ended = call
        if lease.stopping:
            self._attendant.call_ended(lease)

    def _item_failure(
        self, lease: Lease, call: int, function: Function, started_at: float, error: BaseException
    ) -> Outcome:
        """Return how an item failed: its text is what the client is told, and it may stand for its batch."""
        told, cause = self._cause_of(lease, call, function, error)
        failure = failure_of(told)
        text = failures_json.to_json(failure)
        return Outcome(
            call,
            function.about,
            started_at,
            time.time(),
            False,
            [text],
            cause=cause,
            summary=summary_of(failure),
            failure=kept(text, failure),
        )

    def _on_define(self, lease: Lease, frame: Frame) -> None:
        function = lease.functions.setdefault(frame.function, Function())
        # Calls are numbered in the order they are sent: the one that comes with this definition is the next. If
        # loading the function ends the process, that call has had its turn, and must not end others.
        call, item, at = self._begun.last()
        self._begun.function(function.about)
        self._begun.call(call + 1, 0, time.time())
        lease.loading = call + 1
        try:
            stream, buffers = lease.stream.parts(frame)
            if function.launch is None:
                loaded: Callable[..., Any] = pickling.load(stream, buffers)
                function.call, function.about = loaded, function.about.of_loaded(loaded)
            else:
                from .launch import Launch

                function.call = Launch(function, pickling.join(stream, buffers))
            function.failure = ""
        except BaseException as error:
            function.call = None
            function.failure = failures_json.to_json(failures.capture(error, dumps=pickling.dump_bytes))
        self._begun.call(call, item, at)
        lease.loading = 0
        if lease.stopping:
            self._attendant.call_ended(lease)

    def _on_context(self, lease: Lease, frame: Frame) -> None:
        told = json.loads(bytes(frame.payload))
        if "working_folder" in told:
            lease.working_folder = told["working_folder"] if os.path.isdir(told["working_folder"]) else ""
            lease.enter_folder()
        if "log_levels" in told:
            context.set_log_levels(told["log_levels"])
            self._output.set_terminals(*told.get("terminals", (False, False)))
        for number, phases in told.get("phases", {}).items():
            found = tuple(Phase(name=name, seconds=seconds) for name, seconds in phases)
            lease.phases[int(number)] = found + lease.phases.get(int(number), ())
        for number, row in told.get("functions", {}).items():
            lease.know(
                int(number),
                Function(
                    about=About.of(row),
                    max_runtime_seconds=row.get("max_runtime_seconds", 0.0),
                    pre_execution=tuple(row.get("pre_execution", ())),
                    group=Group(**row["group"]) if "group" in row else None,
                    returns=row.get("returns", True),
                    launch=row.get("launch"),
                ),
            )

    def _flush_output(self, lease: Lease, call: int) -> bool:
        output = self._output
        if lease.metrics.waiting:
            lease.metrics.finish()
        output.flush()
        with output.lock:
            # What the attendant has drained may not have been sent yet.
            waits = self._attendant.backlogged or output.pending()
        if not waits:
            return self._attendant.printed(lease)
        self._attendant.forward_output(lease, call, wait=True)
        return True


def failure_of(error: BaseException) -> Failure:
    """Return an exception as data; that of a process of its own is data already."""
    told = getattr(error, "told_by_rank", None)
    directories.noted.take()  # of a value that could not be pickled whole
    with directories.by_name():
        return told if isinstance(told, Failure) else failures.capture(error, dumps=pickling.dump_bytes)


def _side_of(lease: Lease) -> directories.Side:
    """Return what sees to the folders that travel, on behalf of a lease."""
    from .trees import WorkerSide

    return WorkerSide(lease.attach.jobs_folder, durable=bool(lease.attach.job))


def _raw(buffers: Any) -> list[Any]:
    return [buffer.raw() for buffer in buffers]
