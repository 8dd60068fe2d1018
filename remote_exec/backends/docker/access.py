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

from ...model.errors import ConfigurationError, HostUnavailable, RemoteExecError
from .. import errand
from . import kept
from .container import STATE_DIRECTORY, Container
from .engine import Engine, open_engine
from .host import RUN_BOOT, DockerHost, _hear, _way
from .labels import PYTHON
from .streams import start_command

LOOK_SECONDS = 60.0
_SHELL = '[ -z "$1" ] || cd "$1" 2>/dev/null; shift; [ $# -eq 0 ] || exec "$@"; exec "${SHELL:-/bin/sh}" -l'


class DockerAccess:
    """See `access.Access`."""

    def __init__(self, host: DockerHost) -> None:
        self._host = host
        self._settings = host.settings

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
        for name in {one.name for one in kept.list_kept(engine) if one.instance == self._settings.instance}:
            kept.remove(engine, name)
        return []

    def close(self) -> None:
        """Do nothing: each process ends its own connections."""

    def forward(self, here: int, there: int) -> None:
        """Say that it cannot."""
        raise ConfigurationError(
            f"a port of the container of {self._host.name} cannot be forwarded",
            hint="with network_mode = \"host\" its ports are the engine's machine's",
        )

    def unforward(self, here: int, there: int) -> None:
        """Do nothing."""

    def _running(self, engine: Engine) -> list[str]:
        return [
            one.name
            for one in kept.list_kept(engine)
            if one.kind == "container" and one.instance == self._settings.instance and one.state == "running"
        ]

    def _name(self, engine: Engine) -> str:
        """Return the name of the container that was made last of those that run."""
        names = self._running(engine)
        if not names:
            raise HostUnavailable(
                f"no container of {self._host.name} runs",
                hint="the next call starts one: its settings say which",
            )
        return names[-1]
