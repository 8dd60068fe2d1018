"""What hosts are called: by their instance type, by their own name, by the key of their note in the inventory."""

from __future__ import annotations

from ..backends import local
from ..backends.host import Host
from ..config import Config, load_config
from ..model.errors import ConfigurationError, RemoteExecError
from ..options import Options, nearest
from . import inventory


def far_hosts() -> list[Host]:
    """Return all hosts that are known and are not this machine, those last reached first; nobody is asked.

    Known are those in the user's inventory, and those of the configuration that holds here.
    """
    found = [one.host for one in inventory.known()]
    try:
        config = load_config()
    except ConfigurationError:  # it is said to whoever calls a function
        return found
    for name in config.instances:
        found += _configured(name, config)
    return [host for host in dict.fromkeys(found) if not host.here]


def host_named(name: str) -> Host:
    """Return the host that is called so.

    Raises:
        ConfigurationError: there is none, or there are several.
    """
    if name == "local":
        return local.here()
    config = load_config()
    found = _configured(name, config)
    if not found:
        known = {inventory.key_of(host): host for host in far_hosts()}
        found = [host for key, host in known.items() if name in (host.name, key)]
    if len(found) == 1:
        return found[0]
    if not found:
        names = names_of_hosts()
        near = nearest(name, names)
        raise ConfigurationError(
            f"there is no host {name!r}{f'; did you mean {near!r}?' if near else ''}",
            hint=f"known are: {', '.join(names)}; see: remote-exec hosts",
        )
    if len({host.name for host in found}) == len(found):
        choice = ", ".join(host.name for host in found)
    else:
        choice = ", ".join(f"{inventory.key_of(host)} ({host.name})" for host in found)
    raise ConfigurationError(f"{name!r} is {len(found)} hosts", hint=f"name one of them: {choice}")


def names_of_hosts() -> list[str]:
    """Return all names that `host_named` knows, but for keys."""
    config = load_config()
    types = [name for name, instance in config.instances.items() if instance.backend != "local"]
    return list(dict.fromkeys(["local", *types, *(host.name for host in far_hosts())]))


def _configured(name: str, config: Config) -> list[Host]:
    instance = config.instances.get(name)
    if instance is None or instance.backend == "local":
        return []
    from .placement import hosts_of

    try:
        found = hosts_of(instance, config.resolve(Options(), instance))
    except RemoteExecError:  # as above
        return []
    return [host for host in found if not host.here]
