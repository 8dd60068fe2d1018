"""This kernel's namespace, as one end of a session: which names are its own, and what they stand for elsewhere."""

from __future__ import annotations

import functools
from typing import Any

from remote_exec.session.kept import Handles, Kept
from remote_exec.session.mirror import Mirror
from remote_exec.session.names import is_of_ipython, is_of_python

OWN_NAMES = frozenset({"exit", "quit", "open", "get_ipython", "_dh"})


def mirror_of(shell: Any, session: object = None, handles: Handles | None = None) -> Mirror:
    """Return this kernel's end of its namespace and another, of which neither has told the other anything yet."""
    own = functools.partial(_is_own, shell)
    return Mirror(shell.user_ns, first=0, own=own, session=session, handles=handles)


def kept_in(shell: Any, session: object) -> list[str]:
    """Return the notebook's names that stand for what has stayed in a session."""
    return sorted(
        name
        for name, value in list(shell.user_ns.items())
        if type(value) is Kept and value.session is session and not is_of_ipython(name)
    )


def _is_own(shell: Any, name: str) -> bool:
    if is_of_python(name) or name in OWN_NAMES:
        return True
    return name in shell.user_ns_hidden and not is_of_ipython(name)
