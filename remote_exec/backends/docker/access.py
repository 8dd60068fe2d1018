"""A shell in a container, stopping and removing one: of all the containers that an instance type has had on its engine.

No container is made or started for any of it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...model.errors import HostUnavailable, RemoteExecError
from .. import bringing, errand
from ..host import Host
from ..pipes import Exec
from ..ports import ForwardedPort
from ..tunnel import Tunnel
from . import kept
from .container import STATE_DIRECTORY, Container, describe_end
from .engine import Engine, open_engine
from .host import RUN_BOOT, DockerHost, _hear, _way, runtime_folder
from .labels import PYTHON
from .streams import open_stream, start_command

LOOK_SECONDS = 60.0
_SHELL = '[ -z "$1" ] || cd "$1" 2>/dev/null; shift; [ $# -eq 0 ] || exec "$@"; exec "${SHELL:-/bin/sh}" -l'


class DockerAccess:
    """See `access.Access`."""

    def __init__(self, host: DockerHost) -> None:
        self._host = host
        self._settings = host.settings
        self._ports: dict[tuple[int, int], ForwardedPort] = {}

    def former(self) -> list[Host]:
        """Return the containers that its instance type had with other settings or another image, the last first."""
        engine = open_engine(self._settings.engine)
        now = _way(self._host).container
        return [
            DockerHost(self._settings, one.name)
            for one in reversed(kept.list_kept(engine))
            if one.kind == "container" and self._is_meant(one) and (now is None or one.name != now.name)
        ]

    def is_there(self) -> bool:
        """Whether its container runs."""
        return bool(self._running(open_engine(self._settings.engine)))

    def dial(self) -> socket.socket | None:
        """Return a connection to the agent in the container that runs, if one does."""
        with contextlib.suppress(RemoteExecError, OSError):
            if self.is_there():
                return _way(self._host).open(boot_anyway=False)
        return None

    def shell(self, words: Sequence[str], *, folder: str, terminal: bool) -> list[str]:
        """Return docker's (or podman's) command that runs one there."""
        program = next((one for one in ("docker", "podman") if shutil.which(one)), None)
        if program is None:
            raise HostUnavailable(
                "a shell in a container needs docker's own command, which is not here",
                hint="install docker-cli",
            )
        name = self._name(open_engine(self._settings.engine))
        engine = self._settings.engine
        where = [] if not engine else ["--host", engine] if "://" in engine else ["--context", engine]
        terminals = ["--tty"] if terminal else []
        return [
            program, *where, "exec", "--interactive", *terminals, name, "/bin/sh", "-c", _SHELL, "sh", folder, *words,
        ]  # fmt: skip

    def look(self) -> dict[str, Any]:
        """Return what the container tells of itself."""
        engine = open_engine(self._settings.engine)
        if self._host.container and engine.inspect("container", self._host.container) is None:
            return {"there": False}
        name = self._name(engine)
        found = engine.inspect("container", name)
        if found is None:
            raise HostUnavailable(f"the container {name} has just ended")
        python, user = found["Config"]["Labels"][PYTHON], found["Config"]["User"]
        container = Container(
            id=found["Id"], name=name, python=python, user=user, is_fresh=False, sockets=None
        )
        text = Path(errand.__file__).read_bytes()
        argv = [python, "-I", "-S", "-c", RUN_BOOT, str(len(text))]
        with start_command(engine, container.id, argv) as command:
            command.set_timeout(LOOK_SECONDS)
            command.write(text + json.dumps({"do": "look", "home": STATE_DIRECTORY}).encode() + b"\n")
            return _hear(command, container)

    def stop(self) -> bool:
        """Stop its containers; what they keep stays."""
        engine = open_engine(self._settings.engine)
        names = self._running(engine)
        for name in names:
            kept.stop(engine, name)
        return bool(names)

    def remove(self) -> list[str]:
        """Remove its containers and their volumes."""
        engine = open_engine(self._settings.engine)
        for name in {one.name for one in kept.list_kept(engine) if self._is_meant(one)}:
            kept.remove(engine, name)
        return []

    def close(self) -> None:
        """Do nothing: each process ends its own connections."""

    def forward(self, here: int, there: int) -> None:
        """Have a port of this machine lead to one in the container, whatever its network is: over an exec."""
        found = self._ports.get((here, there))
        if found is not None:
            found.mend()
        else:
            self._ports[here, there] = ForwardedPort(here, lambda: self._open_tunnel(str(there)))

    def unforward(self, here: int, there: int) -> None:
        """End what `forward` began."""
        found = self._ports.pop((here, there), None)
        if found is not None:
            found.close()

    def _open_tunnel(self, target: str) -> Tunnel:
        """Return a tunnel whose far end, in the container that runs, connects to a target of `agent.relay`."""
        engine = open_engine(self._settings.engine)
        known = _way(self._host).container  # the very one, of several that the instance type may have had
        found = engine.inspect("container", known.id if known is not None else self._name(engine))
        if found is None or found["State"]["Status"] != "running":
            raise HostUnavailable(f"the container of {self._host.name} does not run: {describe_end(found)}")
        argv = bringing.relay(found["Config"]["Labels"][PYTHON], runtime_folder(), target)
        return Tunnel(Exec(open_stream(engine, found["Id"], argv)), on_end=lambda _: None)

    def _running(self, engine: Engine) -> list[str]:
        return [
            one.name
            for one in kept.list_kept(engine)
            if one.kind == "container" and self._is_meant(one) and one.state == "running"
        ]

    def _is_meant(self, one: kept.Kept) -> bool:
        """Whether it is the host's; that of settings has all that its instance type has had."""
        former = self._host.container
        return one.name == former if former else one.instance == self._settings.instance

    def _name(self, engine: Engine) -> str:
        """Return the name of the container that was made last of those that run."""
        names = self._running(engine)
        if not names:
            raise HostUnavailable(
                f"no container of {self._host.name} runs",
                hint="the next call starts one: its settings say which",
            )
        return names[-1]
