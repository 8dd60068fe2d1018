"""What a host has (CPUs, memory, GPUs), and leases on its GPUs that hold among all users' agents.

GPUs are asked of NVML through ctypes: the library comes with the driver, and neither a CUDA context nor a
package is needed. A lease is a `flock` on a file a GPU in a folder that all users share, so the kernel ends
it with the last process that holds the descriptor, however that died. Forked children hold it too; executed
ones when asked for.

No state is owned here: a lease is its descriptors. MIG slices are not told apart: a GPU is leased whole.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from ..model.record import record

LIBRARY_VARIABLE = "REMOTE_EXEC_NVML_LIBRARY"
LIBRARY = "libnvidia-ml.so.1"
VISIBLE = "CUDA_VISIBLE_DEVICES"
LOCKS_VARIABLE = "REMOTE_EXEC_AGENT_LOCK_FOLDER"

# NVML's own buffer sizes: NVML_DEVICE_UUID_V2_BUFFER_SIZE, NVML_DEVICE_NAME_V2_BUFFER_SIZE
_TEXT_BYTES = 96
# cgroup v1 says "no limit" with the largest multiple of the page size
_NO_LIMIT = 1 << 60

T = TypeVar("T")


@record(kw_only=True)
class Gpu:
    """One GPU."""

    index: int  # NVML's, in PCI bus order
    uuid: str
    name: str
    memory_total_bytes: int


@record(kw_only=True)
class GpuUse:
    """How busy one GPU is."""

    uuid: str
    memory_used_bytes: int
    percent: int  # of the last sample period; 0 where the device does not say


@record(kw_only=True)
class Resources:
    """What one host can give, within the limits of the container or allocation that we are in."""

    cpus: float
    memory_bytes: int
    gpus: tuple[Gpu, ...]


def resources(*, environ: Mapping[str, str] | None = None, root: Path = Path("/")) -> Resources:
    """Return what this host has for us.

    Args:
        environ: environment variables; this process's by default.
        root: where ``proc`` and ``sys`` are mounted.
    """
    cpus = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    memory = _total_memory_bytes(root)
    for folder in _cgroups(root, "cpu"):
        cpus = min(cpus, _cpu_quota(folder))
    for folder in _cgroups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            memory = min(memory, _number(folder / name, default=memory))
    return Resources(cpus=cpus, memory_bytes=memory, gpus=detect(environ=environ))


# ---------------------------------------------------------------------------------------- CPUs, memory


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""


def _number(path: Path, *, default: int) -> int:
    text = _read(path).strip()
    return int(text) if text.isdigit() and int(text) < _NO_LIMIT else default


def _total_memory_bytes(root: Path) -> int:
    found = re.search(r"^MemTotal:\s+(\d+) kB", _read(root / "proc/meminfo"), re.M)
    if found:
        return int(found[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of our control group and its parents: a limit of any of them binds us.

    In a container the path may be the host's, and not be there: then only the mount's own root is.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if names and controller not in names.split(","):
            continue
        for mount in (
            [root / "sys/fs/cgroup" / name for name in (names, controller)]
            if names
            else [root / "sys/fs/cgroup"]
        ):
            folder = mount / path.lstrip("/")
            yield from (each for each in (folder, *folder.parents) if each == mount or mount in each.parents)


def _cpu_quota(folder: Path) -> float:
    quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
    if not quota:
        quota, period = (
            _read(folder / "cpu.cfs_quota_us").strip(),
            _read(folder / "cpu.cfs_period_us").strip(),
        )
    if quota.isdigit() and period.isdigit() and int(quota) and int(period):
        return int(quota) / int(period)
    return float("inf")


# ---------------------------------------------------------------------------------------------------- GPUs


def detect(*, environ: Mapping[str, str] | None = None) -> tuple[Gpu, ...]:
    """Return the GPUs that we may use: none where there is no driver, or it fails. It never raises.

    Args:
        environ: environment variables; this process's by default. `REMOTE_EXEC_NVML_LIBRARY` names another
            library, and ``CUDA_VISIBLE_DEVICES``, where set, names the GPUs that this process was given.
    """
    environ = os.environ if environ is None else environ

    def describe(nvml: _Nvml, index: int) -> Gpu:
        handle = nvml.handle(index)
        return Gpu(
            index=index,
            uuid=nvml.text("nvmlDeviceGetUUID", handle),
            name=nvml.text("nvmlDeviceGetName", handle),
            memory_total_bytes=nvml.memory(handle)[0],
        )

    return allowed(_each(environ, describe), environ.get(VISIBLE))


def utilisation(*, environ: Mapping[str, str] | None = None) -> tuple[GpuUse, ...]:
    """Return how busy each GPU of the host is, ours or not. It never raises."""

    def describe(nvml: _Nvml, index: int) -> GpuUse:
        handle = nvml.handle(index)
        percent = 0
        with contextlib.suppress(_NvmlError):  # not supported where MIG is on
            percent = nvml.percent(handle)
        uuid = nvml.text("nvmlDeviceGetUUID", handle)
        return GpuUse(uuid=uuid, memory_used_bytes=nvml.memory(handle)[2], percent=percent)

    return _each(os.environ if environ is None else environ, describe)


def visible(gpus: Sequence[Gpu]) -> dict[str, str]:
    """Return the environment variables that show a process these GPUs and no others; none at all for no GPU.

    >>> visible([Gpu(index=1, uuid="GPU-7", name="", memory_total_bytes=0)])
    {'CUDA_VISIBLE_DEVICES': 'GPU-7'}
    """
    return {VISIBLE: ",".join(gpu.uuid for gpu in gpus)}


def allowed(gpus: tuple[Gpu, ...], setting: str | None) -> tuple[Gpu, ...]:
    """Return those that ``CUDA_VISIBLE_DEVICES`` names, by its rules: the first wrong entry ends the list."""
    if setting is None:
        return gpus
    found: list[Gpu] = []
    for entry in (part.strip() for part in setting.split(",")):
        matching = [g for g in gpus if entry and (str(g.index) == entry or g.uuid.startswith(entry))]
        if len(matching) != 1:
            break
        found.extend(matching)
    return tuple(dict.fromkeys(found))


def _each(environ: Mapping[str, str], describe: Callable[[_Nvml, int], T]) -> tuple[T, ...]:
    """Return what there is to say of each GPU; one that fails (fallen off the bus) is left out."""
    found: list[T] = []
    try:
        with _Nvml(environ.get(LIBRARY_VARIABLE) or LIBRARY) as nvml:
            for index in range(nvml.count()):
                with contextlib.suppress(_NvmlError):
                    found.append(describe(nvml, index))
    except Exception:  # no library, no driver, an old one: no GPU that we could use
        return ()
    return tuple(found)


class _NvmlError(Exception):
    """A call of NVML did not return success."""


class _Nvml:
    """The few calls of NVML that we need, between its init and its shutdown."""

    def __init__(self, library: str) -> None:
        import ctypes  # some interpreters are built without it

        self._c: Any = ctypes
        self._library: Any = ctypes.CDLL(library)

    def __enter__(self) -> _Nvml:
        self._call("nvmlInit_v2")
        return self

    def __exit__(
        self, cls: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        with contextlib.suppress(_NvmlError):
            self._call("nvmlShutdown")

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise _NvmlError(f"{name}: status {status}")

    def count(self) -> int:
        count = self._c.c_uint(0)
        self._call("nvmlDeviceGetCount_v2", self._c.byref(count))
        return int(count.value)

    def handle(self, index: int) -> Any:
        handle = self._c.c_void_p()
        self._call("nvmlDeviceGetHandleByIndex_v2", self._c.c_uint(index), self._c.byref(handle))
        return handle

    def text(self, name: str, handle: Any) -> str:
        buffer = self._c.create_string_buffer(_TEXT_BYTES)
        self._call(name, handle, buffer, self._c.c_uint(_TEXT_BYTES))
        return bytes(buffer.value).decode("utf-8", "replace")

    def memory(self, handle: Any) -> tuple[int, int, int]:
        """Return total, free and used bytes."""
        memory = (self._c.c_ulonglong * 3)()
        self._call("nvmlDeviceGetMemoryInfo", handle, self._c.byref(memory))
        return int(memory[0]), int(memory[1]), int(memory[2])

    def percent(self, handle: Any) -> int:
        rates = (self._c.c_uint * 2)()
        self._call("nvmlDeviceGetUtilizationRates", handle, self._c.byref(rates))
        return int(rates[0])


# ---------------------------------------------------------------------------------------------------- leases


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
    count: int, folder: Path, *, gpus: Sequence[Gpu], inheritable: bool = False
) -> GpuLease | None:
    """Take `count` of these GPUs, all or none, without waiting.

    Another process that is trying too may make this fail although it fails as well; and nobody is told when
    another user's lease ends. So whoever gets None tries again after a while.

    Args:
        count: how many.
        folder: where the lock files are, the same one for all users of the machine (and its containers).
        gpus: the candidates, the most wanted first.
        inheritable: whether the lease also passes to programs that this process executes.

    Returns:
        The lease, or None if not enough of them are free.

    Raises:
        OSError: the folder cannot be made or used.

    Example:
        >>> lease = lease_gpus(1, Path("/run/lock/remote_exec"), gpus=detect())  # doctest: +SKIP
    """
    _make_shared_folder(folder)
    taken: list[tuple[Gpu, int]] = []
    try:
        for gpu in gpus:
            if len(taken) == count:
                break
            descriptor = _lock(folder / _lock_name(gpu))
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


def holders(gpus: Sequence[Gpu], folder: Path) -> dict[str, str]:
    """Return those of these GPUs that somebody holds, and whom we take for it, in words."""
    found: dict[str, str] = {}
    for gpu in gpus:
        path = folder / _lock_name(gpu)
        with contextlib.suppress(OSError):
            descriptor = _lock(path)
            if descriptor is None:
                found[gpu.uuid] = _locker(path)
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


def _locker(path: Path) -> str:
    """Say who took a lock: the agent that did, by its process id, though it may have died since."""
    found = os.stat(path)
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    for line in _read(Path("/proc/locks")).splitlines():
        fields = line.split()
        if place in fields and "FLOCK" in fields and "->" not in fields:
            pid = int(fields[4])
            with contextlib.suppress(OSError, KeyError):
                import pwd

                user = pwd.getpwuid(os.stat(f"/proc/{pid}").st_uid).pw_name
                return f"user {user} (process {pid})"
    return "another agent of this machine"


def _lock_name(gpu: Gpu) -> str:
    return re.sub(r"[^A-Za-z0-9-]", "_", gpu.uuid) + ".lock"


def _make_shared_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return
    folder.chmod(0o1777)  # not by mkdir's mode: the umask would cut it


def _lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock of this file, or None if another has it."""
    try:
        descriptor = _open(path)
    except PermissionError:
        if path.exists():  # another user has just made it, and not opened it to us yet
            return None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "a lock file must be a regular file", str(path))
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _open(path: Path) -> int:
    """Open a lock file, ours or another user's.

    O_CREAT on a file of another user in a sticky folder is refused (`fs.protected_regular`), so it is tried
    last. The files are never removed: a lock on a removed file would hold nobody off.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, flags)
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return os.open(path, flags)
    os.fchmod(descriptor, 0o666)
    return descriptor
