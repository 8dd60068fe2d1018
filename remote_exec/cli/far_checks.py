"""What `remote-exec doctor HOST` looks at: the way to a host, step by step, then what is there.

Each step finds out for itself what it can, so that the first that is wrong is the one to mend.
"""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import subprocess
import time
from functools import cached_property
from typing import Any

from ..backends.access import Access, access_to
from ..backends.host import Host
from ..backends.ssh import SshHost
from ..backends.ssh_access import SshAccess
from ..backends.ssh_session import NoPython
from ..config import load_config
from ..instances import InstanceType
from ..model.errors import ConfigurationError, HostUnavailable, RemoteExecError
from .checks import LEAST_FREE_BYTES, Check, Step, Wrong, carry_out
from .troubles import TROUBLES

CONNECT_SECONDS = 10.0
LOGIN_SECONDS = 60.0  # somebody may have to type a passphrase, or touch a key
MOST_SKEW_SECONDS = 60.0
CALLS = 20
_WORD = "remote-exec-doctor"


def examine_host(name: str) -> list[Check]:
    """Carry out the checks of a host.

    Args:
        name: its own, or an instance type's.
    """
    walk = _Walk(name)
    first = carry_out([Step("configuration", walk.configuration)])
    if walk.host is None:
        return first
    return first + carry_out(walk.steps())


