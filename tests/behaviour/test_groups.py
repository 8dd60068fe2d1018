"""One call on several workers: all of them or none, ranks, one outcome, and nothing left when one fails."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

from remote_exec import RemoteExecutor, current_job, progress, remote
from remote_exec.errors import ConfigurationError, MaxRuntimeExceeded, ResourceLimitExceeded, WorkerDied

SECONDS = 60.0
TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not TORCH, reason="PyTorch is not installed")
needs_mpi = pytest.mark.skipif(shutil.which("mpirun") is None, reason="there is no mpirun")


def until(path: Path, *, of: int = 1) -> list[str]:
    """Wait for a folder to hold so many files, and return what they hold."""
    deadline = time.monotonic() + SECONDS
    while len(found := [one for one in sorted(path.iterdir()) if one.suffix != ".part"]) < of:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return [one.read_text() for one in found]


def gone(pid: str) -> bool:
    deadline = time.monotonic() + SECONDS
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.01)
    return not os.path.exists(f"/proc/{pid}")


def note(folder: str) -> int:
    """Leave this rank's process id in a folder; return the rank."""
    job = current_job()
    assert job is not None
    assert job.group is not None
    path = Path(folder, str(job.group.rank))
    path.with_suffix(".part").write_text(str(os.getpid()))
    path.with_suffix(".part").rename(path)
    return job.group.rank


def all_ranks(function: Callable[..., Any], *args: object) -> Any:
    """Call a function that returns what all ranks do, and not what it says that it does."""
    return function(*args)


@remote(nproc_per_node=2)
def hold(folder: str) -> int:
    rank = note(folder)
    while not Path(folder, "go").exists():
        time.sleep(0.01)
    return rank


# --- ranks and values ---


