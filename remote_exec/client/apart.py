"""An executor's calls that do not run on workers of its own: groups, so many of them at once, and durable jobs.

Groups that are too many wait here, not at the hosts: each worker that is asked for costs a connection.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections import deque
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from ..future import RemoteFuture
from ..options import Options
from ..options.group_plan import group_plan, is_durable
from ..serial.pickling import Pickled
from .calls import Captured
from .group import Group
from .groups import check_group, place_group, room_for
from .interrupts import ends_program
from .jobs import job_name, source_of, submit_job

if TYPE_CHECKING:
    from .target import Target


class Apart:
    """See the module's docstring.

    Args:
        options: the executor's, with its configuration.
        max_workers: how many workers it may use at once, where it does not say how many calls.
        here: whether they are on this machine.
    """

    def __init__(self, options: Options, max_workers: int, *, here: bool) -> None:
        plan = group_plan(options)
        if plan is not None:
            check_group(options, plan, here=here, generator=False, durable=is_durable(options))
        self._room = room_for(options, max_workers)
        self._durable = is_durable(options)
        self._plan = plan
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Group, Target]] = deque()
        self._running: set[Future[Any]] = set()
        self._pid = os.getpid()
        _all.add(self)

    def submit(
        self, target: Target, sent: Captured, arguments: Pickled, *, function: object
    ) -> RemoteFuture[Any]:
        """Start a call, or have it wait for others to end; `function` is what is called."""
        options = target.place.options
        if self._durable or self._plan is None:
            place = target.place_for(arguments, sent.name)
            name = job_name(options, sent.name)
            job = submit_job(place, sent, arguments, name=name, code=source_of(function))
            if not (options.name or options.detach):  # the others are waited for as any call is
                with self._lock:
                    self._running.add(job)
                job.add_done_callback(self._ended)
            return job
        group = Group(self._plan, sent, arguments)
        with self._lock:
            starts = len(self._running) < self._room
            if starts:
                self._running.add(group.future)
            else:
                self._waiting.append((group, target))
        if starts:
            self._start(group, target)
        return group.future

    def _start(self, group: Group, target: Target) -> None:
        try:
            place_group(group, target)
        except BaseException as error:
            group.fail(error)
            if not isinstance(error, Exception):  # a Ctrl-C
                raise
        finally:
            group.future.add_done_callback(self._ended)

    def _ended(self, future: Future[Any]) -> None:
        with self._lock:
            self._running.discard(future)
            while self._waiting and self._waiting[0][0].future.done():  # it was cancelled
                self._waiting.popleft()
            if not self._waiting or len(self._running) >= self._room:
                return
            group, target = self._waiting.popleft()
            self._running.add(group.future)
        # not in this thread: it reads answers, and hosts may have to be asked
        threading.Thread(target=self._start, args=(group, target), daemon=True).start()

    def cancel_waiting(self) -> None:
        """Cancel the groups that have not been started."""
        with self._lock:
            waiting, self._waiting = list(self._waiting), deque()
        for group, _ in waiting:
            group.stop()

    def cancel_all(self) -> None:
        """Cancel what waits and what runs."""
        self.cancel_waiting()
        for future in list(self._running):
            future.cancel()

    def wait(self) -> None:
        """Return when all have ended that are to be waited for."""
        while pending := self._pending():
            wait(pending)

    def _pending(self) -> list[Future[Any]]:
        with self._lock:
            started = [future for future in self._running if not future.done()]
            return [*started, *(group.future for group, _ in self._waiting if not group.future.done())]

    def finish(self) -> None:
        """As the interpreter ends: wait for what is pending, or cancel it after Ctrl-C."""
        if self._pid != os.getpid():
            return
        if not ends_program():
            with contextlib.suppress(KeyboardInterrupt):
                self.wait()
                return
        self.cancel_all()


_all: WeakSet[Apart] = WeakSet()


def _finish() -> None:
    for apart in list(_all):
        apart.finish()


atexit.register(_finish)  # before connections are closed: it was registered later
