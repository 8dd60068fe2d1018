"""A call whose processes are started here: by torchrun or mpirun, or as children of this worker, which is between them
and the caller.

The worker lays function and arguments, as they came, into a private folder, and starts the launcher on `launched`. What
the ranks print comes through pipes of their own, so that each line bears its rank; what becomes of each is a file that
it leaves. The worker learns of each rank's end from the kernel: the first that fails, or dies, is why the call fails.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any, Union

from ..model.errors import RemoteExecError, RuntimeEnvironmentError, WorkerDied
from ..model.failure import Failure
from ..serial import directories, failures_json
from ..serial.reducers import Joined
from . import context, groups
from .children import adopt_orphans, kill_children, reap_children
from .own_ranks import OwnRanks

if TYPE_CHECKING:
    from .lease import Function

BOOT = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from remote_exec_runtime.worker.launched import main; main(sys.argv[2])"
)
STREAMS = ("out", "err")  # the pipes of each rank
EVENTS = "events"  # the one pipe of all
FUNCTION, ARGUMENTS, PLAN = "function", "arguments", "plan.json"
VALUE, FAILURE = "value", "failure"  # what a rank leaves of one or the other
TREES = "trees"  # with a value: the digests of the folders that it names

TICK_SECONDS = 0.2
SETTLE_SECONDS = 0.5  # for the others to end when one has failed; and from SIGTERM to SIGKILL
READ_BYTES = 1 << 16
LINE_BYTES = 1 << 16  # of a line that does not end
LAST_BYTES = 4000
# how ranks of our own are stopped; a launcher knows only the second
INTERRUPTED = (signal.SIGINT, signal.SIGTERM)
INTERRUPT_SECONDS = 0.75  # for what they do then


Launcher = Union["subprocess.Popen[bytes]", OwnRanks]


class RankError(Exception):
    """A rank has failed; `told_by_rank` is its exception, which is answered in place of this one."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.told_by_rank = failure


