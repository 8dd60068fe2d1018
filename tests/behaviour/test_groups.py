"""One call on several workers: all of them or none, ranks, one outcome, and nothing left when one fails."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path

import pytest
from groups_work import SECONDS, all_ranks, ended, hold, note, until

from remote_exec import current_job, list_futures, progress, remote
from remote_exec.client.finding import find_job
from remote_exec.errors import ConfigurationError, MaxRuntimeExceeded, ResourceLimitExceeded, WorkerDied

needs_mpi = pytest.mark.skipif(
    shutil.which("mpirun") is None, reason="there is no mpirun: apt-get install openmpi-bin"
)


# --- ranks and values ---


@pytest.mark.here("elsewhere each node has a host of its own")
def test_several_nodes_are_told_apart() -> None:
    check_places(2)


def test_each_rank_knows_its_place_and_all_run_at_once() -> None:
    check_places(1)

    @remote
    def alone() -> tuple[object, ...]:
        job = current_job()
        assert job is not None
        return job.group, os.environ.get("RANK"), os.environ.get("MASTER_PORT")

    assert alone() == (None, None, None)


def check_places(nodes: int) -> None:
    @remote(instance_count=nodes, nproc_per_node=2, return_all_ranks=True)
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

    size = 2 * nodes
    found = all_ranks(place, "same")
    assert len({pid for _, _, pid, *_ in found}) == size
    port = str(found[0][3].port)
    for rank, (word, function, _, group, *variables) in enumerate(found):
        assert (word, function) == ("same", "place")
        assert variables == [str(rank), str(rank % 2), str(rank // 2), str(size), "2", "127.0.0.1", port]
        assert (group.rank, group.local_rank, group.node_rank) == (rank, rank % 2, rank // 2)
        assert (group.world_size, group.local_world_size) == (size, 2)


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
    assert ended(int(Path(tmp_path, "0").read_text()))


def test_a_rank_that_dies_is_named(tmp_path: Path) -> None:
    future = hold.submit(str(tmp_path))
    pids = until(tmp_path, of=2)
    remote(os.kill)(int(pids[1]), signal.SIGKILL)
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


def test_generators_and_instances_are_refused() -> None:
    @remote(nproc_per_node=2)
    def numbers() -> object:
        yield 1

    @remote(instance_count=2)
    class Counter: ...

    for refused in (numbers, Counter):
        with pytest.raises(ConfigurationError, match=r"nproc_per_node|instance_count"):
            refused()


# --- mpirun ---


@pytest.mark.here("the containers' image has no mpirun", "ssh")
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
    assert ended(int(Path(tmp_path, "0").read_text()))
    with pytest.raises(WorkerDied, match="rank 1 of 2 died"):
        call(str(tmp_path), "die")
    assert ended(int(Path(tmp_path, "0").read_text()))
    died = next(future for future in list_futures("call.rank0-") if future.status == "failed")
    _, told = find_job(died.job)
    assert told["about"]["code"].lstrip().startswith("@remote(nproc_per_node=2, use_mpirun=True)\n")


@pytest.mark.here("the containers' image has no mpirun", "ssh")
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
