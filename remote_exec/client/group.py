"""A call that several workers run at once, as one call: all of them or none, and one outcome.

Hosts are asked one after the other, in the order of their names, so that two groups never hold what the other needs;
each grants all of its workers in one step. A worker that is there says so by answering a first, tiny call, which finds
a free port. When all have answered, each is sent the function with its place in the group. The first that fails is why
the group fails; the others are stopped, and the outcome is told when they have ended.

There is no thread here: each step is taken by the thread that delivers the answer that it follows from.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

from ..model.errors import HostUnavailable, WorkerDied
from ..model.ids import new_id
from ..options.group_plan import HERE, GroupPlan
from ..serial import pickling
from ..serial.pickling import Pickled
from ..worker.groups import free_port
from .answers import cancelled
from .calls import Call, Captured, Printed, working_folder
from .connections import connections
from .group_future import GroupFuture
from .rank_lines import RankLines, RankReporter

if TYPE_CHECKING:
    from .dispatcher import Dispatcher
    from .target import Place


CUT_OFF = "the other ranks were stopped; one that has begun there is, too, when its host is back: see remote-exec jobs"


class _Step(Enum):
    WAITS = "waits"  # its host has not been asked yet
    ASKED = "asked"
    THERE = "there"
    ENDED = "ended"


class _Member:
    """One worker of a group."""

    def __init__(self, number: int, place: Place) -> None:
        self.number = number
        self.place = place
        self.step = _Step.WAITS
        self.sent = False  # whether its call is on its way, and its answer will come
        self.port = 0
        self.value: Any = None
        self.dispatcher: Dispatcher | None = None
        self.reporter: RankReporter | None = None
        self.call: Call | None = None


class Group:
    """See the module's docstring.

    Args:
        plan: how many workers it takes.
        sent: the function.
        arguments: those of the call, the same for all.
    """

    def __init__(self, plan: GroupPlan, sent: Captured, arguments: Pickled) -> None:
        self.plan, self.sent, self.arguments, self._address = plan, sent, arguments, HERE
        self._members: list[_Member] = []
        self._lock = threading.Lock()
        self._stopping = False
        self._errors: list[tuple[_Member | None, BaseException]] = []  # the first is why it fails
        self.begun = False
        self._folder = working_folder()
        self.printed = Printed()
        self.lines = RankLines(connections.reporter, Call(sent, arguments), self.printed)
        self.future = GroupFuture(self)

    def start(self, places: Sequence[Place], address: str) -> GroupFuture:
        """Ask for the workers, unless it was stopped before.

        Args:
            places: where its nodes are, one for each.
            address: of the first node's host, as the others reach it.

        Raises:
            HostUnavailable: no agent could be reached.
        """
        each = max(1, self.plan.workers // len(places))
        with self._lock:
            if self._stopping:
                return self.future
            self._address = address
            self._members = [_Member(number, places[number // each]) for number in range(self.plan.workers)]
        try:
            self._ask()
        except BaseException as error:
            self.fail(error)
            raise
        return self.future

    def fail(self, error: BaseException) -> None:
        """End it with an error that no rank has raised."""
        with self._lock:
            self._errors.append((None, error))
        self.stop()

    @property
    def name(self) -> str:
        """The name of rank 0's call; empty before it has been sent."""
        call = self._members[0].call if self.begun else None
        return call.name if call is not None else ""

    @property
    def calls(self) -> list[Call]:
        """Those of its members, once all workers are there."""
        return [member.call for member in self._members if member.call is not None] if self.begun else []

    def why(self) -> str:
        """Say in words what it waits for."""
        for member in self._members:
            if member.sent and member.dispatcher is not None and member.call is not None:
                return member.dispatcher.why(member.call)
        return "its workers are being asked for" if self._members else "it waits for other groups to end"

    # --- getting the workers ----------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Ask the next host for all that is wanted of it; when there is none left, begin."""
        with self._lock:
            waiting = [member for member in self._members if member.step is _Step.WAITS]
            first = min((_order(member) for member in waiting), default=None)
            stopping = self._stopping
            asked = [] if stopping else [one for one in waiting if _order(one) == first]
            for member in asked:
                member.step = _Step.ASKED
        if not asked:
            if not (waiting or stopping):
                self._begin()
            return
        group = new_id()
        for member in asked:
            self._open(member, group, len(asked))
        for member in asked:
            self._submit(member)

    def _open(self, member: _Member, group: str, size: int) -> None:
        request = member.place.request
        request = request | {
            "group": group,
            "group_size": size,
            "max_workers": max(request["max_workers"], size),
        }
        prefix = f"[{member.number}] " if not self.plan.launcher else ""
        member.reporter = reporter = RankReporter(self.lines, member.number, prefix)
        member.dispatcher = connections.private(
            member.place.host,
            request,
            max_workers=1,
            single=True,
            reporter=reporter,
            idle_seconds=float("inf"),  # it may have to wait for those of another host
        )
        hello = Captured(name=self.sent.name, pickled=_hello(), told={"name": ""})
        self._prepare(member, hello, pickling.dump_arguments((), {}), self._is_there)

    def _prepare(self, member: _Member, sent: Captured, arguments: Pickled, then: Any) -> None:
        member.call = Call(sent, arguments, dispatcher=member.dispatcher)
        member.call.folder = self._folder
        member.call.future.add_done_callback(partial(then, member))

    def _submit(self, member: _Member) -> None:
        assert member.dispatcher is not None  # noqa: S101
        assert member.call is not None  # noqa: S101
        with self._lock:
            member.sent = not self._stopping
        if not member.sent:
            self._let_go(member)
            return
        try:
            member.dispatcher.submit(member.call)
        except BaseException:
            member.sent = False
            raise
        if self._stopping:  # it may not have been found by who wanted to stop it
            member.dispatcher.cancel(member.call)

    def _is_there(self, member: _Member, answer: Future[Any]) -> None:
        error = _error_of(answer)
        if error is not None:
            self._ended(member, answer)
            return
        with self._lock:
            member.port, member.step, member.sent = answer.result(), _Step.THERE, False
            stopping = self._stopping
            ready = all(one.step in (_Step.THERE, _Step.WAITS) for one in self._members)
        if stopping:
            self._let_go(member)
        elif ready:
            self._go_on()

    def _go_on(self) -> None:
        try:
            self._ask()
        except BaseException as error:  # there is nobody above to hear of it
            self.fail(error)

    # --- running ----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """All workers are there: send them the function."""
        if not self.future.set_running_or_notify_cancel():
            return
        self.begun = True
        first = self._members[0]
        for member in self._members:
            place = self.plan.told(member.number, address=self._address, port=first.port)
            name = self.sent.name
            told = self.sent.told | place | {"name": f"{name}.rank{place['group']['rank']}"}
            sent = Captured(
                name=told["name"],
                pickled=self.sent.pickled,
                told=told,
                log_levels=self.sent.log_levels,
                phases=self.sent.phases if member is first else (),
            )
            self._prepare(member, sent, self.arguments, self._ended)
        for member in self._members:
            self._submit(member)

    def _ended(self, member: _Member, answer: Future[Any]) -> None:
        error = _error_of(answer)
        if error is None:
            member.value = answer.result()
            self._let_go(member)
        else:
            self._fail(member, error)

    def _fail(self, member: _Member, error: BaseException) -> None:
        if isinstance(error, HostUnavailable) and self.begun and not member.place.host.here:
            error.hint = CUT_OFF
            _stop_later(member)
        with self._lock:
            self._errors.append((member, error))
        self.stop()
        self._let_go(member)

    def stop(self) -> None:
        """Stop all that runs, and let go of what waits."""
        with self._lock:
            stopped, self._stopping = self._stopping, True
            members = [member for member in self._members if member.step is not _Step.ENDED]
        if not self._members and not stopped:
            self._settle()
        for member in members:
            if not member.sent:
                self._let_go(member)
            elif member.dispatcher is not None and member.call is not None:
                with contextlib.suppress(HostUnavailable):
                    member.dispatcher.cancel(member.call)

    def _let_go(self, member: _Member) -> None:
        """Give a worker back; when it was the last, tell the outcome."""
        if member.reporter is not None:
            member.reporter.finish()
        with self._lock:
            if member.step is _Step.ENDED:
                return
            member.step, member.sent = _Step.ENDED, False
            over = all(one.step is _Step.ENDED for one in self._members)
        if member.dispatcher is not None:
            connections.drop(member.dispatcher)
        if over:
            self.lines.ended()
            self._settle()

    def _settle(self) -> None:
        future, plan = self.future, self.plan
        errors = [(member, error) for member, error in self._errors if not isinstance(error, CancelledError)]
        # Where a worker dies, the others may fail first, since it does not answer them.
        deaths = [row for row in errors if isinstance(row[1], WorkerDied)]
        if errors:
            member, error = (deaths or errors)[0]
            if not plan.launcher and member is not None:
                error.add_note(f"raised by rank {member.number} of {plan.world_size}")
            future.set_exception(error)
        elif self._stopping:
            cancelled(future)
        elif not plan.all_ranks:
            future.set_result(self._members[0].value)
        elif not plan.launcher:
            future.set_result([member.value for member in self._members])
        else:
            future.set_result([value for member in self._members for value in member.value])


def _stop_later(member: _Member) -> None:
    """Have the part of a group that is out of reach stopped when its host is back: alone it is of no use."""
    call = member.call
    if call is not None and call.channel is not None:
        with contextlib.suppress(HostUnavailable):  # its session has ended as well
            call.channel.session.cancel_call(call.channel.lease, call.number)


def _order(member: _Member) -> tuple[str, str]:
    """Where a member's host stands in the order in which everybody asks them."""
    host = member.place.host
    return host.name, repr(host)


def _error_of(answer: Future[Any]) -> BaseException | None:
    return CancelledError() if answer.cancelled() else answer.exception()


_pickled_hello: list[Pickled] = []


def _hello() -> Pickled:
    if not _pickled_hello:
        _pickled_hello.append(pickling.dump(free_port))
    return _pickled_hello[0]
