"""Where the nodes of a group are: here all of them, elsewhere each on a host, or in a container, of its own."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from ..backends.ssh import SshHost
from ..backends.ssh_access import SshAccess
from ..model.errors import ConfigurationError, ResourceLimitExceeded
from ..options.group_plan import HERE, GroupPlan
from ..serial.pickling import Pickled
from .target import Place, Target, bring_trees


def node_places(target: Target, plan: GroupPlan, arguments: Pickled, of: str) -> list[Place]:
    """Return the place of each node of a group, in the order of their ranks; the arguments' folders are brought there.

    Args:
        target: where the function's calls go.
        plan: how many nodes there are.
        arguments: those of the call.
        of: the function's name.

    Raises:
        ResourceLimitExceeded: the instance type has fewer hosts.
        HostUnavailable: fewer of them can be reached.
    """
    first = target.place
    if first.host.here:
        return [first] * plan.nodes
    if plan.nodes == 1:
        return [target.place_for(arguments, of)]
    names = [host.name for host in target.spread.hosts] if target.spread is not None else [first.host.name]
    if plan.nodes > len(names):
        options = first.options
        raise ResourceLimitExceeded(
            f"option 'instance_count' ({options.source('instance_count')}) is {plan.nodes}, but the instance type "
            f"{first.instance.name!r} has {len(names)} host{'s' * (len(names) > 1)}: {', '.join(names)}",
            hint="add to its hosts, or lower it: nproc_per_node is how many processes each host runs",
        )
    assert target.spread is not None  # noqa: S101
    places = target.spread.places(plan.nodes)
    for place in places:
        bring_trees(arguments, place.host, of)
    return places


def meeting_address(places: Sequence[Place]) -> str:
    """Return the address of the first node's host, as the others reach it.

    Raises:
        ConfigurationError: the address by which this machine reaches it means another machine to the others.
    """
    first = places[0].host
    if all(place.host == first for place in places):
        return HERE
    told = places[0].instance.settings.get("group_addresses", {}).get(first.name)
    if told:
        return str(told)
    if not isinstance(first, SshHost):
        from ..backends.docker.host import DockerHost, address_of

        assert isinstance(first, DockerHost)  # noqa: S101 - no other backend has several hosts
        return address_of(first)
    address = SshAccess(first).address()
    if _is_loopback(address):
        raise ConfigurationError(
            f"ssh reaches {first.name!r} at {address}, which is no address at which other hosts reach it",
            option="group_addresses",
            hint=f'tell it with the instance type: group_addresses = {{ {first.name} = "10.0.0.1" }}',
        )
    return address


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
