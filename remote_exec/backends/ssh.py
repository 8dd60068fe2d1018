"""A machine with nothing but sshd on it, through the system's OpenSSH.

One master connection for each host, shared by all of the user's processes, so that keys, agents, hardware keys, jump
hosts and host-key checks are those of the user's own configuration. Over it the agent's unix socket is forwarded to
one in a private folder here; each connection to that is a channel of its own, with OpenSSH's flow control. What is
brought to the host, and how the agent is started there, is `boot`'s.

Whoever finds the way broken opens it anew; a file lock sees to it that one process does.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Generator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..model.digests import digest_of
from ..model.errors import HostUnavailable
from ..model.layout import Layout
from ..model.record import record
from ..wire.credentials import peer_uid
from ..wire.resume import ANSWER_SIZE, CONTROL, Opening
from ..worker.private import make_private_folder
from . import patience, progress
from .host import Greet
from .local import make_sure_of

if TYPE_CHECKING:
    from ..model.job import DeathCertificate
    from .tunnel import Tunnel

TRIES = 3  # how often an agent may give way to a newer client, or end in the moment of being reached
PERSIST_SECONDS = 600  # how long an unused master connection stays
ANSWER_SECONDS = 10.0
FIRST_NAP_SECONDS, LONGEST_NAP_SECONDS = 0.002, 0.05  # between looks whether another process is done
ALIVE_SECONDS, ALIVE_COUNT = 5, 3  # how soon a dead link is found


@record
class _Way:
    """How the agent of a host is reached, for all processes."""

    socket: str  # here, in the host's folder
    there: str  # where the agent listens
    python: str  # that runs it
    runtime: str  # its folder
    tunnel: bool  # the server forwards no sockets: each process has a command that does as much
    opened_at: float  # tells one that was opened anew from the one before


@record
class SshHost:
    """A host, as in the user's ssh configuration.

    Attributes:
        destination: its name there, or its address.
        user: empty: as configured, or the user's own name.
        port: 0: as configured.
        identity: the file of a key; empty: as configured.
        home: the state directory there; empty: the usual one.
    """

    destination: str
    user: str = ""
    port: int = 0
    identity: str = ""
    home: str = ""

    @property
    def name(self) -> str:
        """What lists and messages call it."""
        return self.destination

    @property
    def here(self) -> bool:
        """It is another machine, or is treated as one."""
        return False

    @property
    def folder(self) -> Path:
        """Where its sockets lie on this machine: short, private, the same for all of the user's processes."""
        told = "\0".join((self.destination, self.user, str(self.port), self.identity, self.home))
        digest = digest_of(told)[:8]
        return Layout.of(os.environ).sockets.parent / f"h{digest}"

    def reach(self, greet: Greet) -> socket.socket:
        """Return a greeted connection to the agent there; bring over what is lacking, and start it, if need be.

        Raises:
            HostUnavailable: ssh cannot reach it, or there is no Python, or the agent does not start.
        """
        for attempt in range(TRIES):
            before = self._state()
            sock = self._dial(before)
            if sock is not None:
                if greet(sock):
                    return sock
                sock.close()
            if patience.is_over():
                raise patience.given_up(self.name)
            if attempt < TRIES - 1:
                self._open_way(before)
        raise HostUnavailable(
            f"the agent on {self.name} cannot be reached over ssh: {self._last_words()}",
            hint=f"try: ssh {self.destination} true; then: remote-exec doctor {self.name}",
        )

    def how_lost(self, since: float) -> DeathCertificate | None:
        """Nothing is known: ssh does not tell."""
        return None

    def connect(self) -> socket.socket:
        """Return one more connection to the same agent.

        Raises:
            HostUnavailable: ssh cannot reach it.
        """
        before = self._state()
        sock = self._dial(before)
        if sock is None:
            self._open_way(before)
            sock = self.dial()
        if sock is None:
            raise HostUnavailable(
                f"the way to {self.name} is broken", hint=f"try: ssh {self.destination} true"
            )
        return sock

    def dial(self) -> socket.socket | None:
        """Return one more connection to the agent by the way that is open now; None if there is none."""
        return self._dial(self._state())

    def options(self) -> list[str]:
        """Return the options of all ssh commands for it: the shared master connection, and nothing interactive."""
        told = {
            "ControlMaster": "auto",
            "ControlPath": self.folder / "m",
            "ControlPersist": PERSIST_SECONDS,
            "ServerAliveInterval": ALIVE_SECONDS,
            "ServerAliveCountMax": ALIVE_COUNT,
            "StreamLocalBindMask": "0177",
            "StreamLocalBindUnlink": "yes",
            "RemoteCommand": "none",
            "RequestTTY": "no",
        }
        options = [part for name, value in told.items() for part in ("-o", f"{name}={value}")]
        if self.user:
            options += ["-l", self.user]
        if self.port:
            options += ["-p", str(self.port)]
        if self.identity:
            options += ["-i", self.identity]
        return options

    # --- the way there ----------------------------------------------------------------------------------------

    def _state(self) -> _Way | None:
        """Return the way to the agent that was written down last, if there is one."""
        try:
            told = json.loads((self.folder / "agent").read_text())
            return _Way(**told)
        except (OSError, ValueError, TypeError):
            return None

    def _dial(self, way: _Way | None) -> socket.socket | None:
        if way is None:
            return None
        if way.tunnel:
            return self._tunnel(way).connect()
        folder = self.folder
        make_sure_of(folder)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(str(folder / way.socket))
            if peer_uid(sock) == os.getuid():
                return sock
        except OSError:
            pass
        sock.close()
        return None

    def _open_way(self, before: _Way | None) -> None:
        """Have the agent there, and a socket here that leads to it, unless another process has seen to it since."""
        with self._alone() as lock:
            if self._state() != before:
                return
            log = self.folder / "log"
            log.write_bytes(b"")
            from .ssh_session import Session  # most processes find the way open

            def answered() -> None:
                patience.answered()
                os.pwrite(lock, b"answered", 0)

            with Session(self.options(), self.destination, self.name, log, on_answer=answered) as session:
                answer = session.boot(self.home)
                name = f"a{digest_of(answer.socket)[:8]}"
                session.forward(self.folder / name, answer.socket)
            way = _Way(
                socket=name,
                there=answer.socket,
                python=answer.executable,
                runtime=answer.runtime,
                tunnel=not _leads_to_an_agent(self.folder / name),
                opened_at=time.time(),
            )
            temporary = self.folder / "agent.new"
            temporary.write_text(json.dumps(asdict(way)))
            temporary.replace(self.folder / "agent")

    def _tunnel(self, way: _Way) -> Tunnel:
        """Return this process's tunnel to a host that forwards no sockets."""
        from .ssh_tunnel import open_tunnel

        return open_tunnel(
            self, ["ssh", *self.options(), "--", self.destination], way.python, way.runtime, way.there
        )

    def _last_words(self) -> str:
        from .ssh_session import last_words

        said = last_words(self.folder / "log").splitlines()
        return said[-1] if said else "it hangs up"

    @contextlib.contextmanager
    def _alone(self) -> Generator[int]:
        for folder in (self.folder.parent, self.folder):
            make_private_folder(folder)
            make_sure_of(folder)
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._wait_for(lock)
            os.ftruncate(lock, 0)
            yield lock
        finally:
            os.close(lock)

    def _wait_for(self, lock: int) -> None:
        """Have the host to oneself. Who has it notes in the file that the host has answered: that is waited for."""
        nap, meanwhile = FIRST_NAP_SECONDS, f"another process is connecting to {self.name}"
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            if patience.is_over() and not os.fstat(lock).st_size:
                raise patience.given_up(self.name, meanwhile=meanwhile)
            progress.tell(meanwhile)
            time.sleep(nap)
            nap = min(2 * nap, LONGEST_NAP_SECONDS)


def ssh_hosts(settings: Mapping[str, Any]) -> list[SshHost]:
    """Return the hosts of an instance type, as its table in the configuration has them."""
    common = {name: settings[name] for name in ("user", "port", "home") if settings.get(name)}
    identity = str(settings.get("identity") or "")
    names = settings.get("hosts") or [settings["host"]]
    return [SshHost(name, identity=identity, **common) for name in names]


def _leads_to_an_agent(path: Path) -> bool:
    """Whether a forwarded socket does what it should: a server that forwards none lets it hang up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(ANSWER_SECONDS)
        try:
            sock.connect(str(path))
            sock.sendall(Opening(CONTROL, "nobody").pack())
            return bool(sock.recv(ANSWER_SIZE))  # that there is no such client
        except OSError:
            return False