class _Walk:
    """One examination; what one step finds is there for those that follow."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.host: Host | None = None
        self.instance: InstanceType | None = None
        self._unreached: RemoteExecError | None = None

    def steps(self) -> list[Step]:
        """Return the checks in the order in which one needs another."""
        way: list[Step] = []
        if isinstance(self.host, SshHost):
            way = [
                Step("ssh", self._ssh),
                Step("name", self._name, ("ssh",)),
                Step("port", self._port, ("name",)),
                Step("host key", self._host_key, ("port",)),
                Step("login", self._login, ("host key",)),
                Step("login shell", self._shell, ("login",)),
                Step("Python", self._python, ("login shell",)),
                Step("state directory", self._state_directory, ("Python",)),
                Step("disk", self._disk, ("state directory",)),
                Step("clock", self._clock, ("Python",)),
                Step("agent", self._agent, ("disk",)),
                Step("socket forwarding", self._forwarding, ("agent",)),
            ]
        else:
            way = [Step("agent", self._session)]
        there = [Step("uv", self._uv, ("agent", "socket forwarding"))]
        there.append(Step("GPUs", self._gpus, ("agent", "socket forwarding")))
        if self.instance is not None:
            there.append(Step("test call", self._call, ("agent", "socket forwarding")))
        return way + there

    def _wrong(self, trouble: str, found: str = "") -> Wrong:
        row = TROUBLES[trouble]
        names = {"name": self.name, "destination": "", "hostname": "", "home": ""}
        if isinstance(self.host, SshHost):
            names |= {"destination": self.host.destination}
            with contextlib.suppress(OSError, HostUnavailable, Wrong):
                names["hostname"] = self._configured.get("hostname", "")
                names["home"] = str(self.__dict__.get("_facts", {}).get("home", ""))
        text = f"{row.what}: {found}" if found else row.what
        return Wrong(text.replace("`", ""), fix=row.fix.format(**names).replace("`", ""))

    # --- on this machine ------------------------------------------------------------------------------------------

    def configuration(self) -> str:
        """Find out which host is meant."""
        from ..client.naming import host_named

        try:
            self.host = host_named(self.name)
        except ConfigurationError as error:
            if "there is no host" not in error.message:
                raise
            raise self._wrong("unknown", error.message) from None
        self.instance = load_config().instances.get(self.name)
        where = self.instance.source if self.instance is not None else "a host that was reached before"
        return f"{self.host.name}; {where}"

    def _ssh(self) -> str:
        try:
            told = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise self._wrong("no ssh") from None
        return told.stderr.strip()

    @cached_property
    def _configured(self) -> dict[str, str]:
        """What ssh makes of its configuration for the host."""
        told = subprocess.run(
            ["ssh", "-G", *self._ssh_host.options(), "--", self._ssh_host.destination],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if told.returncode:
            raise self._wrong("no ssh login", told.stderr.strip())
        words = [line.partition(" ") for line in told.stdout.splitlines()]
        return {word: value for word, _, value in words}

    @property
    def _ssh_host(self) -> SshHost:
        assert isinstance(self.host, SshHost)  # noqa: S101 - the steps of ssh are for no others
        return self.host

    @property
    def _access(self) -> Access:
        assert self.host is not None  # noqa: S101 - no step is taken else
        return access_to(self.host)

    @property
    def _proxy(self) -> str:
        """What the way leads through, if it is not straight."""
        for word in ("proxyjump", "proxycommand"):
            found = self._configured.get(word, "none")
            if found != "none":
                return found.split()[0]
        return ""

    # --- the way there --------------------------------------------------------------------------------------------

    def _name(self) -> str:
        hostname = self._configured["hostname"]
        if self._proxy:
            return f"{hostname}, known to {self._proxy}"
        try:
            found = socket.getaddrinfo(hostname, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise self._wrong("name", f"{hostname}: {error}") from None
        return f"{hostname} is {found[0][4][0]}"

    def _port(self) -> str:
        hostname, port = self._configured["hostname"], int(self._configured["port"])
        if self._proxy:
            return f"{port}, through {self._proxy}"
        where = f"{hostname} port {port}"
        try:
            with socket.create_connection((hostname, port), CONNECT_SECONDS) as sock:
                said = sock.recv(64)
        except ConnectionRefusedError:
            raise self._wrong("refused", where) from None
        except OSError as error:
            raise self._wrong("silent", f"{where}: {error}") from None
        if said and not said.startswith(b"SSH-"):
            raise self._wrong("stranger", f"{where} says {said[:20]!r}")
        return f"{port}, {said.decode('ascii', 'replace').strip() or 'it hangs up at once'}"

    @cached_property
    def _attempt(self) -> tuple[int, str, str]:
        """The exit status and the outputs of a command there; it opens the shared connection if that is not open."""
        try:
            return SshAccess(self._ssh_host).try_out(f"echo {_WORD}", seconds=LOGIN_SECONDS)
        except subprocess.TimeoutExpired:
            return -1, "", ""

    def _find_sign(self, *checks: str) -> None:
        """Raise what ssh has complained about, if it is one of these checks' business."""
        code, _, said = self._attempt
        for key, row in TROUBLES.items():
            if code and row.check in checks and any(sign in said for sign in row.signs):
                raise self._wrong(key, said.strip().splitlines()[-1].strip())

    def _host_key(self) -> str:
        self._find_sign("name", "port", "host key")  # of a jump host, those before
        return "as it is known"

    def _login(self) -> str:
        self._find_sign("login")
        code, _, said = self._attempt
        if code == 255:
            raise self._wrong("no ssh login", said.strip() or "it does not say why")
        return f"as {self._configured.get('user', '')}"

    def _shell(self) -> str:
        code, out, said = self._attempt
        lines = out.splitlines()
        if _WORD not in lines:
            last = (said.strip() or out.strip() or f"exit status {code}").splitlines()[-1]
            raise self._wrong("shell", "no end in a minute" if code == -1 else last)
        noise = len(lines) - 1
        return f"it prints {noise} lines of its own, which are passed over" if noise else "it runs commands"

    # --- what is there --------------------------------------------------------------------------------------------

    @cached_property
    def _facts(self) -> dict[str, Any]:
        begun = time.time()
        facts = self._access.look()
        return {**facts, "skew": facts["time"] - (begun + time.time()) / 2, "took": time.time() - begun}

    def _python(self) -> str:
        try:
            facts = self._facts
        except NoPython:
            try:
                self._session()  # has uv bring one
            except RemoteExecError as error:
                raise self._wrong("python", error.message) from None
            facts = self._facts
        return f"{facts['python']}, {facts['executable']}"

    def _state_directory(self) -> str:
        from ..agent.database import NETWORK_FILESYSTEMS, NETWORK_FUSE

        facts = self._facts
        if facts["writable"]:
            raise self._wrong("not writable", facts["writable"])
        if facts["filesystem"] in NETWORK_FILESYSTEMS or facts["filesystem"] in NETWORK_FUSE:
            raise self._wrong("network disk", f"{facts['home']} ({facts['filesystem']})")
        return f"{facts['home']}{'' if facts['there'] else ', not there yet'}"

    def _disk(self) -> str:
        free, files = self._facts["free_bytes"], self._facts["free_files"]
        if free < LEAST_FREE_BYTES or files == 0:
            raise self._wrong("full", f"{free / 1e9:.1f} GB are free at {self._facts['home']}")
        return f"{self._facts['filesystem'] or 'local'}, {free / 1e9:.0f} GB free"

    def _clock(self) -> str:
        skew, took = self._facts["skew"], self._facts["took"]
        if abs(skew) > MOST_SKEW_SECONDS + took:
            raise self._wrong("clock", f"{abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}")
        return "as here" if abs(skew) <= max(1.0, took) else f"{skew:+.0f} s"

    def _agent(self) -> str:
        try:
            return self._session()
        except RemoteExecError as error:
            pid = self._access.look()["agent"]
            if not pid:
                raise self._wrong("agent", error.message) from None
            self._unreached = error
            return f"process {pid}"

    def _session(self) -> str:
        from ..backends import runtime
        from ..client.connections import connections
        from ..version import VERSION

        begun = time.perf_counter()
        welcome = connections.session(self.host).welcome
        seconds = time.perf_counter() - begun
        found = f"process {welcome.pid}, version {welcome.version}, reached in {seconds * 1000:.0f} ms"
        if (welcome.version, welcome.runtime) != (VERSION, runtime.digest()):
            found += f"; this is {VERSION}, of another build: an older agent gives way when it is idle"
        return found

    def _forwarding(self) -> str:
        if self._unreached is not None:
            raise self._wrong("forwarding", self._unreached.message)
        way = self._ssh_host._state()
        if way is not None and way.tunnel:
            return "not allowed; a command there does as much for each process here, a little slower"
        return "the agent answers over it"

    def _ask(self, what: str, **arguments: Any) -> Any:
        from ..client.connections import connections

        return connections.session(self.host).ask(what, arguments)

    def _uv(self) -> str:
        from ..backends.uv import uv_for
        from ..model.errors import RuntimeEnvironmentError
        from ..model.platform import Platform
        from ..wire.messages import from_plain

        told = self._ask("tools", python="")
        if told["uv"]:
            return str(told["uv"])
        try:
            return (
                f"none yet; {uv_for(from_plain(Platform, told['platform'])).name} is sent when it is needed"
            )
        except RuntimeEnvironmentError as error:
            raise self._wrong("uv", error.message) from None

    def _gpus(self) -> str:
        found: list[str] = self._ask("host")["gpus"]
        if not found and "_facts" in self.__dict__ and self._facts["nvidia"]:
            raise self._wrong("driver")
        wanted = self.instance.shape.gpus if self.instance is not None else 0
        if len(found) < wanted:
            raise self._wrong("fewer GPUs", f"{len(found)} of {wanted}")
        return ", ".join(found) or "none"

    def _call(self) -> str:
        from ..function import RemoteFunction
        from ..options import Options, Origin

        function = RemoteFunction(os.getpid, Options.from_keywords(Origin.CALL, instance_type=self.name))
        times: list[float] = []
        for _ in range(CALLS + 1):
            begun = time.perf_counter()
            function()
            times.append(time.perf_counter() - begun)
        return f"first in {times[0] * 1000:.0f} ms, then {statistics.median(times[1:]) * 1e3:.1f} ms each"
