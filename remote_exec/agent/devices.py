"""What a host has: CPUs, memory, GPUs; and how busy the GPUs are.

GPUs are asked of NVML through ctypes: the library comes with the driver, and neither a CUDA context nor a
package is needed. MIG slices are not told apart.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from ..model.pool import GpuUse
from ..model.record import record

LIBRARY_VARIABLE = "REMOTE_EXEC_NVML_LIBRARY"
LIBRARY = "libnvidia-ml.so.1"
VISIBLE = "CUDA_VISIBLE_DEVICES"

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