class RankDeathError(Exception):
    """A rank of this worker's own has died, and so does the worker: in the same way, to be told and tried again as one.

    Attributes:
        code: its exit code, or the signal that killed it, negative.
    """

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class Launch:
    """A function as the launcher's processes run it.

    Args:
        function: what was told of it.
        pickled: the function itself.
    """

    def __init__(self, function: Function, pickled: bytes) -> None:
        assert function.group is not None  # noqa: S101
        assert function.launch is not None  # noqa: S101
        self._group = function.group
        self._launch = function.launch
        self._own = self._launch["launcher"] == "worker"
        self._name = function.name
        self._pickled = pickled

    def __call__(self, arguments: bytes) -> Any:
        """Run it with these pickled arguments; return rank 0's value, or those of all ranks of this worker.

        Raises:
            RankError: a rank has failed.
            WorkerDied: a rank has died that a launcher had started.
            RankDeathError: a rank has died that this process had started.
            RuntimeEnvironmentError: the launcher is missing, or does not start.
        """
        group = self._group
        port = group.port or groups.free_port()
        job = context.current_job()
        assert job is not None  # noqa: S101
        self._name = job.function
        # what a worker leaves there that is killed goes with its log; mpirun's sockets need a short path
        where = context.lease_folder() if self._launch["launcher"] != "mpirun" else ""
        folder = tempfile.mkdtemp(prefix="remote_exec-", dir=where or None)
        try:
            command = self._command(port, folder)
            plan = {
                "path": sys.path,
                "name": job.name,
                "function": job.function,
                "all_ranks": self._launch["all_ranks"],
                "first_rank": group.rank,
                "launcher": self._launch["launcher"],
                "node_rank": group.node_rank,
                "address": group.address,
                "log_levels": context.log_levels(),
                "jobs_folder": context.jobs_folder(),
            }
            for name, data in (
                (FUNCTION, self._pickled),
                (ARGUMENTS, arguments),
                (PLAN, json.dumps(plan).encode()),
            ):
                with open(os.path.join(folder, name), "wb") as file:
                    file.write(data)
            return self._run([*command, sys.executable, "-c", BOOT, _runtime(), folder], folder, port)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _command(self, port: int, folder: str) -> list[str]:
        count = str(self._launch["processes"])
        if self._own:
            return []
        if self._launch["launcher"] == "mpirun":
            found = shutil.which("mpirun")
            if found is None:
                raise RuntimeEnvironmentError(
                    "option 'use_mpirun': there is no mpirun on this host",
                    hint="install an MPI there: on Debian, apt-get install openmpi-bin",
                )
            return [found, "-np", count]
        if importlib.util.find_spec("torch") is None:
            raise RuntimeEnvironmentError(
                "option 'use_torchrun': PyTorch is missing in the environment",
                hint='add it to the environment: dependencies=["torch"]',
            )
        group = self._group
        options = {
            "nnodes": self._launch["nodes"],
            "node-rank": group.node_rank,
            "nproc-per-node": count,
            "master-addr": group.address,
            "master-port": port,
            "max-restarts": 0,
            "log-dir": os.path.join(folder, "logs"),
        }
        told = [f"--{name}={value}" for name, value in options.items()]
        return [sys.executable, "-m", "torch.distributed.run", *told, "--no-python"]

    def _run(self, command: list[str], folder: str, port: int) -> Any:
        count = self._launch["processes"]
        ranks = Ranks(folder, count, first=self._group.rank, is_launched=not self._own)
        adopt_orphans()  # a launcher may end before what it has started
        try:
            with open(os.path.join(folder, "launcher"), "w+b") as own:
                process = self._start(command, ranks, own, _variables(port, folder))
                try:
                    ranks.attend(process)
                finally:
                    ranks.end(process, INTERRUPTED if self._own else INTERRUPTED[1:])
                own.seek(max(0, os.fstat(own.fileno()).st_size - LAST_BYTES))
                output = own.read().decode(errors="replace")
        finally:
            ranks.close()
            adopt_orphans(False)
        return self._outcome(folder, ranks, process, output)

    def _start(
        self, command: list[str], ranks: Ranks, output: IO[bytes], variables: dict[str, str]
    ) -> Launcher:
        if not self._own:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=variables
            )
        count = self._launch["processes"]
        return OwnRanks(command, self._group, count, output=output, variables=variables, started=ranks.watch)

    def _outcome(self, folder: str, ranks: Ranks, process: Launcher, output: str) -> Any:
        count = self._launch["processes"]
        left = [_left_by(folder, local) for local in range(count)]
        bad = ranks.bad
        if bad is None:
            bad = next((local for local in range(count) if left[local][0] != VALUE), None)
        if bad is None:
            values = [Joined(data, []) for _, data in left]
            directories.noted.digests += [
                digest for local in range(count) for digest in _trees_of(folder, local)
            ]
            return values if self._launch["all_ranks"] else values[0]
        launcher = self._launch["launcher"]
        if launcher == "mpirun":
            bad = _named_by_mpirun(output, left, bad)
        kind, data = left[bad]
        if kind == FAILURE:
            raise RankError(failures_json.from_json(data.decode()))
        if not ranks.began:
            raise RuntimeEnvironmentError(
                f"{'Python' if self._own else launcher} ended with exit code {process.returncode} before it had "
                "started the function",
                output=output,
            )
        rank = f"rank {self._group.rank + bad} of {self._group.world_size}"
        if isinstance(process, OwnRanks):
            code = process.code(bad)
            how = f"was killed by signal {-code}" if code < 0 else f"ended itself with exit code {code}"
            raise RankDeathError(f"{rank} of {self._name} {how}", code)
        error: RemoteExecError = WorkerDied(
            f"{rank} died, which ran {self._name} under {launcher}",
            hint="what it printed last is in the call's log",
        )
        raise error


def _named_by_mpirun(output: str, left: list[tuple[str, bytes]], bad: int) -> int:
    """Return the rank that mpirun says has died first: it kills the others at once."""
    told = re.search(r"process rank (\d+) with PID", output)
    first = int(told[1]) if told is not None else bad
    return first if first < len(left) and {left[first][0], left[bad][0]}.isdisjoint((VALUE, FAILURE)) else bad


