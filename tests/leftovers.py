"""What a test leaves behind: looked for in a few milliseconds, and named when it is there.

Each kind of thing has a look that names what is there now; what is there after a test and was not before it is left
over, unless it ends by itself in a moment. Descriptors are held against their owners: a session, a pool's dispatcher
and its warm channels keep some, on purpose, for as long as they live; nothing else may keep any.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from remote_exec.backends.host import Host
    from remote_exec.client.channel import Channel
    from remote_exec.client.dispatcher import Dispatcher
    from remote_exec.client.session import Session

LINUX = sys.platform == "linux"
MOMENT_SECONDS = 0.1  # what ends by itself mostly does so in this time
GRACE_SECONDS = 5.0  # and may take so long: the network of threads and processes is asynchronous
ANSWER_SECONDS = 10.0
CANCEL_SECONDS = 10.0
CLIENT = "remote_exec.client.connections"
ENGINES = "remote_exec.backends.docker.engine"
ARENA = "/memfd:remote_exec-arena (deleted)"
UNENDED = ("queued", "running")
# Below a state directory, where files are made under a name of their own before they become what they are to be.
HALF_DONE = {
    "cache/blobs-v1/incoming": "",
    "cache/bundles-v1": ".tmp",
    "cache/runtimes-v1": ".unpacking-",
}
Names = Counter[str]
T = TypeVar("T")


@dataclass(frozen=True)
class Kind:
    """One kind of thing that may stay.

    Args:
        name: as it is told.
        look: names what is there now.
        sift: keeps what is left over of what is new: what would be slow to find out of everything.
    """

    name: str
    look: Callable[[Path], Names]
    sift: Callable[[Names, Path], Names] = lambda names, _: names


class Leftovers:
    """What is there now, to be held against what is there later.

    Args:
        root: the session's folder, which holds home, state and temporary files of all tests.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._before = {kind: kind.look(root) for kind in KINDS}

    def told(self) -> list[str]:
        """Name what stays, in a line for each kind. Calls are stopped: later tests would wait behind them."""
        left = {kind: names for kind in KINDS if (names := self._left(kind))}
        if CALLS in left:
            _stop_calls(self._before[CALLS])
        return [f"{kind.name}: {_listed(names)}" for kind, names in left.items()]

    def forgive(self) -> None:
        """Tell nothing of what is there now: it has been told."""
        for kind in KINDS:
            self._before[kind] |= kind.look(self._root)

    def _left(self, kind: Kind) -> Names:
        def find() -> Names:
            new = kind.look(self._root) - self._before[kind]
            return kind.sift(new, self._root) if new else new

        if not find() or not until_empty(find, MOMENT_SECONDS):
            return Counter()
        gc.collect()
        return until_empty(find, GRACE_SECONDS)


