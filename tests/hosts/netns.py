"""Hosts in network namespaces: a switch that joins them with this machine, and links to be cut, slowed and filtered.

    this machine ── switch namespace (a bridge) ──┬── host namespace
                                                  └── host namespace

The bridge has a namespace of its own, so that no rule of this machine's (Docker's, say) is in its way, and removing
the namespaces removes all. Names begin with the process id of their owner: what a killed one left is removed by the
next.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import random
import re
import shutil
import signal
import subprocess
from collections.abc import Generator
from pathlib import Path
from types import TracebackType

NEEDED = {"ip": "iproute2", "tc": "iproute2", "iptables": "iptables"}
SBIN = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
NAME = re.compile(r"re(\d+)-\d+[sn]\d*")
NETWORKS = [f"198.{second}.{third}" for second in (18, 19) for third in range(256)]  # for tests, by RFC 2544
LOCK = Path("/run/lock/remote_exec-tests-netns")
BURST = "64kb"
QUEUE_MILLISECONDS = 50
COUNTED = itertools.count(1)


class NetworkError(Exception):
    """Namespaces cannot be made here; the text says why."""


class Network:
    """A switch, and hosts at it. A context manager: when it is left, nothing of it is.

    Raises:
        NetworkError: not root, no `ip`, or the kernel refuses.

    Example:
        >>> with Network() as network:
        ...     host = network.add()
        ...     with SshServer(folder, key, address=host.address, port=22, prefix=host.prefix) as server:
        ...         host.link_down()
    """

    def __init__(self) -> None:
        self.hosts: list[NetworkHost] = []
        self._name = f"re{os.getpid()}-{next(COUNTED)}"
        self._switch = f"{self._name}s"
        self._address = ""

    def __enter__(self) -> Network:
        if os.getuid() != 0:
            raise NetworkError("only root makes network namespaces")
        for command, package in NEEDED.items():
            if shutil.which(command, path=SBIN) is None:
                raise NetworkError(f"no `{command}` here: apt-get install {package}")
        remove_stale()
        try:
            self._make()
        except subprocess.CalledProcessError as error:
            self.close()
            raise NetworkError(f"{' '.join(error.cmd)}: {error.stderr.strip()}") from error
        except BaseException:
            self.close()
            raise
        return self

    def _make(self) -> None:
        run("ip", "netns", "add", self._switch)
        run("ip", "-n", self._switch, "link", "add", "bridge", "type", "bridge", "forward_delay", "0")
        run("ip", "-n", self._switch, "link", "set", "bridge", "up")
        run(
            "ip",
            "link",
            "add",
            self._name + "h",
            "type",
            "veth",
            "peer",
            "name",
            "port0",
            "netns",
            self._switch,
        )
        run("ip", "-n", self._switch, "link", "set", "port0", "master", "bridge", "up")
        with _lock():  # two processes must not choose the same network
            used = run("ip", "-o", "-4", "addr")
            self._address = random.choice([one for one in NETWORKS if f" {one}." not in used])
            run("ip", "addr", "add", f"{self._address}.1/24", "dev", self._name + "h")
        run("ip", "link", "set", self._name + "h", "up")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def address(self) -> str:
        """This machine's own address, as the hosts reach it."""
        return f"{self._address}.1"

    def add(self) -> NetworkHost:
        """Return one more host: it and all others, and this machine, reach each other."""
        number = len(self.hosts) + 1
        host = NetworkHost(
            f"{self._name}n{number}", self._switch, f"port{number}", f"{self._address}.{number + 1}"
        )
        self.hosts.append(host)
        host.make()
        return host

    def close(self) -> None:
        """Kill what runs in its namespaces, and remove them."""
        for name in [*(host.name for host in self.hosts), self._switch]:
            _remove(name)
        self.hosts.clear()


