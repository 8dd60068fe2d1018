"""A call that several workers run at once, as one call: all of them or none, and one outcome.

Hosts are asked one after the other, in the order of their names, so that two groups never hold what the other needs;
each grants all of its workers in one step. A worker that is there says so by answering a first, tiny call, which finds
a free port. When all have answered, each is sent the function with its place in the group. The first that fails is why
the group fails; the others are stopped, and the outcome is told when they have ended.

There is no thread here: each step is taken by the thread that delivers the answer that it follows from.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

from ..future import RemoteFuture
from ..model.errors import ConfigurationError, HostUnavailable, WorkerDied
from ..model.ids import new_id
from ..options import Options
from ..options.group_plan import HERE, GroupPlan, group_plan
from ..serial import pickling
from ..serial.pickling import Pickled
from ..worker.groups import free_port
from .answers import cancelled
from .calls import Call, Captured, Printed, working_folder
from .connections import connections
from .dispatcher import FORKED, IDLE_SECONDS
from .nodes import meeting_address, node_places
from .one_by_one import map_calls
from .rank_lines import RankLines, RankReporter

if TYPE_CHECKING:
    from .dispatcher import Dispatcher
    from .target import Place, Target


GROUP_OPTIONS = ("instance_count", "nproc_per_node", "use_torchrun", "use_mpirun")
DURABLE_OPTIONS = ("name", "detach", "max_retry_attempts", "use_spot_instances")

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


class GroupFuture(RemoteFuture[Any]):
    """The future of a call that a group runs. Users get it from `submit`."""

    def __init__(self, group: Group) -> None:
        super().__init__()
        self._group = group
        self._pid = os.getpid()

    @property
    def job(self) -> str:
        """The name of rank 0's part; that of another rank has its number. Empty until all workers are there."""
        return self._group.name

    @property
    def status(self) -> str:
        """One of queued, running, succeeded, failed, cancelled."""
        return super().status if self.done() else "running" if self._group.begun else "queued"

    def why(self) -> str:
        """Say in words what the group waits for."""
        return super().why() if self.done() else self._group.why()

    def logs(self) -> str:
        """Return what all ranks have printed so far, each line with its rank; of very much, the last megabyte."""
        return str(self._group.printed)

    def cancel(self, wait: bool = False) -> bool:
        """Ask for all ranks to be stopped.

        Args:
            wait: return only when they have ended.

        Returns:
            False when the call had ended already.
        """
        if self.done():
            return self.cancelled()
        self._group.stop()
        if wait:
            self._wait(None)
            return self.cancelled()
        return True

    def _wait(self, timeout: float | None) -> None:
        if self._pid != os.getpid() and not self.done():
            raise HostUnavailable(FORKED, hint="wait for it there, or call again here")
        self._group.lines.awaited += 1
        try:
            with self._condition:
                if not self.done():
                    self._condition.wait(timeout)
        finally:
            self._group.lines.awaited -= 1
            connections.reporter.left()
        if not self.done():
            raise TimeoutError