def test_each_rank_knows_its_place_and_all_run_at_once() -> None:
    @remote(instance_count=2, nproc_per_node=2, return_all_ranks=True)
    def place(word: str) -> tuple[object, ...]:
        job = current_job()
        assert job is not None
        assert job.group is not None
        names = (
            "RANK",
            "LOCAL_RANK",
            "NODE_RANK",
            "WORLD_SIZE",
            "LOCAL_WORLD_SIZE",
            "MASTER_ADDR",
            "MASTER_PORT",
        )
        return word, job.function, os.getpid(), job.group, *(os.environ[name] for name in names)

    found = all_ranks(place, "same")
    assert len({pid for _, _, pid, *_ in found}) == 4
    port = str(found[0][3].port)
    for rank, (word, function, _, group, *variables) in enumerate(found):
        assert (word, function) == ("same", "place")
        assert variables == [str(rank), str(rank % 2), str(rank // 2), "4", "2", "127.0.0.1", port]
        assert (group.rank, group.local_rank, group.node_rank) == (rank, rank % 2, rank // 2)
        assert (group.world_size, group.local_world_size) == (4, 2)

    @remote
    def alone() -> tuple[object, ...]:
        job = current_job()
        assert job is not None
        return job.group, os.environ.get("RANK"), os.environ.get("MASTER_PORT")

    assert alone() == (None, None, None)


def test_the_value_is_that_of_rank_0_and_what_others_return_need_not_travel() -> None:
    @remote(nproc_per_node=2)
    def value(number: int) -> object:
        rank = int(os.environ["RANK"])
        return threading.Lock() if rank else number  # a lock cannot be pickled

    assert value(7) == 7
    assert value.submit(8).result(SECONDS) == 8
    assert list(value.map([1, 2, 3])) == [1, 2, 3]


async def _aio(function: object) -> object:
    return await function.aio("x")  # type: ignore[attr-defined]


def test_a_group_can_be_awaited() -> None:
    import asyncio

    @remote(nproc_per_node=2, return_all_ranks=True)
    def ranks(word: str) -> str:
        return word + os.environ["RANK"]

    assert asyncio.run(_aio(ranks)) == ["x0", "x1"]


# --- all or none ---


def test_groups_that_want_the_same_workers_run_one_after_the_other(tmp_path: Path) -> None:
    @remote(
        nproc_per_node=2, cpus=0.51 * len(os.sched_getaffinity(0)) / 2
    )  # two of its workers fit, not three
    def meet(folder: str, name: str) -> int:
        """Return when both ranks are here: a group that has one worker only never ends."""
        Path(folder, f"{name}{os.environ['RANK']}").touch()
        while not all(Path(folder, f"{name}{rank}").exists() for rank in (0, 1)):
            time.sleep(0.005)
        return len(list(Path(folder).iterdir()))

    others = meet.options(environment_variables={"ANOTHER": "pool"})
    futures = [
        function.submit(str(tmp_path), f"{index}-{number}-")
        for number in range(4)
        for index, function in enumerate((meet, others))
    ]
    assert sorted(future.result(SECONDS) for future in futures)[-1] == 2 * len(futures)


def test_a_group_larger_than_the_host_is_refused_and_leaves_nothing_waiting() -> None:
    @remote(nproc_per_node=3, cpus=os.cpu_count())
    def never() -> None: ...

    with pytest.raises(ResourceLimitExceeded, match="for each of 3 workers"):
        never()
    assert never.options(nproc_per_node=1)() is None


def test_a_group_that_waits_says_so_and_can_be_cancelled(tmp_path: Path) -> None:
    alone = hold.options(environment_variables={"POOL": "small"}, max_workers=2)
    running = alone.submit(str(tmp_path))
    until(tmp_path, of=2)
    waiting = alone.submit(str(tmp_path))
    deadline = time.monotonic() + SECONDS
    while "takes 2 workers at once" not in waiting.why():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert waiting.status == "queued"
    assert waiting.cancel(wait=True)
    with pytest.raises(CancelledError):
        waiting.result(SECONDS)
    Path(tmp_path, "go").touch()
    assert running.result(SECONDS) == 0


# --- one fails ---


def test_one_that_fails_stops_the_others_and_its_exception_is_the_groups(tmp_path: Path) -> None:
    @remote(nproc_per_node=3)
    def fail(folder: str) -> None:
        if note(folder) == 1:
            until(Path(folder), of=3)
            raise ValueError("rank one")
        Path(folder, "stopped").parent.mkdir(exist_ok=True)
        try:
            time.sleep(600)
        finally:
            Path(folder, f"{os.environ['RANK']}.stopped").touch()

    with pytest.raises(ValueError, match="rank one") as caught:
        fail(str(tmp_path))
    assert caught.value.__notes__ == ["raised by rank 1 of 3"]
    assert {one.name for one in tmp_path.glob("*.stopped")} == {"0.stopped", "2.stopped"}


def test_one_that_does_not_heed_is_killed_before_the_exception_is_raised(tmp_path: Path) -> None:
    @remote(nproc_per_node=2)
    def fail(folder: str) -> None:
        if note(folder):
            until(Path(folder), of=2)
            raise ValueError("rank one")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            try:
                time.sleep(600)
            except KeyboardInterrupt:
                pass

    with pytest.raises(ValueError, match="rank one"):
        fail(str(tmp_path))
    assert gone(Path(tmp_path, "0").read_text())


def test_a_rank_that_dies_is_named(tmp_path: Path) -> None:
    future = hold.submit(str(tmp_path))
    pids = until(tmp_path, of=2)
    os.kill(int(pids[1]), signal.SIGKILL)
    with pytest.raises(WorkerDied, match=r"hold\.rank1 died.*SIGKILL") as caught:
        future.result(SECONDS)
    assert caught.value.__notes__ == ["raised by rank 1 of 2"]
    again = tmp_path / "again"
    again.mkdir()
    (again / "go").touch()
    assert hold(str(again)) == 0


def test_a_group_that_runs_is_cancelled_whole(tmp_path: Path) -> None:
    future = hold.submit(str(tmp_path))
    until(tmp_path, of=2)
    assert future.status == "running"
    assert future.cancel(wait=True)
    assert future.status == "cancelled"
    with pytest.raises(CancelledError):
        future.result()


def test_a_group_runs_no_longer_than_it_may(tmp_path: Path) -> None:
    with pytest.raises(MaxRuntimeExceeded):
        hold.options(max_runtime_in_seconds=0.2)(str(tmp_path))


def test_ctrl_c_stops_all_ranks(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, sys, time
            from pathlib import Path
            from remote_exec import remote

            @remote(nproc_per_node=2)
            def hold(folder):
                rank = os.environ["RANK"]
                Path(folder, rank + ".part").write_text(str(os.getpid()))
                Path(folder, rank + ".part").rename(Path(folder, rank))
                try:
                    time.sleep(600)
                finally:
                    Path(folder, "stopped" + rank).touch()

            hold(sys.argv[1])
            """
        )
    )
    folder = tmp_path / "ranks"
    folder.mkdir()
    process = subprocess.Popen([sys.executable, str(script), str(folder)], stderr=subprocess.PIPE, text=True)
    until(folder, of=2)
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate(timeout=SECONDS)[1]
    assert {one.name for one in folder.glob("stopped*")} == {"stopped0", "stopped1"}


# --- what is told ---


def test_lines_bear_their_rank_and_progress_is_rank_0s(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    @remote(nproc_per_node=2)
    def talk() -> None:
        rank = os.environ["RANK"]
        for number in progress(range(2)):
            print("out", rank, number)
        print("err", rank, file=sys.stderr)
        os.write(1, b"no end")

    future = talk.submit()
    future.result(SECONDS)
    out, err = capfd.readouterr()
    for rank in "01":
        assert [line for line in out.splitlines() if line.startswith(f"[{rank}]")] == [
            f"[{rank}] out {rank} 0",
            f"[{rank}] out {rank} 1",
            f"[{rank}] no end",
        ]
        assert f"[{rank}] err {rank}\n" in err
    assert sorted(future.logs().splitlines()) == sorted((out + err).splitlines())


# --- what is refused ---


@pytest.mark.parametrize("keywords", [{"name": "durable-group"}, {"detach": True}, {"max_retry_attempts": 1}])
def test_what_cannot_be_a_group_is_refused_by_the_options_name(keywords: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="2 workers") as caught:
        hold.options(**keywords).submit("")  # type: ignore[arg-type]
    assert caught.value.option == next(iter(keywords))


def test_generators_executors_and_instances_are_refused() -> None:
    @remote(nproc_per_node=2)
    def numbers() -> object:
        yield 1

    @remote(instance_count=2)
    class Counter: ...

    for refused in (numbers, Counter):
        with pytest.raises(ConfigurationError, match=r"nproc_per_node|instance_count"):
            refused()
    with (
        RemoteExecutor(nproc_per_node=2) as executor,
        pytest.raises(ConfigurationError, match="nproc_per_node"),
    ):
        executor.submit(os.getpid)


# --- PyTorch, torchrun, mpirun ---


def summed(number: float) -> float:
    import torch
    import torch.distributed

    distributed: Any = torch.distributed
    distributed.init_process_group("gloo")
    value = torch.tensor([number * (distributed.get_rank() + 1)])
    distributed.all_reduce(value)
    return float(value.item())


@needs_torch
def test_a_process_group_of_pytorch_just_works_again_and_again() -> None:
    @remote(nproc_per_node=2, return_all_ranks=True)
    def call(number: float, *, fail: bool = False) -> float:
        value = summed(number)
        if fail and os.environ["RANK"] == "1":
            raise ValueError("after all")
        if fail:  # it waits for the other, which does not come
            import torch.distributed

            distributed: Any = torch.distributed
            distributed.barrier()
        return value

    assert call(1.0) == [3.0, 3.0]
    assert call(2.0) == [6.0, 6.0]
    with pytest.raises(ValueError, match="after all"):
        call(2.0, fail=True)
    assert call(3.0) == [9.0, 9.0]


@needs_torch
def test_torchrun_on_two_nodes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    @remote(instance_count=2, use_torchrun=True, return_all_ranks=True)
    def call(number: float) -> tuple[float, str, object]:
        job = current_job()
        assert job is not None
        print("here is", os.environ["RANK"])
        return summed(number), os.environ["TORCHELASTIC_RUN_ID"], job.group

    found = all_ranks(call, 1.0)
    assert [value for value, _, _ in found] == [3.0, 3.0]
    assert [(group.rank, group.node_rank, group.world_size) for *_, group in found] == [(0, 0, 2), (1, 1, 2)]
    assert sorted(line for line in capfd.readouterr().out.splitlines() if line) == [
        "[0] here is 0",
        "[1] here is 1",
    ]


@needs_torch
def test_torchrun_brings_exceptions_home_and_leaves_nothing(tmp_path: Path) -> None:
    class OddError(Exception):
        def __init__(self, number: int, *, why: str) -> None:
            super().__init__(number)
            self.why = why

    @remote(nproc_per_node=2, use_torchrun=True)
    def fail(folder: str) -> None:
        if note(folder) == 1:
            until(Path(folder), of=2)
            raise OddError(3, why="it is")
        time.sleep(600)

    with pytest.raises(OddError) as caught:
        fail(str(tmp_path))
    assert caught.value.why == "it is"
    assert caught.value.__notes__ == ["raised by rank 1 of 2"]
    assert gone(Path(tmp_path, "0").read_text())


@needs_torch
def test_torchrun_is_cancelled_with_all_that_it_started_and_can_be_a_job(tmp_path: Path) -> None:
    launched = hold.options(use_torchrun=True)
    future = launched.submit(str(tmp_path))
    pids = until(tmp_path, of=2)
    assert future.cancel(wait=True)
    assert all(gone(pid) for pid in pids)
    Path(tmp_path, "go").touch()
    assert launched.options(name="torchrun-job", return_all_ranks=True)(str(tmp_path)) == [0, 1]


@needs_mpi
def test_mpirun_starts_ranks_which_fail_and_die_as_others_do(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    @remote(nproc_per_node=2, use_mpirun=True)
    def call(folder: str, how: str) -> tuple[int, str]:
        rank = note(folder)
        print("here is", os.environ["OMPI_COMM_WORLD_RANK"])
        if rank and how == "raise":
            raise ValueError("rank one")
        if rank and how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if how:
            time.sleep(600)
        return rank, os.environ["OMPI_COMM_WORLD_SIZE"]

    assert call(str(tmp_path), "") == (0, "2")
    assert call.options(return_all_ranks=True)(str(tmp_path), "") == [(0, "2"), (1, "2")]
    assert set(capfd.readouterr().out.splitlines()) == {"[0] here is 0", "[1] here is 1"}
    with pytest.raises(ValueError, match="rank one"):
        call(str(tmp_path), "raise")
    assert gone(Path(tmp_path, "0").read_text())
    with pytest.raises(WorkerDied, match="rank 1 of 2 died"):
        call(str(tmp_path), "die")
    assert gone(Path(tmp_path, "0").read_text())


@needs_mpi
def test_a_launcher_that_does_not_start_tells_why() -> None:
    from remote_exec.errors import RuntimeEnvironmentError

    @remote(
        nproc_per_node=2,
        use_mpirun=True,
        environment_variables={"OMPI_MCA_rmaps_base_mapping_policy": "nonsense"},
    )
    def never() -> None: ...

    with pytest.raises(RuntimeEnvironmentError, match="mpirun ended with exit code"):
        never()
