"""A shell, forwarded ports, stopping and removing over ssh: all over the master connection that calls use."""

from __future__ import annotations

import shlex
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..model.errors import HostUnavailable
from . import errand
from .host import Host
from .ssh import SshHost
from .ssh_session import Session, explain
from .ssh_tunnel import close_tunnel

LOGIN_SECONDS = 120.0  # somebody may have to type a passphrase, or touch a key
# No single quote, backslash or exclamation mark may stand in it: it passes through whatever login shell there is.
_SHELL = '[ -z "$1" ] || cd "$1" 2>/dev/null; shift; [ $# -eq 0 ] || exec "$@"; exec "${SHELL:-/bin/sh}" -l'


class SshAccess:
    """See `access.Access`."""

    def __init__(self, host: SshHost) -> None:
        self._host = host

    def is_there(self) -> bool:
        """Whether it can be asked: that is found out by asking."""
        return True

    def former(self) -> list[Host]:
        """Return nothing: a machine stays what it is."""
        return []

    def dial(self) -> socket.socket | None:
        """Return a connection by the way that is open now."""
        return self._host.dial() if self.is_open() else None

    def is_open(self) -> bool:
        """Whether the shared connection is there."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            return not sock.connect_ex(str(self._host.folder / "m"))

    def try_out(self, command: str, *, seconds: float) -> tuple[int, str, str]:
        """Run a command there; return its exit status (255: ssh's own), and what it and ssh have printed.

        It opens the shared connection if that is not there.

        Raises:
            subprocess.TimeoutExpired: it takes longer.
        """
        log = self._host.folder / "log"
        with self._host._alone(), open(log, "ab") as said, tempfile.TemporaryFile() as out:
            before = said.tell()
            argv = [*self._ssh(), command]
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=said, timeout=seconds, check=False
            )  # pipes would be held open by the shared connection
            out.seek(0)
            return (
                done.returncode,
                out.read().decode(errors="replace"),
                log.read_bytes()[before:].decode(errors="replace"),
            )

    def shell(self, words: Sequence[str], *, folder: str, terminal: bool) -> list[str]:
        """Return the ssh command that runs one there."""
        if not self.is_open():  # what the connection has to say later on is not for this terminal
            code, _, said = self.try_out("true", seconds=LOGIN_SECONDS)
            if code == 255:
                raise explain(said, code, name=self._host.name, destination=self._host.destination)
        told = shlex.join(("sh", folder, *words))
        return [*self._ssh(*(["-t"] if terminal else [])), f"exec sh -c '{_SHELL}' {told}"]

    def look(self) -> dict[str, Any]:
        """Return what the host tells of itself."""
        return self._run("look")

    def stop(self) -> bool:
        """End the agent there."""
        return bool(self._run("stop")["agent"])

    def remove(self) -> list[str]:
        """End the agent, and remove the state directory."""
        return list(self._run("remove")["left"])

    def close(self) -> None:
        """End the master connection, and remove the folder of its sockets."""
        close_tunnel(self._host)
        if self._host.folder.is_dir():
            self._control("-O", "exit")
            shutil.rmtree(self._host.folder, ignore_errors=True)

    def forward(self, here: int, there: int) -> None:
        """Have a port of this machine lead to one of the host's; nothing is done twice by the master connection."""
        done = self._control("-O", "forward", "-L", f"127.0.0.1:{here}:localhost:{there}")
        if done.returncode:
            lines = done.stderr.decode(errors="replace").split("\n")
            raise HostUnavailable(
                f"port {here} of this machine cannot be forwarded to {self._host.name}: {lines[0].strip()}",
                hint="its master connection may be another program's; see: ssh -O check",
            )

    def unforward(self, here: int, there: int) -> None:
        """End what `forward` began."""
        self._control("-O", "cancel", "-L", f"127.0.0.1:{here}:localhost:{there}")

    def address(self) -> str:
        """Return the address or the name by which ssh reaches the host, or its jump host does.

        Raises:
            HostUnavailable: ssh cannot tell.
        """
        done = self._control("-G")
        for line in done.stdout.decode(errors="replace").splitlines():
            word, _, value = line.partition(" ")
            if word == "hostname":
                return value
        raise explain(
            done.stderr.decode(errors="replace"),
            done.returncode,
            name=self._host.name,
            destination=self._host.destination,
        )

    def _run(self, do: str) -> dict[str, Any]:
        host = self._host
        session = Session(host.options(), host.destination, host.name, host.folder / "log")
        with host._alone(), session:  # nobody starts an agent meanwhile
            if not self.is_open():
                (host.folder / "log").write_bytes(b"")
            return session.run(Path(errand.__file__).read_bytes(), {"do": do, "home": host.home})

    def _control(self, *command: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(self._ssh(*command), stdin=subprocess.DEVNULL, capture_output=True, check=False)

    def _ssh(self, *first: str) -> list[str]:
        return ["ssh", *first, *self._host.options(), "--", self._host.destination]
