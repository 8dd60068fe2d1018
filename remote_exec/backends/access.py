"""What can be done with a host beside reaching its agent: a shell, a forwarded port, an end without a trace.

None of it needs an agent there, nor starts one. A backend has one such class; it says in words what it cannot do.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any, Protocol

from ..model.errors import ConfigurationError
from .host import Host


class Access(Protocol):
    """See the module's docstring. All methods raise `HostUnavailable` where the host is out of reach."""

    def is_there(self) -> bool:
        """Whether it can be asked without being made first: a container may not run."""
        ...

    def former(self) -> list[Host]:
        """Return what was this host before, and keeps the jobs of then: a container of another image."""
        ...

    def dial(self) -> socket.socket | None:
        """Return a connection by the way that is open now, if there is one; nothing is opened. It may end at once."""
        ...

    def shell(self, words: Sequence[str], *, folder: str, terminal: bool) -> list[str]:
        """Return the command of this machine that runs one there.

        Args:
            words: the command, word by word; none for the user's shell.
            folder: where it starts; the user's home where that is empty or not there.
            terminal: whether it gets one.
        """
        ...

    def look(self) -> dict[str, Any]:
        """Return what the host tells of itself: see `errand`."""
        ...

    def stop(self) -> bool:
        """End the agent there and all that it has started; False where none ran."""
        ...

    def remove(self) -> list[str]:
        """End the agent, remove the state directory; return what lies in it that is not ours, and stays."""
        ...

    def close(self) -> None:
        """End the connections that all of the user's processes share, and remove what they need on this machine."""
        ...

    def forward(self, here: int, there: int) -> None:
        """Have a port of this machine's 127.0.0.1 lead to one of the host's; may be asked again at any time."""
        ...

    def unforward(self, here: int, there: int) -> None:
        """End what `forward` began."""
        ...


def access_to(host: Host) -> Access:
    """Return what can be done with a host.

    Raises:
        ConfigurationError: its backend offers nothing of that.
    """
    from .ssh import SshHost

    if isinstance(host, SshHost):
        from .ssh_access import SshAccess

        return SshAccess(host)
    from .docker.host import DockerHost

    if isinstance(host, DockerHost):
        from .docker.access import DockerAccess

        return DockerAccess(host)
    raise ConfigurationError(f"{host.name} is this machine, or its backend does not offer that")
