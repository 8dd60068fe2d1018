"""Durable jobs as the client sees them: submitting one, its future, finding it again from any later process."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any, cast

from ..backends.host import Host
from ..future import RemoteFuture
from ..model.cost import Cost, bill_of
from ..model.errors import HostUnavailable, JobNotFound
from ..model.ids import new_id
from ..options import Options
from ..serial import directories, pickling
from ..serial.pickling import Pickled
from ..wire import frames
from ..wire.messages import to_plain
from ..wire.stream import inline
from .answers import rebuild
from .channel import LEAST_SECONDS
from .connections import connections
from .metrics import Metrics, by_name, points_of
from .notebook import tags_of
from .target import Place

FUNCTION = 1
MOST_SOURCE = 64 << 10

_VERBS = {"succeeded": "has", "failed": "has", "cancelled": "was"}


class JobFuture(RemoteFuture[Any]):
    """The future of a durable job. Users get it from `submit`, `get_future` and `list_futures`."""

    def __init__(self, name: str, host: Host, state: str = "") -> None:
        super().__init__()
        self._name = name
        self._host = host
        self._state_then = state
        self._asked = False
        self._ask_lock = threading.Lock()

    @property
    def job(self) -> str:
        """The job's name."""
        return self._name

    @property
    def status(self) -> str:
        """One of queued, running, succeeded, failed, cancelled, as the agent has it now."""
        if self.done():
            return super().status
        state: str = self._ask("job")["job"]["state"]
        return state

    def told(self) -> dict[str, Any]:
        """Return all that the agent tells of it: the record, its attempts, what it waits for, its progress."""
        told: dict[str, Any] = self._ask("job")
        return told

    def why(self) -> str:
        """Say in words what the job waits for."""
        told = self.told()
        state: str = told["job"]["state"]
        why: str = told["why"] or f"it {_VERBS.get(state, 'is')} {state}"
        return why

    @property
    def cost(self) -> Cost | None:
        """What the job has cost until now, all attempts together; None where its instance type had no price."""
        bill = bill_of(self._ask("job")["job"])
        return bill.cost(time.time()) if bill is not None else None

    def logs(self) -> str:
        """Return what the job has printed so far."""
        texts: list[str] = []
        offset, before = 0, -1
        while offset != before:
            piece = self._ask("logs", offset=offset)
            texts += [text for _, _, text, _ in piece["records"]]
            before, offset = offset, piece["offset"]
        return "".join(texts)

    def metrics(self) -> Metrics:
        """Return what the job has logged by `log_metrics` so far, in all its attempts, and what it was seen to use."""
        return by_name(points_of(lambda offset: self._ask("metrics", offset=offset)))

    def done(self) -> bool:
        """Whether the job has ended."""
        self._watch()
        return super().done()

    def cancel(self, wait: bool = False) -> bool:
        """Ask for the job to be stopped, wherever it stands."""
        self._watch()
        asked = bool(self._ask("cancel")["cancelled"])
        if asked and wait:
            self._wait(None)
        return asked

    def add_done_callback(self, fn: Any) -> None:
        """Call `fn(future)` when the job has ended."""
        self._watch()
        super().add_done_callback(fn)

    def _wait(self, timeout: float | None) -> None:
        self._watch()
        if not super().done():
            with self._condition:
                if self._state not in ("FINISHED", "CANCELLED_AND_NOTIFIED", "CANCELLED"):
                    self._condition.wait(timeout)
        if not super().done() and timeout is not None:
            raise TimeoutError

    def _ask(self, what: str, **more: Any) -> Any:
        question = {"name": self._name, **more}
        return connections.with_agent(self._host, lambda session: session.ask(what, question))

    def _watch(self) -> None:
        """Have the agent tell the outcome, once."""
        with self._ask_lock:
            if self._asked:
                return
            self._asked = True
        question = {"name": self._name, "wait": True}
        reply = connections.with_agent(self._host, lambda session: session.start("result", question))
        reply.add_done_callback(lambda done: self._settle(done))

    def _settle(self, reply: Any) -> None:
        error = reply.exception()
        if isinstance(error, HostUnavailable):
            self._asked = False  # the agent died; the next question goes to the next agent
            try:
                self._watch()
            except HostUnavailable as unavailable:
                self.set_exception(unavailable)
            return
        if error is not None:
            self.set_exception(error)
            return
        value, body = reply.result()
        if value["state"] == "cancelled":
            self._become_cancelled()
            return
        directories.noted.take()
        try:
            found = load_outcome(self._name, value, body)
        except BaseException as failure:  # the function's own
            trace = failure.__traceback__
            while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
                trace = trace.tb_next  # the remote frames alone
            self.set_exception(failure.with_traceback(trace))
            return
        trees = directories.noted.take()
        if trees:  # not in this thread: it is the one that answers come by
            threading.Thread(target=self._fetch, args=(found, trees), daemon=True).start()
        else:
            self.set_result(found)

    def _fetch(self, found: Any, trees: tuple[str, ...]) -> None:
        from .trees import fetch

        try:
            fetch(trees, lambda: connections.session(self._host), self._name)
        except BaseException as failure:
            self.set_exception(failure)
        else:
            self.set_result(found)

    def _become_cancelled(self) -> None:
        RemoteFuture.__mro__[1].cancel(self)  # type: ignore[attr-defined]
        self.set_running_or_notify_cancel()