class Ranks:
    """The processes that were started for a call on this host, seen from outside.

    Args:
        folder: where they leave their outcomes.
        count: how many they are.
        first: the rank of the first.
        is_launched: whether a launcher starts them, which ends them all when one has failed.

    Attributes:
        bad: the first of them, by local rank, that has failed or died.
        began: whether any has begun.
    """

    def __init__(self, folder: str, count: int, *, first: int, is_launched: bool) -> None:
        self._is_launched = is_launched
        self.bad: int | None = None
        self.began = False
        self._began_at = time.time()
        self._folder = folder
        self._poll = select.poll()
        self._pidfds: dict[int, int] = {}  # -> local rank
        self._pids: set[int] = set()  # where there are no descriptors for processes
        # -> name, where its lines go, the line that has not ended
        self._pipes: dict[int, tuple[str, int, bytearray]] = {}
        self._prefixes: dict[int, bytes] = {}
        names = [f"{local}.{stream}" for local in range(count) for stream in STREAMS]
        for name in (*names, EVENTS):
            path = os.path.join(folder, name)
            os.mkfifo(path, 0o600)
            # for writing, too: it has no end while no rank has opened it, or none any more
            fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            self._pipes[fd] = (name, 2 if name.endswith("err") else 1, bytearray())
            if name != EVENTS:
                self._prefixes[fd] = f"[{first + int(name.partition('.')[0])}] ".encode()
            self._poll.register(fd, select.POLLIN)

    def attend(self, process: Launcher) -> None:
        """Pass on what they tell until the launcher has ended, or a moment after one of them has failed."""
        ending = 0.0
        while process.poll() is None:
            self._turn(TICK_SECONDS)
            if self.bad is not None:
                ending = ending or time.monotonic() + SETTLE_SECONDS
                if time.monotonic() > ending:
                    return
        self._turn(0.0)

    def end(self, process: Launcher, signals: Sequence[int]) -> None:
        """End whatever of it lives yet, by these signals and at last by SIGKILL, and pass on what it told last."""
        for number in signals:
            if process.poll() is not None:
                break
            process.send_signal(number)
            self._signal(number)
            seconds = INTERRUPT_SECONDS if number == signal.SIGINT else SETTLE_SECONDS
            deadline = time.monotonic() + seconds
            while process.poll() is None and time.monotonic() < deadline:
                self._turn(0.02)
        clean = process.poll() == 0
        self._signal(signal.SIGKILL)
        process.kill()
        process.wait()
        if not clean:  # also what the ranks have started
            kill_children(self._began_at)
            reap_children()
        while self._turn(0.0):
            pass
        for fd, (_, target, rest) in self._pipes.items():
            if rest and fd in self._prefixes:
                _write(target, self._prefixes[fd] + bytes(rest) + b"\n")
                rest.clear()

    def close(self) -> None:
        """Let go of all descriptors."""
        for fd in (*self._pipes, *self._pidfds):
            os.close(fd)

    def _signal(self, number: int) -> None:
        for fd in self._pidfds:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, number)
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    def _turn(self, seconds: float) -> bool:
        """Wait so long for something to be told, and take it in; return whether there was."""
        ready = [fd for fd, _ in self._poll.poll(int(seconds * 1000))]
        for fd in ready:
            if fd in self._pipes:
                self._read(fd)
        ended = [fd for fd in ready if fd in self._pidfds]
        for fd in ended:
            self._poll.unregister(fd)
        left = {local: _left_by(self._folder, local)[0] for local in map(self._pidfds.__getitem__, ended)}
        bad = [local for local, kind in left.items() if kind != VALUE]
        if bad and self.bad is None:
            # Of several at once: launchers kill the others of one that fails; without one, others fail by a death.
            self.bad = next((local for local in bad if (left[local] == FAILURE) is self._is_launched), bad[0])
        return bool(ready)

    def _read(self, fd: int) -> None:
        name, target, rest = self._pipes[fd]
        try:
            rest += os.read(fd, READ_BYTES)
        except BlockingIOError:
            return
        whole, newline, tail = rest.rpartition(b"\n")
        if not newline and len(rest) > LINE_BYTES:
            whole, newline, tail = rest[:], bytearray(b"\n"), bytearray()
        if not newline:
            return
        lines = bytes(whole).split(b"\n")
        rest[:] = tail
        if name == EVENTS:
            for line in lines:
                self._hear(json.loads(line))
        else:
            prefix = self._prefixes[fd]
            _write(target, b"".join(prefix + line + b"\n" for line in lines))

    def _hear(self, event: dict[str, Any]) -> None:
        if "progress" in event or "metrics" in event:
            context.emit(event)
            return
        self.began = True
        if event["rank"] not in self._pidfds.values():
            self.watch(event["rank"], event["pid"])

    def watch(self, local: int, pid: int) -> None:
        """Learn of the end of the process that is this rank."""
        if not hasattr(os, "pidfd_open"):
            self._pids.add(pid)
            return
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:  # it has ended already: it is known by what it left
            return
        self._pidfds[fd] = local
        self._poll.register(fd, select.POLLIN)


def _left_by(folder: str, local: int) -> tuple[str, bytes]:
    """Return what kind of outcome a rank has left, and the outcome; "" where it has left none."""
    for kind in (VALUE, FAILURE):
        with (
            contextlib.suppress(FileNotFoundError),
            open(os.path.join(folder, f"{local}.{kind}"), "rb") as file,
        ):
            return kind, file.read()
    return "", b""


def _trees_of(folder: str, local: int) -> list[str]:
    """Return the digests of the folders that a rank's value names."""
    with open(os.path.join(folder, f"{local}.{TREES}"), encoding="ascii") as file:
        return file.read().split()


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _runtime() -> str:
    """Return the folder that the carried runtime is imported from."""
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _variables(port: int, folder: str) -> dict[str, str]:
    """Return the launcher's environment: ours, that it may start as many ranks as were asked for, and its folder."""
    more = {
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "OMPI_MCA_orte_tmpdir_base": folder,
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        "PRTE_MCA_prte_tmpdir_base": folder,
    }
    if os.geteuid() == 0:  # which it asks to be told twice
        more |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return {**os.environ, **more, "MASTER_PORT": str(port)}
