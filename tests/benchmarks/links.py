"""Hosts behind ssh, beside the tools that one has without us: an echo over the same stream, scp, ssh, uv.

A real sshd of the benchmark's own. Delay is a proxy's (`tests.hosts.link`), the slow link a network namespace's, whose
queue lets 100 Mbit/s through. `ssh` and `scp` go over the master connection that calls use, unless it says otherwise.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

from remote_exec import RemoteFunction, remote
from remote_exec.backends.ssh import SshHost
from remote_exec.backends.ssh_access import SshAccess
from remote_exec.client.connections import connections
from remote_exec.errors import HostUnavailable

from ..hosts.letting_go import let_go
from ..hosts.link import Link
from ..hosts.netns import Network, NetworkError
from ..hosts.sshd import SERVER, SshClient, SshServer
from ..wheels import make_wheel
from .far_work import noise, numbers, prepare, size_of
from .harness import Bench, Sample, calls_timed, interleave, measured, run_python, seconds, timed, timer

DELAYS = (0.0, 0.005, 0.05)  # each way
SLOW_BITS_PER_SECOND = 100e6
FILE_BYTES = 1000
WHEELS = ("apple", "pear", "plum")
ECHO = """\
import socket, sys, threading
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("ready", flush=True)
def echo(sock):
    while data := sock.recv(1 << 16):
        sock.sendall(data)
while True:
    threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()
"""
ONE_CALL = """\
import json, sys, time
from remote_exec import remote
function = remote(instance_type=sys.argv[1], **json.loads(sys.argv[2]))(lambda: 42)
started = time.perf_counter()
assert function() == 42
print(time.perf_counter() - started)
"""

Times = Callable[[], float]


def links(bench: Bench) -> None:
    """Calls and first calls over ssh, at 0, 5 and 50 ms of delay each way."""
    if SERVER is None:
        bench.missing.add("sshd")
        return
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab(bench).open())
        for delay in DELAYS:
            name = lab.delayed(delay) if delay else "near"
            _warm_calls(bench, lab, name, delay)
            if delay:
                lab.leave(name)
        _edited(bench, lab)
        _first_calls(bench, lab)
        _environment(bench, lab)


def bulk(bench: Bench) -> None:
    """Data over ssh, at full speed and at 100 Mbit/s."""
    if SERVER is None:
        bench.missing.add("sshd")
        return
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab(bench).open())
        _bulk(
            bench, lab, "near", "at full speed", megabytes=32 if bench.quick else 256, rounds=bench.rounds(5)
        )
        try:
            network = stack.enter_context(Network())
        except NetworkError as error:
            bench.missing.add(f"network namespaces: {error}")
            return
        place = network.add()
        server = lab.server("slow", address=place.address, port=22, prefix=place.prefix)
        lab.add("slow", server)
        stack.callback(lab.end, "slow")  # before its network does
        remote(instance_type="slow")(prepare)(0)  # before it is slow
        place.rate(SLOW_BITS_PER_SECOND)
        _bulk(bench, lab, "slow", "at 100 Mbit/s", megabytes=16 if bench.quick else 256, rounds=1)


class Lab:
    """The user's ssh, a server, instance types for it, and a folder with them as the current one."""

    def __init__(self, bench: Bench) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="l-", dir=bench.folder))  # short: sockets lie below
        self.client = SshClient(self.folder / "c")
        self._names: list[str] = []
        self._stack = contextlib.ExitStack()

    @contextlib.contextmanager
    def open(self) -> Generator[Lab]:
        before, path = Path.cwd(), os.environ["PATH"]
        os.chdir(self.folder)
        os.environ["PATH"] = self.client.environ()["PATH"]
        try:
            with self._stack:
                self.near = self.server("near")
                self.add("near", self.near)
                yield self
                for name in list(self._names):
                    self.end(name)
        finally:
            os.chdir(before)
            os.environ["PATH"] = path
            shutil.rmtree(self.folder, ignore_errors=True)

    def server(self, name: str, **settings: Any) -> SshServer:
        return self._stack.enter_context(SshServer(self.folder / name[0], self.client.public_key, **settings))

    def delayed(self, seconds: float) -> str:
        """Return an instance type whose link has a delay, each way."""
        name = f"d{seconds * 1e3:g}"
        link = self._stack.enter_context(Link(self.near.address, self.near.port, delay_seconds=seconds))
        self.client.add(name, self.near, via=link)
        self._configure(name)
        return name

    def add(self, name: str, server: SshServer) -> None:
        self.client.add(name, server)
        self._configure(name)

    def end(self, name: str) -> None:
        """Stop the agent there."""
        self._names.remove(name)
        with contextlib.suppress(HostUnavailable):
            let_go(name)

    def leave(self, name: str) -> None:
        """Close one way to a host that has others."""
        host = SshHost(name)
        for (there, _), dispatcher in list(connections._dispatchers.items()):
            if there == host:
                connections.drop(dispatcher)
        connections._sessions.pop(host).close()
        SshAccess(host).close()
        self._names.remove(name)

    def _configure(self, name: str) -> None:
        with open(self.folder / "pyproject.toml", "a") as file:
            file.write(f'[tool.remote_exec.instances.{name}]\nbackend = "ssh"\nhost = "{name}"\n')
        self._names.append(name)

    def shared(self, name: str, command: str, *more: str) -> list[str]:
        """Return a command of OpenSSH's over the master connection that calls use."""
        return [command, *SshHost(name).options(), *more]


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)


