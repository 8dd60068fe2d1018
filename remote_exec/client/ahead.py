"""The agent is reached for before this process has loaded what talks to it.

Where none runs, its start is most of what a first call waits for; it goes on beside our own imports. So this module
imports next to nothing. What goes wrong here is said by `session`, which tries again.
"""

from __future__ import annotations

import contextlib
import os

from ..backends import local
from ..model.errors import RemoteExecError
from ..model.layout import Layout
from ..version import VERSION
from . import runtime
from .variables import meaningful


def reach_ahead() -> None:
    """Connect to this machine's agent, or start one, without waiting for its answer."""
    layout = Layout.of(os.environ)
    with contextlib.suppress(RemoteExecError, OSError):
        local.begin(
            layout,
            lambda: runtime.unpack(layout.runtimes),
            version=VERSION,
            variables=meaningful(os.environ),
        )