def until_empty(find: Callable[[], T], seconds: float) -> T:
    """Wait until nothing is found, or the time has come; return what is."""
    deadline = time.monotonic() + seconds
    while (found := find()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return found


def _listed(names: Names) -> str:
    return ", ".join(
        name if count == 1 else f"{name} ({count} times)" for name, count in sorted(names.items())
    )


# --- calls and leases: of this process, and at its agents ---


def _calls(_root: Path) -> Names:
    found: Names = Counter()
    for key, dispatcher in _dispatchers().items():
        if _is_private(key):
            found[_owner(dispatcher)] += 1
        if dispatcher.pending:
            with dispatcher._lock:
                calls = [*dispatcher._lanes.queue, *dispatcher._lanes.in_flight()]
            found.update(f"pending call of {call.captured.name}" for call in calls)
    for session in _sessions():
        with _while_it_lives():
            found.update(_job(row) for row in _unended(session))
    return found


def _leases(_root: Path) -> Names:
    found: Names = Counter()
    for session in _sessions():
        with _while_it_lives():
            found += _at_agent(session)
    return found


def _at_agent(session: Session) -> Names:
    """Name leases that no channel here has, and processes that calls have left."""
    found: Names = Counter()
    pools = _ask(session, "host")["pools"]
    workers = [worker for pool in pools for worker in pool["workers"]]
    leases = sum(pool["queued"] for pool in pools) + sum(worker["state"] == "InUse" for worker in workers)
    channels = [one for one in _channels() if one.session is session and not (one.lost or one.refused)]
    if leases > len(channels):
        found["lease that nothing here holds"] = leases - len(channels)
    for lease in session._leases.keys() - {channel.lease for channel in _channels()}:
        found[f"lease {lease} that is listened to for nothing"] += 1
    pids = {str(worker["pid"]) for worker in workers if worker["pid"]}
    for parent in pids | {_fork_server_of(pid) for pid in pids}:
        for pid, told in _children(parent).items():
            # What has ended in a worker is waited for by the function that began it, if by anybody.
            if pid not in pids and not (parent in pids and told.endswith("[Z]")):
                found[f"process of a call: {told}"] += 1
    return found


def _stop_calls(before: Names) -> None:
    """Stop what was not there before, and wait for its end."""
    for key, dispatcher in _dispatchers().items():
        if _is_private(key) and _owner(dispatcher) not in before:
            sys.modules[CLIENT].connections.drop(dispatcher, cancel=True)
        elif dispatcher.pending:
            dispatcher.cancel_all()
    for session in _sessions():
        with _while_it_lives():
            for row in _unended(session):
                if _job(row) not in before:
                    _ask(session, "cancel", name=row["name"])
    until_empty(lambda: _calls(Path()) - before, CANCEL_SECONDS)


def _unended(session: Session) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = _ask(session, "jobs", states=UNENDED)["jobs"]
    return rows


def _ask(session: Session, what: str, **question: Any) -> Any:
    return session.start(what, question).result(ANSWER_SECONDS)[0]


def _job(row: dict[str, Any]) -> str:
    return f"{row['kind']} {row['name']}"


def _is_private(key: tuple[Host, str]) -> bool:
    return key[1].startswith("private-")


def _owner(dispatcher: Dispatcher) -> str:
    kind = "instance" if dispatcher._single else "executor"
    return f"{kind} {dispatcher._lanes._request['pool'].private}"


def _dispatchers() -> dict[tuple[Host, str], Dispatcher]:
    """Return this process's dispatchers that are open."""
    if CLIENT not in sys.modules:
        return {}
    found: dict[tuple[Host, str], Dispatcher] = sys.modules[CLIENT].connections._dispatchers
    return {key: dispatcher for key, dispatcher in list(found.items()) if not dispatcher.closed}


def _channels() -> list[Channel]:
    return [channel for dispatcher in _dispatchers().values() for channel in list(dispatcher._lanes.channels)]


def _sessions() -> list[Session]:
    """Return a session with each agent here that this process speaks with, or would; none is started."""
    if CLIENT not in sys.modules and not Path(os.environ["XDG_RUNTIME_DIR"], "remote_exec").is_dir():
        return []
    from remote_exec.backends import local
    from remote_exec.client.connections import connections

    sessions = list(connections._sessions.items())
    live = {host: session for host, session in sessions if host.here and not session.lost}
    here = local.here()
    if here not in live and (sock := local.connect(here.layout)) is not None:
        sock.close()
        with _while_it_lives():
            live[here] = connections.session(here)
    return list(live.values())


def _while_it_lives() -> contextlib.AbstractContextManager[None]:
    """For what is asked of an agent that may end meanwhile: then there is nothing to be found at it."""
    from remote_exec.errors import HostUnavailable

    return contextlib.suppress(HostUnavailable)


# --- processes ---


def _child_processes(_root: Path) -> Names:
    # An agent may outlive a test; multiprocessing's and loky's trackers end with this process.
    return Counter(
        told for told in _children("self").values() if "remote_exec_runtime.agent.early" not in told
    )


def _children(pid: str) -> dict[str, str]:
    """Return a process's children, by their ids, as 'pid command'."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError):  # it has ended
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):  # the thread has
                for child in Path("/proc", pid, "task", task, "children").read_text().split():
                    command = _command_of(child)
                    if command is not None and "resource_tracker" not in command:
                        found[child] = f"{child} {command}"
    return found


def _command_of(pid: str) -> str | None:
    """Return a process's command line; None for a session leader that has ended: an agent, unwaited for."""
    command = Path("/proc", pid, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    if command:
        return command[:200]
    state, _, _, session = _status_of(pid)[:4]
    if state == "Z" and session == pid:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(int(pid), os.WNOHANG)
        return None
    return f"[{state}]"


def _fork_server_of(worker: str) -> str:
    """Return the process id of a worker's fork server; nothing where that is gone."""
    with contextlib.suppress(OSError):
        parent = _status_of(worker)[1]
        if "worker.forkserver" in (_command_of(parent) or ""):
            return parent
    return ""


def _status_of(pid: str) -> list[str]:
    """Return a process's state, parent, group, session, and so on."""
    return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()


def processes_naming(root: Path) -> dict[int, str]:
    """Return (pid: command line) of the processes whose environment or command line names a folder."""
    found: dict[int, str] = {}
    needle = os.fsencode(root) + b"/"
    for entry in os.listdir("/proc") if LINUX else ():
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            command = Path("/proc", entry, "cmdline").read_bytes()
            if b"resource_tracker" in command:  # multiprocessing's, which ends with this process
                continue
            if command and needle in command + b"\0" + Path("/proc", entry, "environ").read_bytes():
                found[int(entry)] = command.replace(b"\0", b" ").decode(errors="replace")[:200]
    return found


# --- descriptors ---


def _descriptors(_root: Path) -> Names:
    """Name the open files, sockets, pipes and memfds that have no owner that keeps them on purpose."""
    owned, arenas = _owned()
    found: Names = Counter()
    for fd in os.listdir("/proc/self/fd"):
        if int(fd) not in owned:
            with contextlib.suppress(OSError):
                found[os.readlink(f"/proc/self/fd/{fd}")] += 1
    found[ARENA] -= arenas
    return +found


def _owned() -> tuple[set[int], int]:
    """Return the descriptors of sessions, dispatchers and their channels; and how many arenas these have mapped.

    A session has a socket, a dispatcher a pipe, a channel two sockets. A mapped arena keeps a descriptor that only
    the mapping knows.
    """
    if CLIENT not in sys.modules:
        return set(), 0
    from remote_exec.backends import local

    streams: list[Any] = [channel.stream for channel in _channels()]
    arenas = 0
    for stream in streams:
        if (sending := getattr(stream, "_sending", None)) is not None:
            arenas += len(sending._idle) + len(sending._lent) + len(stream._receiving._mapped)
    streams += [session._stream for session in sys.modules[CLIENT].connections._sessions.values()]
    owned = {sock.fileno() for sock, _ in local._begun.values()}
    for stream in streams:
        fields: dict[str, object] = vars(stream)
        owned |= {sock.fileno() for held in fields.values() for sock in _sockets(held)}
    for dispatcher in _dispatchers().values():
        owned |= {dispatcher._reading._wake_read, dispatcher._reading._wake_write}
    return owned | set(_of_engines()), arenas


def _of_engines() -> Iterator[int]:
    """Yield the descriptors of the idle connections that clients of container engines keep for their next question."""
    for engine in sys.modules[ENGINES]._engines.values() if ENGINES in sys.modules else ():
        pools: Any = getattr(
            engine.api._custom_adapter, "pools", {}
        )  # another kind of address has none of its own
        for key in pools.keys():  # noqa: SIM118 - it cannot be iterated over
            for connection in list(pools[key].pool.queue):
                if connection is not None and connection.sock is not None:
                    yield connection.sock.fileno()


def _sockets(held: object) -> Iterator[socket.socket]:
    if isinstance(held, socket.socket):
        yield held
    elif isinstance(held, (list, tuple)):
        for one in cast("Sequence[object]", held):
            yield from _sockets(one)


# --- files ---


def _files(root: Path) -> Names:
    """Name what lies in the session's folder, among temporary files, and half done in the state directory."""
    found = [*_entries(root), *_entries(root / "tmp")]
    home = Path(os.environ["REMOTE_EXEC_HOME"])
    for folder, part in HALF_DONE.items():
        found += [path for path in _entries(home / folder) if part in path.name]
    return Counter(map(str, found)) + _half_built(home / "cache/environments-v1")


def _half_built(environments: Path) -> Names:
    """Name the generations of environments that are not, or no longer, the one to be used."""
    found: Names = Counter()
    for folder in _entries(environments):
        generations = [path for path in _entries(folder) if path.name.startswith("g-")]
        if len(generations) != (folder / "ready.json").exists():
            found.update(f"{path}, which is not the only one or not ready" for path in generations)
    return found


def _entries(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in os.listdir(folder)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _socket_files(root: Path) -> Names:
    return Counter(map(str, (root / "run").glob("remote_exec/*/*")))


def _unowned(paths: Names, _root: Path) -> Names:
    listening = {line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines()[1:]}
    names = {os.path.basename(path) for path in listening}
    return Counter(
        path
        for path in paths
        if (os.path.basename(path) not in names if _is_of_container(path) else path not in listening)
        and os.path.exists(path)
    )


def _is_of_container(path: str) -> bool:
    """Whether a socket lies in a folder that a container has under another name."""
    return bool(re.fullmatch("c[0-9a-f]{8}", os.path.basename(os.path.dirname(path))))


def _shared_memory(_root: Path) -> Names:
    return Counter(path.name for path in _entries(Path("/dev/shm")))


def _ours(names: Names, root: Path) -> Names:
    """Return those which are not in the hands of some other program on this machine."""
    left = set(names)
    session = set(processes_naming(root)) | {os.getpid()}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) not in session:
            with contextlib.suppress(OSError):
                maps = Path("/proc", entry, "maps").read_text()
                left = {name for name in left if f"/dev/shm/{name}" not in maps}
    return Counter(name for name in left if os.path.exists(f"/dev/shm/{name}"))


CALLS = Kind("calls, jobs and executors", _calls)
KINDS = (
    CALLS,
    Kind("leases and their processes", _leases),
    Kind("child processes", _child_processes),
    Kind("descriptors", _descriptors),
    Kind("files", _files),
    Kind("socket files that nobody listens at", _socket_files, _unowned),
    Kind("shared memory", _shared_memory, _ours),
)
