"""GPUs through a stand-in for NVML; leases that end with their processes; limits of cgroups."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from nvml import build

from remote_exec.agent.devices import (
    LIBRARY_VARIABLE,
    Gpu,
    detect,
    resources,
    utilisation,
    visible,
)
from remote_exec.agent.gpu_locks import WHOLE, GpuLease, holders, lease_gpus


@pytest.fixture(scope="module")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(tmp_path_factory.mktemp("nvml"))


def test_gpus_are_found_through_nvml_and_a_lost_one_is_left_out(nvml: str) -> None:
    gpus = detect(environ={LIBRARY_VARIABLE: nvml})
    assert [gpu.index for gpu in gpus] == [0, 1, 3]
    assert gpus[1] == Gpu(index=1, uuid="GPU-1000-aaaa", name="Stand-in 1", memory_total_bytes=80 << 30)
    use = utilisation(environ={LIBRARY_VARIABLE: nvml})
    assert [(each.uuid, each.memory_used_bytes >> 30, each.percent) for each in use] == [
        ("GPU-0000-aaaa", 0, 40),
        ("GPU-1000-aaaa", 1, 41),
        ("GPU-3000-aaaa", 3, 0),
    ]


@pytest.mark.parametrize(
    ("setting", "indices"),
    [("1", [1]), ("3,0", [3, 0]), ("GPU-1", [1]), ("", []), ("-1", []), ("0,7,1", [0]), ("1,1", [1])],
)
def test_gpus_that_this_process_was_not_given_are_not_ours(
    nvml: str, setting: str, indices: list[int]
) -> None:
    gpus = detect(environ={LIBRARY_VARIABLE: nvml, "CUDA_VISIBLE_DEVICES": setting})
    assert [gpu.index for gpu in gpus] == indices


def test_without_a_working_driver_there_are_no_gpus_and_no_error(
    nvml: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "not-a-library.so"
    other.write_text("no")
    for library in (str(tmp_path / "absent.so"), str(other), "libc.so.6"):
        assert detect(environ={LIBRARY_VARIABLE: library}) == ()
        assert utilisation(environ={LIBRARY_VARIABLE: library}) == ()
    monkeypatch.setenv("STANDIN_NO_DRIVER", "1")
    assert detect(environ={LIBRARY_VARIABLE: nvml}) == ()


def test_a_worker_is_shown_its_gpus_and_no_others() -> None:
    assert visible(GPUS[1:]) == {"CUDA_VISIBLE_DEVICES": "GPU-b,GPU-c"}
    assert visible([]) == {"CUDA_VISIBLE_DEVICES": ""}


# ------------------------------------------------------------ leases

GPUS = tuple(
    Gpu(index=number, uuid=f"GPU-{letter}", name="", memory_total_bytes=0)
    for number, letter in enumerate("abc")
)

HOLDER = """
import subprocess, sys
from pathlib import Path
from remote_exec.agent.devices import Gpu
from remote_exec.agent.gpu_locks import lease_gpus
gpus = [Gpu(index=0, uuid=uuid, name="", memory_total_bytes=0) for uuid in sys.argv[3].split(",")]
parts = int(sys.argv[4])
lease = lease_gpus(int(sys.argv[2]), Path(sys.argv[1]), gpus=gpus, parts=parts, inheritable="child" in sys.argv)
if "child" in sys.argv:
    child = subprocess.Popen([sys.executable, "-c", "print(input())"], close_fds=False)
print("none" if lease is None else ",".join(gpu.uuid for gpu in lease.gpus), flush=True)
if "child" not in sys.argv:
    input()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "locks" / "gpus"


@pytest.fixture
def leases() -> Iterator[list[GpuLease]]:
    taken: list[GpuLease] = []
    yield taken
    for lease in taken:
        lease.close()


def holder(folder: Path, count: int, *options: str, parts: int = WHOLE) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), str(count), "GPU-a,GPU-b,GPU-c", str(parts), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_leases_are_exclusive_and_all_or_none(folder: Path, leases: list[GpuLease]) -> None:
    first = lease_gpus(2, folder, gpus=GPUS)
    assert first is not None
    leases.append(first)
    assert [gpu.uuid for gpu in first.gpus] == ["GPU-a", "GPU-b"]
    assert lease_gpus(2, folder, gpus=GPUS) is None
    second = lease_gpus(1, folder, gpus=GPUS)
    assert second is not None, "the failed attempt must have kept nothing"
    leases.append(second)
    assert [gpu.uuid for gpu in second.gpus] == ["GPU-c"]
    assert lease_gpus(1, folder, gpus=GPUS) is None
    nothing = lease_gpus(0, folder, gpus=())
    assert nothing is not None
    assert nothing.gpus == ()
    first.close()
    again = lease_gpus(2, folder, gpus=GPUS)
    assert again is not None
    leases.append(again)