class NetworkHost:
    """A namespace with one interface, made by `Network.add`.

    What is done to its link is done to all its connections, those to other hosts too, and undone by the counterpart.
    """

    def __init__(self, name: str, switch: str, port: str, address: str) -> None:
        self.name = name
        self.address = address
        self._switch = switch
        self._port = port

    def make(self) -> None:
        """Make the namespace, its interface and its rules."""
        run("ip", "netns", "add", self.name)
        run(
            "ip",
            "-n",
            self._switch,
            "link",
            "add",
            self._port,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            self.name,
        )
        run("ip", "-n", self._switch, "link", "set", self._port, "master", "bridge", "up")
        for device in ("lo", "eth0"):
            run("ip", "-n", self.name, "link", "set", device, "up")
        run("ip", "-n", self.name, "addr", "add", f"{self.address}/24", "dev", "eth0")

    @property
    def prefix(self) -> list[str]:
        """The start of a command that is to run there."""
        return [_which("ip"), "netns", "exec", self.name]

    def run(self, *command: str) -> str:
        """Run a command there, and return what it printed."""
        return run(*self.prefix, *command)

    # --- what can be done to its link ---

    def link_down(self) -> None:
        """Pull the cable: connections hear nothing, and go on when it is back within their patience."""
        run("ip", "-n", self._switch, "link", "set", self._port, "down")

    def link_up(self) -> None:
        """Put the cable back."""
        run("ip", "-n", self._switch, "link", "set", self._port, "up")

    def rate(self, bits_per_second: float) -> None:
        """Let no more than this through, each way; 0 for no limit."""
        for namespace, device in ((self._switch, self._port), (self.name, "eth0")):
            shape = ["tc", "-n", namespace, "qdisc"]
            if bits_per_second:
                limits = [
                    "rate",
                    f"{bits_per_second:.0f}bit",
                    "burst",
                    BURST,
                    "latency",
                    f"{QUEUE_MILLISECONDS}ms",
                ]
                run(*shape, "replace", "dev", device, "root", "tbf", *limits)
            else:
                with contextlib.suppress(subprocess.CalledProcessError):  # it has none
                    run(*shape, "del", "dev", device, "root")

    def drop(self) -> None:
        """Drop each packet, both ways, as a firewall that has changed its mind; until `heal`."""
        self._filter("DROP")

    def reset(self) -> None:
        """Answer each packet of TCP with a reset, to whoever sent it; until `heal`."""
        self._filter("REJECT", "--reject-with", "tcp-reset")
        self.run("iptables", "-w", "-I", "OUTPUT", "-p", "tcp", "--tcp-flags", "RST", "RST", "-j", "ACCEPT")

    def heal(self) -> None:
        """Let all pass again that `drop` or `reset` held up."""
        self.run("iptables", "-w", "-F")

    def _filter(self, *target: str) -> None:
        self.heal()
        for chain, direction in (("INPUT", "-i"), ("OUTPUT", "-o")):
            self.run("iptables", "-w", "-A", chain, direction, "eth0", "-p", "tcp", "-j", *target)


def remove_stale() -> None:
    """Remove what processes that are no more have left."""
    for line in run("ip", "netns", "list").splitlines():
        name = line.split(" ", 1)[0]
        if (match := NAME.fullmatch(name)) and not Path("/proc", match[1]).exists():
            _remove(name)


def run(*command: str) -> str:
    """Run a command of this machine's, and return what it printed; raises CalledProcessError with what it said."""
    done = subprocess.run(
        [_which(command[0]), *command[1:]],
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout


def _remove(name: str) -> None:
    with contextlib.suppress(subprocess.CalledProcessError):  # there is none
        for pid in run("ip", "netns", "pids", name).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        run("ip", "netns", "del", name)
    if name.endswith("s"):  # the kernel would remove its other end, this machine's, by and by
        with contextlib.suppress(subprocess.CalledProcessError):
            run("ip", "link", "del", f"{name[:-1]}h")


def _which(command: str) -> str:
    return shutil.which(command, path=SBIN) or command


@contextlib.contextmanager
def _lock() -> Generator[None]:
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
