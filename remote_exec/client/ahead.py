"""The agent is reached for before this process has loaded what talks to it.

Where none runs, its start is most of what a first call waits for; it goes on beside our own imports. So this module
imports next to nothing. What goes wrong here is said by `session`, which tries again.
"""

from __future__ import annotations

import contextlib

from ..backends import local
from ..model.errors import RemoteExecError
from ..options import Options


def reach_ahead(given: Options) -> None:
    """Connect to this machine's agent, or start one, without waiting for its answer.

    Args:
        given: the options of the first call: where they say that it goes elsewhere, nothing is done.
    """
    if "instance_type" in given and "local" not in given.instance_type:
        return
    with contextlib.suppress(RemoteExecError, OSError):
        local.begin(local.here())