def load_outcome(name: str, told: dict[str, Any], body: bytes) -> Any:
    """Return what a job or call has returned, or raise what it has raised.

    Args:
        name: of the job.
        told: what the agent says of it.
        body: what it keeps of it.

    Raises:
        JobNotFound: nothing was kept.
        BaseException: what the function raised.
    """
    if told["ok"]:
        return pickling.load(bytearray(body))
    if body:
        raise rebuild(body.decode())
    raise JobNotFound(
        f"{name} has {told['state']}; it was a call that its caller waited for, and only jobs and calls that fail "
        "keep how they ended"
    )


def job_name(options: Options, function: str) -> str:
    """Return the name of a job of this function that is submitted now."""
    return options.name or f"{options.job_name_prefix or function}-{new_id()}"


def source_of(function: object) -> str:
    """Return the source of what a job runs, to be shown with it; empty where it is not to be had, or very long."""
    import inspect

    with contextlib.suppress(OSError, TypeError, SyntaxError):
        source = inspect.getsource(inspect.unwrap(cast("Callable[..., Any]", function)))
        return source if len(source) <= MOST_SOURCE else ""
    return ""


def submit_job(
    place: Place,
    sent: Any,
    arguments: Pickled,
    *,
    name: str,
    code: str = "",
    tags: tuple[tuple[str, str], ...] = (),
) -> JobFuture:
    """Make a call a durable job; return when it is written down.

    Args:
        place: where it runs.
        sent: the function, captured.
        arguments: its arguments, pickled.
        name: the job's.
        code: the source of what it runs, to be shown with it.
        tags: beside those of its options.

    Raises:
        ConfigurationError: a job of that name exists.
    """
    session = connections.session(place.host)
    request, options = place.request, place.options
    pool = to_plain(request["pool"])
    variables = pool.pop("variables")
    told = {
        "functions": {FUNCTION: sent.told},
        "working_folder": os.getcwd(),
        "log_levels": sent.log_levels,
    }
    pieces = frames.pack(frames.CONTEXT, [json.dumps(told).encode()])
    pieces += inline(
        frames.DEFINE, sent.pickled.stream, [b.raw() for b in sent.pickled.buffers], function=FUNCTION
    )
    pieces += inline(
        frames.CALL, arguments.stream, [b.raw() for b in arguments.buffers], function=FUNCTION, call=1
    )
    session.ask(
        "submit",
        {
            "name": name,
            "function": sent.name,
            "instance_type": place.instance.name,
            "price": to_plain(request["instance"].price),
            "tags": [*tags_of(options), *map(list, tags)],
            "pool": pool,
            "variables": variables,
            "bundle": request["bundle"],
            "import_roots": list(request["import_roots"]),
            "preload": list(request["preload"]),
            "keep_alive_seconds": request["keep_alive_seconds"],
            "asked_by": request["asked_by"],
            "max_workers": request["max_workers"],
            "uv": request["uv"],
            "log_limit_bytes": request["log_limit_bytes"],
            "max_retry_attempts": options.max_retry_attempts,
            "payload_blobs": [],
            "variable_names": sorted(options.environment_variables),
            "code": code,
            "trees": [*arguments.trees, *sent.pickled.trees],
            "phases": [
                [phase.name, phase.seconds] for phase in place.phases if phase.seconds > LEAST_SECONDS
            ],
        },
        body=b"".join(pieces),
    )
    if not place.host.here:
        from .inventory import note_job

        note_job(place.host, name)
    return JobFuture(name, place.host)


def run_job(future: JobFuture) -> Any:
    """Show a job's output as it comes, and return its value. Ctrl-C cancels it."""
    session = connections.session(future._host)
    try:
        with connections.reporter.waiting(future):
            for piece in session.follow("logs", {"name": future.job, "follow": True}):
                for _, stream, text, event in piece["records"]:
                    if event is not None:
                        connections.reporter.event(None, event if stream == "event" else {"log": event})
                    else:
                        connections.reporter.output(None, 0 if stream == "out" else 1, text.encode())
            return future.result()
    except KeyboardInterrupt:
        future.cancel(wait=True)
        raise


__all__ = ["CancelledError", "JobFuture", "load_outcome", "run_job", "submit_job"]