def test_a_lease_holds_between_processes_and_ends_with_a_kill(folder: Path, leases: list[GpuLease]) -> None:
    with holder(folder, 3) as process:
        assert answer(process) == "GPU-a,GPU-b,GPU-c"
        assert lease_gpus(1, folder, gpus=GPUS) is None
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    lease = lease_gpus(3, folder, gpus=GPUS)
    assert lease is not None
    leases.append(lease)


def test_shares_of_a_gpu_add_up_to_a_whole_one_and_never_meet_a_whole_claim(
    folder: Path, leases: list[GpuLease]
) -> None:
    def take(parts: int) -> GpuLease | None:
        lease = lease_gpus(1, folder, gpus=GPUS[:1], parts=parts)
        leases.extend([lease] if lease is not None else [])
        return lease

    first, second, third = take(250), take(500), take(249)
    assert first is not None
    assert second is not None
    assert third is not None
    assert take(2) is None
    assert take(WHOLE) is None
    assert take(1) is not None, "the failed attempts must have kept nothing"
    first.close()
    third.close()
    with holder(folder, 1, parts=400) as process:
        assert answer(process) == "GPU-a", "what is free may lie apart"
        assert take(100) is None
        assert str(process.pid) in holders(GPUS[:1], folder, parts=100)["GPU-a"]
        process.kill()
        process.wait(10)
    assert take(WHOLE) is None
    for lease in leases:
        lease.close()
    leases.clear()
    assert take(WHOLE) is not None
    assert take(1) is None


def test_a_child_keeps_the_lease_of_its_dead_parent_until_it_ends(
    folder: Path, leases: list[GpuLease]
) -> None:
    with holder(folder, 1, "child") as process:
        assert answer(process) == "GPU-a"
        assert process.wait(10) == 0
        assert lease_gpus(3, folder, gpus=GPUS) is None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("bye\n")
        process.stdin.flush()
        assert process.stdout.read() == "bye\n"  # until the end of the child's output: it is gone
    lease = lease_gpus(3, folder, gpus=GPUS)
    assert lease is not None
    leases.append(lease)


def test_executed_programs_do_not_inherit_a_lease_unasked(folder: Path, leases: list[GpuLease]) -> None:
    for inheritable in (False, True):
        lease = lease_gpus(1, folder, gpus=GPUS, inheritable=inheritable)
        assert lease is not None
        leases.append(lease)
        assert [os.get_inheritable(fd) for fd in lease.descriptors] == [inheritable]


def test_the_folder_serves_all_users_whatever_the_umask(folder: Path, leases: list[GpuLease]) -> None:
    previous = os.umask(0o077)
    try:
        lease = lease_gpus(1, folder, gpus=GPUS)
    finally:
        os.umask(previous)
    assert lease is not None
    leases.append(lease)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    assert [stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()] == [0o666]


def test_a_planted_link_or_pipe_is_refused_and_never_followed(folder: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    folder.mkdir(parents=True)
    (folder / "GPU-a.lock").symlink_to(victim)
    os.mkfifo(folder / "GPU-b.lock")
    before = set(os.listdir("/proc/self/fd"))
    for gpu in GPUS[:2]:
        with pytest.raises(OSError, match="lock"):
            lease_gpus(1, folder, gpus=[gpu])
    assert not victim.exists()
    assert set(os.listdir("/proc/self/fd")) == before


# ------------------------------------------------------------ CPUs and memory


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": "MemTotal:       64000000 kB\nMemFree: 1 kB\n", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V2 = {
    "proc/self/cgroup": "0::/user.slice/job\n",
    "sys/fs/cgroup/user.slice/job/cpu.max": "max 100000\n",
    "sys/fs/cgroup/user.slice/cpu.max": "50000 100000\n",
    "sys/fs/cgroup/user.slice/memory.max": "4096000\n",
    "sys/fs/cgroup/user.slice/job/memory.max": "max\n",
}
V1 = {
    "proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n0::/\n",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n",
    "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "4096000\n",
}
UNLIMITED = {
    "proc/self/cgroup": V1["proc/self/cgroup"],
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
    "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
}


@pytest.mark.parametrize(("files", "limited"), [(V2, True), (V1, True), (UNLIMITED, False), ({}, False)])
def test_the_limits_of_the_control_group_and_its_parents_bind(
    tmp_path: Path, files: dict[str, str], limited: bool
) -> None:
    found = resources(environ={LIBRARY_VARIABLE: "absent.so"}, root=write(tmp_path, files))
    whole = len(os.sched_getaffinity(0))
    assert (found.cpus, found.memory_bytes) == ((0.5, 4096000) if limited else (whole, 64000000 * 1024))


def test_the_real_host_has_cpus_and_memory() -> None:
    found = resources()
    assert 0 < found.cpus <= (os.cpu_count() or 1)
    assert found.memory_bytes > 1 << 24
