"""Calls that several workers run: from a target to one call of a group, to many, or to the refusal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from ..model.errors import ConfigurationError
from ..options import Options
from ..options.group_plan import DURABLE, GroupPlan, group_plan
from ..serial.pickling import Pickled
from .calls import Captured
from .dispatcher import IDLE_SECONDS
from .group import Group
from .nodes import meeting_address, node_places
from .one_by_one import map_calls

if TYPE_CHECKING:
    from .group_future import GroupFuture
    from .target import Target

GROUP_OPTIONS = ("instance_count", "nproc_per_node", "use_torchrun", "use_mpirun")


def start_group(target: Target, sent: Captured, arguments: Pickled) -> GroupFuture:
    """Start a call on a group of workers.

    Raises:
        HostUnavailable: there are not as many hosts as it takes.
    """
    plan = group_plan(target.place.options)
    assert plan is not None  # noqa: S101
    return place_group(Group(plan, sent, arguments), target)


def place_group(group: Group, target: Target) -> GroupFuture:
    """Start a group where it is the least in others' way.

    Raises:
        HostUnavailable: there are not as many hosts as it takes.
    """
    places = node_places(target, group.plan, group.arguments, group.sent.name)
    return group.start(places, meeting_address(places))


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
    options = target.place.options
    room = room_for(options, target.dispatcher.max_workers)
    return map_calls(arguments, window=room + (not options.max_parallel_jobs), **settings)


def room_for(options: Options, max_workers: int) -> int:
    """Return how many groups run at once: as many as were asked for, else as many as there may be workers for."""
    plan = group_plan(options)
    return options.max_parallel_jobs or max(1, max_workers // (plan.workers if plan is not None else 1))


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
    if durable and (plan.workers > 1 or (plan.nodes > 1 and not here)):
        name = next(name for name in DURABLE if getattr(options, name))
        raise ConfigurationError(
            f"option {name!r} ({options.source(name)}): a group on several machines cannot be a durable job, and "
            f"instance_count is {plan.nodes}",
            option=name,
            hint="set instance_count=1: nproc_per_node is how many processes one machine runs",
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