class Group:
    """See the module's docstring.

    Args:
        places: where its nodes are, one for each.
        plan: how many workers it takes.
        sent: the function.
        arguments: those of the call, the same for all.
        address: of the first node's host, as the others reach it.
    """

    def __init__(
        self,
        places: Sequence[Place],
        plan: GroupPlan,
        sent: Captured,
        arguments: Pickled,
        *,
        address: str = HERE,
    ) -> None:
        self._plan, self._sent, self._arguments, self._address = plan, sent, arguments, address
        each = max(1, plan.workers // len(places))
        self._members = [_Member(number, places[number // each]) for number in range(plan.workers)]
        self._lock = threading.Lock()
        self._stopping = False
        self._errors: list[tuple[_Member, BaseException]] = []  # the first is why it fails
        self.begun = False
        self._folder = working_folder()
        self.printed = Printed()
        self.lines = RankLines(connections.reporter, Call(sent, arguments), self.printed)
        self.future = GroupFuture(self)

    def start(self) -> GroupFuture:
        """Ask for the workers.

        Raises:
            HostUnavailable: no agent could be reached.
        """
        try:
            self._ask()
        except BaseException:
            self.stop()
            raise
        return self.future

    @property
    def name(self) -> str:
        """The name of rank 0's call; empty before it has been sent."""
        call = self._members[0].call
        return call.name if self.begun and call is not None else ""

    def why(self) -> str:
        """Say in words what it waits for."""
        for member in self._members:
            if member.sent and member.dispatcher is not None and member.call is not None:
                return member.dispatcher.why(member.call)
        return "its workers are being asked for"

    # --- getting the workers ----------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Ask the next host for all that is wanted of it; when there is none left, begin."""
        with self._lock:
            waiting = [member for member in self._members if member.step is _Step.WAITS]
            first = min((_order(member) for member in waiting), default=None)
            asked = [] if self._stopping else [one for one in waiting if _order(one) == first]
            for member in asked:
                member.step = _Step.ASKED
        if not asked:
            if not waiting:
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
        prefix = f"[{member.number}] " if not self._plan.launcher else ""
        member.reporter = reporter = RankReporter(self.lines, member.number, prefix)
        member.dispatcher = connections.private(
            member.place.host,
            request,
            max_workers=1,
            single=True,
            reporter=reporter,
            idle_seconds=float("inf"),  # it may have to wait for those of another host
        )
        hello = Captured(name=self._sent.name, pickled=_hello(), told={"name": ""})
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
            self._fail(self._members[0], error)

    # --- running ----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """All workers are there: send them the function."""
        if not self.future.set_running_or_notify_cancel():
            return
        self.begun = True
        first = self._members[0]
        for member in self._members:
            place = self._plan.told(member.number, address=self._address, port=first.port)
            name = self._sent.name
            told = self._sent.told | place | {"name": f"{name}.rank{place['group']['rank']}"}
            sent = Captured(
                name=told["name"],
                pickled=self._sent.pickled,
                told=told,
                log_levels=self._sent.log_levels,
                phases=self._sent.phases if member is first else (),
            )
            self._prepare(member, sent, self._arguments, self._ended)
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
            self._stopping = True
            members = [member for member in self._members if member.step is not _Step.ENDED]
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
        future, plan = self.future, self._plan
        errors = [(member, error) for member, error in self._errors if not isinstance(error, CancelledError)]
        # Where a worker dies, the others may fail first, since it does not answer them.
        deaths = [row for row in errors if isinstance(row[1], WorkerDied)]
        if errors:
            member, error = (deaths or errors)[0]
            if not plan.launcher:
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


def start_group(target: Target, sent: Captured, arguments: Pickled) -> GroupFuture:
    """Start a call on a group of workers.

    Raises:
        HostUnavailable: there are not as many hosts as it takes.
    """
    plan = group_plan(target.place.options)
    assert plan is not None  # noqa: S101
    places = node_places(target, plan, arguments, sent.name)
    return Group(places, plan, sent, arguments, address=meeting_address(places)).start()


def run_group(target: Target, sent: Captured, arguments: Pickled) -> Any:
    """Run a call on a group of workers and return its value. Ctrl-C stops all of them.

    Raises:
        BaseException: what the first rank that failed has raised.
    """
    future = start_group(target, sent, arguments)
    try:
        return future.result()
    except KeyboardInterrupt:
        future.cancel()
        with contextlib.suppress(CancelledError, TimeoutError):
            future.exception(IDLE_SECONDS)
        raise


def map_groups(target: Target, arguments: Iterable[tuple[Any, ...]], **settings: Any) -> Iterator[Any]:
    """Yield the values of many calls, each on a group: as many at once as there are workers for, and one to come."""
    plan = group_plan(target.place.options)
    assert plan is not None  # noqa: S101
    return map_calls(arguments, window=max(1, target.dispatcher.max_workers // plan.workers) + 1, **settings)


def check_group(options: Options, plan: GroupPlan, *, here: bool, generator: bool, durable: bool) -> None:
    """Check that a group can run a call.

    Args:
        options: the call's.
        plan: what they ask for.
        here: whether all nodes are this machine.
        generator: whether the function is one.
        durable: whether the call is to be a durable job.

    Raises:
        ConfigurationError: it cannot; `option` is what stands in the way.
    """
    if plan.launcher == "mpirun" and plan.nodes > 1 and not here:
        raise ConfigurationError(
            f"option 'use_mpirun' ({options.source('use_mpirun')}): mpirun starts processes on one host, and "
            f"instance_count is {plan.nodes}",
            option="use_mpirun",
            hint="set instance_count=1 and nproc_per_node, or use_torchrun=True, or neither launcher",
        )
    if generator:
        name = next(name for name in GROUP_OPTIONS if name in options)
        raise ConfigurationError(
            f"option {name!r} ({options.source(name)}): a generator function cannot run in a group",
            option=name,
            hint="return a list",
        )
    if durable and plan.workers > 1:
        name = next(name for name in DURABLE_OPTIONS if getattr(options, name))
        raise ConfigurationError(
            f"option {name!r} ({options.source(name)}): a call that takes {plan.workers} workers cannot be a "
            "durable job",
            option=name,
            hint="with use_torchrun or use_mpirun on one machine it takes one worker, and can",
        )


def refuse_group(options: Options, what: str) -> None:
    """Refuse options that ask for a group, where there is one worker for each call.

    Raises:
        ConfigurationError: they do.
    """
    if group_plan(options) is not None:
        name = next(name for name in GROUP_OPTIONS if name in options)
        raise ConfigurationError(
            f"option {name!r} ({options.source(name)}): {what} runs on one worker",
            option=name,
            hint="decorate a function with it: @remote",
        )


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
