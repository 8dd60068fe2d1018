"""The agent is reached for before this process has loaded what talks to it.

Where none runs on this machine, its start is most of what a first call waits for; one elsewhere is some round trips
away. Both go on beside our own imports. So this module loads as little as that takes. What goes wrong here is said by
`session`, which tries again.
"""

from __future__ import annotations

import contextlib
import sys

from ..model.errors import RemoteExecError
from ..options import Options


def reach_ahead(given: Options) -> None:
    """Connect to the agent of the first call, or start one on this machine, without waiting for its answer.

    Args:
        given: the options of that call: they say where it goes.
    """
    with contextlib.suppress(RemoteExecError, OSError):
        if "instance_type" in given and "local" not in given.instance_type:
            if f"{__package__}.connections" not in sys.modules:  # else there may be a session already
                _greet(given)
        else:
            from ..backends import local

            local.begin(local.here())


def _greet(given: Options) -> None:
    """Say hello to the agent of an ssh host; have the way there opened, if it is not."""
    from ..config import load_config, resolve_instance_types

    instance, *others = resolve_instance_types(given.instance_type, load_config())
    if others or instance.backend != "ssh":
        return
    from ..backends.ssh import ssh_hosts
    from .greeting import begin

    for host in ssh_hosts(instance.settings):
        begin(host, host.dial())