def _identity(**options: Any) -> RemoteFunction[[Any], Any]:
    @remote(**options)
    def identity(x: Any) -> Any:
        return x

    return identity


# --- calls --------------------------------------------------------------------------------------------------------


def _warm_calls(bench: Bench, lab: Lab, name: str, delay: float) -> None:
    ours, here = _identity(instance_type=name), _identity()
    ours(0), here(0)
    with _echo(lab, name) as echo, _cat(lab, name) as cat:
        sides: dict[str, Callable[[int], Any]] = {"ours": ours, "echo": echo, "cat": cat, "here": here}
        for side in sides.values():
            calls_timed(side, calls=50, at_most_seconds=0.5)
        rounds = {name: _round(side) for name, side in sides.items()}
        if delay:
            rounds["here, paused"] = _round_with_pauses(here, 2 * delay)
        times = interleave(bench.rounds(2 if delay > 0.01 else 6), rounds)
    found = {name: Sample.of([time for times in each for time in times]) for name, each in times.items()}
    mine, most = found["ours"], found["echo"].median + 1.5 * found["here"].median
    told = f"{seconds(most)}: echo {found['echo']} + 1.5 x local call {seconds(found['here'].median)}"
    what = f"warm call over ssh, {delay * 1e3:g} ms each way"
    bench.compared(f"{what}: median", (mine.median, str(mine)), (most, told), limit=1.0)
    bench.beside(f"{what}, for comparison", mine, found["cat"], name="round trip of ssh host cat")
    if delay:
        bench.figure(
            f"{what}: beyond the echo",
            seconds(mine.median - found["echo"].median),
            peer=f"a local call after as long a pause {found['here, paused']}",
        )


def _round(call: Callable[[int], Any]) -> Callable[[], list[float]]:
    return lambda: calls_timed(call, calls=200, at_most_seconds=0.4)


def _round_with_pauses(call: Callable[[int], Any], pause: float) -> Callable[[], list[float]]:
    """What a call of this machine takes when, as over a link, nothing has run for a while before it."""

    def one(number: int) -> float:
        time.sleep(pause)
        return timed(lambda: call(number))

    return lambda: [one(number) for number in range(max(3, int(0.4 / pause)))]


@contextlib.contextmanager
def _echo(lab: Lab, name: str) -> Generator[Callable[[int], object]]:
    """Send a call's bytes to an echo on the host."""
    with echo_sockets(lab, name) as (_, here), socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(here))
        yield lambda _: _round_trip(sock.sendall, sock.recv)


@contextlib.contextmanager
def echo_sockets(lab: Lab, name: str) -> Generator[tuple[Path, Path]]:
    """Yield an echo's socket on the host, and what it is forwarded to as calls have it."""
    there, here = lab.folder / f"e-{name}", lab.folder / f"f-{name}"
    program = [sys.executable, "-c", ECHO, str(there)]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            _run(*lab.shared(name, "ssh", "-O", "forward", "-L", f"{here}:{there}", name))
            yield there, here
        finally:
            process.kill()


