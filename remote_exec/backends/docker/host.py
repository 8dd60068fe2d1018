"""A container as a host: made or found, an agent brought up in it, and a way to that.

The way is the agent's own socket where this machine can have it (`direct`), else a tunnel by docker's `exec`, one for
each process and container. A tunnel is opened at a guess where the container runs already: mostly the agent does, too.
If not, `boot` brings over what is lacking, and starts it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from typing import Any

from ...model.errors import ConfigurationError, HostUnavailable
from ...model.job import DeathCertificate
from ...model.record import record
from .. import boot, bringing, runtime
from ..host import Greet
from ..patience import answered
from ..pipes import Exec
from ..progress import tell
from ..tunnel import Tunnel
from .container import SOCKETS, STATE_DIRECTORY, Container, describe_end, open_container, reopen_container
from .direct import connect
from .engine import Engine, EngineError, open_engine
from .images import Progress
from .settings import ContainerSettings
from .streams import Command, open_stream, start_command

TRIES = 3  # how often an agent may give way to a newer client, or end in the moment of being reached
NAP_SECONDS = 0.3
BOOT_SECONDS = 60.0  # from one answer to the next
RUN_BOOT = "import sys; exec(sys.stdin.buffer.read(int(sys.argv[1])))"


class TunnelEnded(HostUnavailable):
    """The tunnel into a container has ended; the container may live."""


class BootEnded(HostUnavailable):
    """What was to bring an agent up was killed: most often the container has just ended, and the engine knows soon."""


@record
class DockerHost:
    """The container of some settings.

    Attributes:
        settings: what is asked of it.
        container: the name of a former one of theirs, to be reached and never made; empty: the one that they have now.
    """

    settings: ContainerSettings
    container: str = ""

    @property
    def name(self) -> str:
        """What lists and messages call it."""
        if self.container:
            return self.container
        return (
            f"{self.settings.instance}.{self.settings.node}" if self.settings.node else self.settings.instance
        )

    @property
    def here(self) -> bool:
        """It is treated as another machine, wherever its engine is."""
        return False

    def reach(self, greet: Greet) -> socket.socket:
        """Return a greeted connection to the agent in the container; both are brought up if need be.

        Raises:
            ConfigurationError: the settings are wrong, or the ``docker`` package is missing.
            HostUnavailable: there is no engine, image, Python or agent to be had.
            ResourceLimitExceeded: the engine has no GPUs to give.
            RuntimeEnvironmentError: the image could not be built.
        """
        answered()  # the engine is there, and to bring an image takes what it takes
        way = _way(self)
        with way.lock:
            for attempt in range(TRIES):
                try:
                    sock = way.open(boot_anyway=attempt > 0)
                except EngineError as error:
                    if error.status not in (404, 409):  # the container has just ended
                        raise
                    continue
                except TunnelEnded:
                    continue
                except BootEnded:
                    if attempt == TRIES - 1:
                        raise
                    time.sleep(NAP_SECONDS)
                    continue
                if _greeted(sock, greet):
                    return sock
        raise HostUnavailable(
            f"the agent in the container of {self.name} cannot be reached: {way.why_not()}",
            hint=f"docker logs {way.container.name if way.container else ''}".strip(),
        )

    def how_lost(self, since: float) -> DeathCertificate | None:
        """Return how its container ended, if this process has seen that and started it again."""
        lost = _way(self).lost
        return lost[1] if lost is not None and lost[0] >= since else None

    def connect(self) -> socket.socket:
        """Return one more connection to the same agent.

        Raises:
            HostUnavailable: the container or the agent in it is gone.
        """
        return _way(self).connect()


def address_of(host: DockerHost) -> str:
    """Return the address at which the containers of a group's other nodes reach that of a host which was reached.

    Raises:
        ConfigurationError: their network is none.
        HostUnavailable: the container is gone.
    """
    network = host.settings.network
    if network == "host":
        return "127.0.0.1"
    container = _way(host).container
    found = container and open_engine(host.settings.engine).inspect("container", container.id)
    if not found:
        raise HostUnavailable(f"the container of {host.name} is gone")
    networks: dict[str, dict[str, Any]] = found["NetworkSettings"]["Networks"]
    address = next((one["IPAddress"] for one in networks.values() if one["IPAddress"]), "")
    if not address:
        raise ConfigurationError(
            f"the containers of {host.settings.instance!r} have the network {network or 'of the engine'!r}, on which "
            "they do not reach each other, and a group's nodes have to",
            option="network_mode",
            hint="leave network_mode out, or name a bridge network of the engine's, or set instance_count=1: "
            "nproc_per_node is how many processes one container runs",
        )
    return str(address)


def _greeted(sock: socket.socket, greet: Greet) -> bool:
    """Greet over a connection, and close it unless that came to something."""
    greeted = False
    try:
        greeted = greet(sock)
    finally:
        if not greeted:
            sock.close()
    return greeted


class _Way:
    """The way of this process to one container; whoever opens it holds the lock."""

    def __init__(self, host: DockerHost) -> None:
        self.lock = threading.RLock()
        self.container: Container | None = None
        self.lost: tuple[float, DeathCertificate] | None = None  # when that was seen, and how
        self.settings = host.settings
        self._former = host.container
        self._engine: Engine | None = None
        self._tunnel: Tunnel | None = None

    def open(self, *, boot_anyway: bool) -> socket.socket:
        """Return a connection, over a way that is opened if there is none.

        Args:
            boot_anyway: have an agent brought up, whatever seems to be there.
        """
        if not boot_anyway:
            with contextlib.suppress(TunnelEnded):
                return self.connect()
        engine = self._engine = open_engine(self.settings.engine)
        if self._former:
            container = self.container = reopen_container(engine, self._former)
        else:
            container = self.container = open_container(engine, self.settings, _tell)
        if container.ended is not None:
            self.lost = time.monotonic(), container.ended
        sock = None if boot_anyway or container.is_fresh else self._connect_directly()
        if sock is None and (boot_anyway or container.is_fresh or container.sockets is not None):
            _boot(engine, container)
            sock = self._connect_directly()
        if sock is not None:
            return sock
        if self._tunnel is None or self._tunnel.ended:
            argv = bringing.relay(container.python, runtime_folder(), f"{SOCKETS}/agent")
            self._tunnel = Tunnel(Exec(open_stream(engine, container.id, argv)), on_end=_take_note)
        return self.connect()

    def connect(self) -> socket.socket:
        """Return a connection over the way that there is, the short one before the tunnel."""
        sock = self._connect_directly()
        if sock is not None:
            return sock
        tunnel = self._tunnel
        if tunnel is None or tunnel.ended:
            raise TunnelEnded(
                f"the way into the container of {self.settings.instance} is gone: {self.why_not()}",
                hint="call again: it will be opened anew",
            )
        try:
            return tunnel.connect()
        except HostUnavailable as error:  # it has ended in this moment, or is full
            raise TunnelEnded(error.message) from error

    def _connect_directly(self) -> socket.socket | None:
        return connect(self.container.sockets) if self.container is not None else None

    def why_not(self) -> str:
        """Return in words what became of tunnel and container."""
        told: list[str] = []
        if self._engine is not None and self.container is not None:
            with contextlib.suppress(HostUnavailable):
                found = self._engine.inspect("container", self.container.id)
                if found is None or found["State"]["Status"] != "running":
                    told.append(describe_end(found))
        if self._tunnel is not None:
            told += [text for text in (self._tunnel.ended, self._tunnel.refusal) if text]
        return "; ".join(told) or "it does not answer"

    def close(self) -> None:
        """End the tunnel; the container stays."""
        if self._tunnel is not None:
            self._tunnel.close()


def runtime_folder() -> str:
    """Return where the runtime lies in a container, once `boot` has run there."""
    return f"{STATE_DIRECTORY}/cache/runtimes-v1/{runtime.digest()}"


def _boot(engine: Engine, container: Container) -> None:
    """Have the runtime and a running agent in a container."""
    text, asked = bringing.program(), bringing.wishes(STATE_DIRECTORY)
    argv = [container.python, "-I", "-S", "-c", RUN_BOOT, str(len(text))]
    with start_command(engine, container.id, argv) as command:
        command.set_timeout(BOOT_SECONDS)
        try:
            command.write(text + json.dumps(asked).encode() + b"\n")
            facts = _hear(command, container)
            if not facts["there"]:
                command.write(bringing.archive(facts["magic"]))
            _hear(command, container)
        except OSError as error:
            if isinstance(error, HostUnavailable):
                raise
            lost = HostUnavailable if isinstance(error, TimeoutError) else BootEnded
            raise lost(
                f"the container {container.name} was lost while an agent was brought up: {error}",
                hint=f"docker logs {container.name}",
            ) from error


def _hear(command: Command, container: Container) -> dict[str, Any]:
    """Return the facts of the next answer of `boot`."""
    heard = b""
    while not heard.endswith(b"\n") or boot.MARK.encode() not in heard:
        piece = command.read(1)
        if not piece:
            said = command.errors.decode(errors="replace").strip().splitlines()
            ended = HostUnavailable if said else BootEnded
            raise ended(
                f"the agent in the container {container.name} cannot be started: "
                f"{said[-1] if said else 'its Python ended without a word'}",
                hint=f"docker exec {container.name} {container.python} -V",
            )
        heard += piece
    facts: dict[str, Any] = json.loads(heard.rpartition(boot.MARK.encode())[2])
    if "error" in facts:
        raise HostUnavailable(f"in the container {container.name}: {facts['error']}")
    return facts


# --- of this process ---

_ways: dict[DockerHost, _Way] = {}
_lock = threading.Lock()


def _way(host: DockerHost) -> _Way:
    with _lock:
        way = _ways.setdefault(host, _Way(host))
        if host.settings.is_whole:
            way.settings = host.settings  # equal, but one from the inventory may lack what is secret
        return way


def close_ways() -> None:
    """End this process's tunnels into containers; the next call opens them anew."""
    with _lock:
        ways = list(_ways.values())
        _ways.clear()
    for way in ways:
        way.close()


def _tell(progress: Progress) -> None:
    """Have whoever waits for the container hear how far a pull or a build is."""
    total = progress.total_bytes
    tell(
        f"{progress.text}: {progress.done_bytes / 1e6:,.0f} of {total / 1e6:,.0f} MB"
        if total
        else progress.text
    )


def _take_note(_reason: str) -> None:
    """The connections have ended with their tunnel; whoever had one tells why, by `HostUnavailable`."""


def _in_child() -> None:
    global _lock
    _lock = threading.Lock()
    _ways.clear()  # their tunnels have let go of the parent's connections by themselves


os.register_at_fork(after_in_child=_in_child)
