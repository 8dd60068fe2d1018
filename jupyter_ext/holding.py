"""Who else of a notebook holds what its next session may be waiting for: a host's processors, memory, GPUs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator, Iterable
from typing import Protocol

from remote_exec.backends.host import Host
from remote_exec.client.placement import hosts_for
from remote_exec.options import Options

from .reporter import notebook_reporter


class HasPlace(Protocol):
    """A session."""

    @property
    def place(self) -> str:
        """Its instance type."""
        ...

    @property
    def host(self) -> Host | None:
        """Where its worker is, if it has begun."""
        ...


@contextlib.contextmanager
def saying_who_holds(options: Options, others: Iterable[HasPlace]) -> Generator[None, None, None]:
    """While a worker is waited for, say which sessions of the notebook are on a host where it may come to be.

    Args:
        options: of the worker.
        others: the notebook's other sessions.
    """
    hosts = hosts_for(options)
    places = [one.place for one in others if one.host is not None and one.host in hosts]
    held = ", ".join(
        f"this notebook's session on {place} (%remote restart {place} ends it)" for place in places
    )
    reporter = notebook_reporter()
    if held and reporter is not None:
        reporter.held = f"on the host, too: {held}"
    try:
        yield
    except KeyboardInterrupt:
        if held:
            print(f"on the host that was waited for, too: {held}", file=sys.stderr)
        raise
    finally:
        if reporter is not None:
            reporter.held = ""