@contextlib.contextmanager
def _cat(lab: Lab, name: str) -> Generator[Callable[[int], object]]:
    with subprocess.Popen(
        lab.shared(name, "ssh", name, "cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None
        yield lambda _: _round_trip(stdin.write, stdout.read)
        stdin.close()


def _round_trip(send: Callable[[bytes], object], receive: Callable[[int], bytes]) -> None:
    send(bytes(60))
    got = 0
    while got < 60:
        got += len(receive(60 - got))


# --- data ---------------------------------------------------------------------------------------------------------


def _bulk(bench: Bench, lab: Lab, name: str, where: str, *, megabytes: int, rounds: int) -> None:
    """As an argument and as a result, beside scp to the host and from it."""
    size = megabytes * 1_000_000
    random, counted = noise(size), numbers(size)
    path = lab.folder / "random"
    path.write_bytes(random)
    there = f"{name}:{lab.folder / 'copy'}"
    on = remote(instance_type=name, max_workers=1)
    take, far_noise, far_numbers = on(size_of), on(noise), on(numbers)  # of one module, so one worker has all
    on(prepare)(size)

    def scp(source: str, target: str) -> Times:
        return timer(lambda: _run(*lab.shared(name, "scp", "-q", source, target)))

    sides: dict[str, Times] = {
        "scp to": scp(str(path), there),
        "argument": timer(lambda: take(random)),
        "scp from": scp(there, str(lab.folder / "back")),
        "result": timer(lambda: far_noise(size)),
        "shrinking argument": timer(lambda: take(counted)),
        "shrinking result": timer(lambda: far_numbers(size)),
    }
    found = {name: Sample.of(times) for name, times in interleave(rounds, sides).items()}
    for side, scp_name in (("argument", "scp to"), ("result", "scp from")):
        what = f"{megabytes} MB as {side}, {where}"
        bench.faster(f"{what}: random", found[side], found[scp_name], times=0.9, name="scp")
        mine, peer = found[f"shrinking {side}"], found[scp_name]
        if name == "slow":
            bench.faster(f"{what}: counting integers", mine, peer, times=1.0, name="scp")
        else:
            bench.beside(f"{what}: counting integers, for comparison", mine, peer, name="scp")


# --- beginnings ---------------------------------------------------------------------------------------------------


def _call_in_a_process(lab: Lab, name: str, options: str = "{}") -> float:
    """Return how long its one call took."""
    return float(run_python(["-c", ONE_CALL, name, options], environ={}, folder=lab.folder))


def _first_calls(bench: Bench, lab: Lab) -> None:
    lab.add("bare", lab.server("bare"))

    def first() -> float:
        _make_bare("bare")
        return _call_in_a_process(lab, "bare")

    ssh = timer(lambda: _run("ssh", "bare", "true"))
    found = measured(bench.rounds(7), {"ours": first, "ssh": ssh})
    bench.at_most(
        "first call on a bare host", found["ours"], found["ssh"], limit=4.0, name="a first ssh host true"
    )
    sides: dict[str, Times] = {
        "ours": lambda: _call_in_a_process(lab, "bare"),
        "process": timer(lambda: _call_in_a_process(lab, "bare")),
        "ssh": timer(lambda: _run(*lab.shared("bare", "ssh", "bare", "true"))),
    }
    found = measured(bench.rounds(12), sides)
    what = "first call of a new process, agent and connection there"
    bench.at_most(what, found["ours"], found["ssh"], limit=3.0, name="ssh host true")
    bench.beside(f"{what}: the process's whole life", found["process"], found["ssh"], name="ssh host true")


def _make_bare(name: str) -> None:
    """Remove all that is ours from a host, and the connection to it."""
    access = SshAccess(SshHost(name))
    access.remove()
    access.close()


def _environment(bench: Bench, lab: Lab) -> None:
    """The wheels are made on the spot. Nothing is there, and no uv, by either way."""
    from uv import find_uv_bin

    wheels = [str(make_wheel(lab.folder, name)) for name in WHEELS]
    options = json.dumps({"dependencies": wheels})
    there = lab.folder / "b" / "by-hand"

    def ours() -> float:
        _make_bare("bare")
        return _call_in_a_process(lab, "bare", options)

    def theirs() -> None:
        venv = f"{there}/uv venv -q {there}/venv"
        install = f"{there}/uv pip install -q --python {there}/venv --no-index {there}/*.whl"
        call = f"{there}/venv/bin/python -c {shlex.quote('import apple')}"
        environ = f"export UV_CACHE_DIR={there}/cache"
        _run("ssh", "bare", f"mkdir {there}")
        _run("scp", "-q", find_uv_bin(), *wheels, f"bare:{there}")
        _run("ssh", "bare", f"{environ}; {venv} && {install} && {call}")

    def by_hand() -> float:
        shutil.rmtree(there, ignore_errors=True)
        return timed(theirs)

    found = measured(bench.rounds(4), {"ours": ours, "by hand": by_hand})
    bench.at_most(
        f"first call on a bare host, with an environment of {len(WHEELS)} wheels, and uv to be brought",
        found["ours"],
        found["by hand"],
        limit=1.3,
        name="ssh + scp of uv + uv venv and pip install there",
    )


def _edited(bench: Bench, lab: Lab) -> None:
    folder, count = lab.folder / "work", 500 if bench.quick else 5000
    files = [folder / f"part{number % 50:02}" / f"file{number}.txt" for number in range(count)]
    for number, path in enumerate(files):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text((f"file {number}\n" * FILE_BYTES)[:FILE_BYTES])
    (folder / "pyproject.toml").write_text((lab.folder / "pyproject.toml").read_text())
    editions: Iterator[int] = iter(range(1, 1 << 30))
    call = remote(instance_type="near", include_local_workdir=True, max_workers=1)(lambda: 42)

    def edited() -> float:
        files[0].write_text(f"edition {next(editions)}\n")
        return timed(call)

    os.chdir(folder)
    try:
        ssh = timer(lambda: _run("ssh", "near", "true"))
        found = measured(bench.rounds(9), {"edited": edited, "warm": timer(call), "ssh": ssh})
    finally:
        os.chdir(lab.folder)
    mine, most = found["edited"], found["warm"].median + 2 * found["ssh"].median
    told = f"{seconds(most)}: warm call {seconds(found['warm'].median)} + 2 x ssh host true {found['ssh']}"
    bench.compared(
        f"one file edited in a bundle of {count:,}", (mine.median, str(mine)), (most, told), limit=1.0
    )
