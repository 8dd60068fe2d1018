"""Leases on GPUs that hold among all users' agents of a machine: locks on files in a folder that all share.

There is a file for each GPU. Whoever has a whole one holds its `flock` alone. Those who share one hold it together,
and each locks as many of the file's first thousand bytes as its share has thousandths (locks of the open file, as the
`flock` is). So no more than a whole one is given out, a share never meets a whole claim, and one descriptor is the
lease: the kernel ends it with the last process that holds that, however it died. Forked children hold it too;
executed ones when asked for.

No state is owned here: a lease is its descriptors. MIG slices are not told apart.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..model.record import record
from .devices import Gpu

LOCKS_VARIABLE = "REMOTE_EXEC_AGENT_LOCK_FOLDER"
WHOLE = 1000  # the parts of a GPU that shares are counted in

_FLOCK = "hhqqi"  # the kernel's struct flock


def parts_of(gpus: float) -> int:
    """Return how many parts of one GPU a claim takes: rounded down, so that what adds up to a whole one fits.

    >>> parts_of(0.5), parts_of(1 / 3), parts_of(0.0001), parts_of(2)
    (500, 333, 1, 1000)
    """
    return WHOLE if gpus >= 1 else max(1, int(gpus * WHOLE + 1e-6))


@record(kw_only=True)
class GpuLease:
    """GPUs that are ours as long as one of these descriptors is open anywhere: here or in a child."""

    gpus: tuple[Gpu, ...]
    descriptors: tuple[int, ...]

    def close(self) -> None:
        """Close this process's descriptors. Children that inherited them keep the lease."""
        for descriptor in self.descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def lease_gpus(
    count: int,
    folder: Path,
    *,
    gpus: Sequence[Gpu],
    parts: int = WHOLE,
    inheritable: bool = False,
) -> GpuLease | None:
    """Take `count` of these GPUs, all or none, without waiting.

    Another process that is trying too may make this fail although it fails as well; and nobody is told when
    another user's lease ends. So whoever gets None tries again after a while.

    Args:
        count: how many.
        folder: where the lock files are, the same one for all users of the machine (and its containers).
        gpus: the candidates, the most wanted first.
        parts: how much of each; less than `WHOLE` shares it with others.
        inheritable: whether the lease also passes to programs that this process executes.

    Returns:
        The lease, or None if not enough of them are free.

    Raises:
        OSError: the folder cannot be made or used.

    Example:
        >>> lease = lease_gpus(1, Path("/run/lock/remote_exec"), gpus=detect())  # doctest: +SKIP
    """
    make_shared_folder(folder)
    taken: list[tuple[Gpu, int]] = []
    try:
        for gpu in gpus:
            if len(taken) == count:
                break
            descriptor = _lock(folder / _lock_name(gpu), parts)
            if descriptor is not None:
                taken.append((gpu, descriptor))
    finally:
        lease = GpuLease(gpus=tuple(gpu for gpu, _ in taken), descriptors=tuple(fd for _, fd in taken))
        if len(taken) < count:
            lease.close()
    if len(taken) < count:
        return None
    for descriptor in lease.descriptors:
        os.set_inheritable(descriptor, inheritable)
    return lease


def lock_folder(environ: Mapping[str, str]) -> Path:
    """Return where the lock files of this machine's GPUs are: the same place for all its users.

    Nothing there is removed by age, as it is in ``/tmp`` on many systems; but some let only root write there.

    Args:
        environ: environment variables; `REMOTE_EXEC_AGENT_LOCK_FOLDER` names another folder, such as one that a
            container shares with its host.
    """
    if named := environ.get(LOCKS_VARIABLE):
        return Path(named)
    with contextlib.suppress(OSError):
        if os.stat("/run/lock").st_mode & 0o1007 == 0o1007:
            return Path("/run/lock/remote_exec-gpus")
    return Path("/tmp/remote_exec-gpus")  # noqa: S108 - sticky, and its files are never followed or trusted


def holders(gpus: Sequence[Gpu], folder: Path, *, parts: int = WHOLE) -> dict[str, str]:
    """Return those of these GPUs of which so much cannot be had, and whom we take it that has it, in words."""
    found: dict[str, str] = {}
    for gpu in gpus:
        path = folder / _lock_name(gpu)
        with contextlib.suppress(OSError):
            descriptor = _lock(path, parts)
            if descriptor is None:
                found[gpu.uuid] = ", ".join(others(gpu, folder)) or "another agent of this machine"
            else:
                os.close(descriptor)
    return found


def held_by(pid: int, folder: Path, *, gpus: Sequence[Gpu]) -> tuple[str, ...]:
    """Return the UUIDs of the GPUs whose lock a process of ours has open."""
    open_files: set[str] = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                open_files.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    real = os.path.realpath(folder)
    return tuple(gpu.uuid for gpu in gpus if os.path.join(real, _lock_name(gpu)) in open_files)


def others(gpu: Gpu, folder: Path) -> list[str]:
    """Say who else took a lock: the agents that did, by their process ids; those that have died since are left out."""
    try:
        status = os.stat(folder / _lock_name(gpu))
    except OSError:
        return []
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    found: set[str] = set()
    with contextlib.suppress(OSError), open("/proc/locks", encoding="ascii") as file:
        for line in file:
            fields = line.split()
            if place not in fields or "FLOCK" not in fields or "->" in fields:
                continue
            pid = int(fields[4])
            if pid != os.getpid():
                with contextlib.suppress(OSError, KeyError):
                    import pwd

                    user = pwd.getpwuid(os.stat(f"/proc/{pid}").st_uid).pw_name
                    found.add(f"user {user} (process {pid})")
    return sorted(found)


def _lock_name(gpu: Gpu) -> str:
    return re.sub(r"[^A-Za-z0-9-]", "_", gpu.uuid) + ".lock"


def make_shared_folder(folder: Path) -> None:
    """Make the folder of the lock files, for all users to write in."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return
    folder.chmod(0o1777)  # not by mkdir's mode: the umask would cut it


def _lock(path: Path, parts: int) -> int | None:
    """Return a descriptor that holds so much of this file's lock, or None if others have too much of it."""
    try:
        descriptor = _open(path, os.O_RDONLY if parts == WHOLE else os.O_RDWR)
    except PermissionError:
        if path.exists():  # another user has just made it, and not opened it to us yet
            return None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "a lock file must be a regular file", str(path))
        fcntl.flock(descriptor, (fcntl.LOCK_EX if parts == WHOLE else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        if parts < WHOLE:
            _lock_parts(descriptor, parts)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _lock_parts(descriptor: int, wanted: int) -> None:
    """Lock so many bytes of a file, whichever are free.

    Raises:
        BlockingIOError: there are fewer.
    """
    for position in range(WHOLE):
        with contextlib.suppress(BlockingIOError):
            one = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, position, 1, 0)
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, one)
            wanted -= 1
            if not wanted:
                return
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def _open(path: Path, mode: int) -> int:
    """Open a lock file, ours or another user's.

    O_CREAT on a file of another user in a sticky folder is refused (`fs.protected_regular`), so it is tried
    last. The files are never removed: a lock on a removed file would hold nobody off.
    """
    flags = mode | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, flags)
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return os.open(path, flags)
    os.fchmod(descriptor, 0o666)
    return descriptor
