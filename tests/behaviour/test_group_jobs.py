"""Groups as durable jobs, which outlive their client, and groups of a `RemoteExecutor`."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest
from groups_work import SECONDS, ended, note, until
from torch_work import summed

from remote_exec import RemoteExecutor, current_job, get_future, remote
from remote_exec.errors import ConfigurationError, MaxRuntimeExceeded, WorkerDied

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")


def gone(pid: str) -> bool:
    """Wait here for a process to end."""
    return ended.local(int(pid))


@remote(nproc_per_node=2, return_all_ranks=True)
def hold(folder: str) -> list[int]:
    rank = note(folder)
    while not Path(folder, "go").exists():
        time.sleep(0.01)
    return [rank]


# --- durable ---


def test_a_group_goes_on_without_its_client_and_is_found_by_its_name(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, sys, time
            from pathlib import Path
            from remote_exec import current_job, remote

            @remote(nproc_per_node=2, return_all_ranks=True)
            def train(folder):
                group = current_job().group
                print("begins")
                Path(folder, f"{group.rank}.part").write_text(str(os.getpid()))
                Path(folder, f"{group.rank}.part").rename(Path(folder, str(group.rank)))
                while not Path(folder, "go").exists():
                    time.sleep(0.01)
                return group.rank, os.environ["RANK"], current_job().name, current_job().function

            train.options(name="long-training", detach=True).submit(sys.argv[1])
            time.sleep(600)
            """
        )
    )
    folder = tmp_path / "ranks"
    folder.mkdir()
    client = subprocess.Popen([sys.executable, str(script), str(folder)])
    try:
        until(folder, of=2)
    finally:
        client.kill()
        client.wait()
    future: Any = get_future("long-training")
    assert future.status == "running"
    (folder / "go").touch()
    assert future.result(SECONDS) == [
        (0, "0", "long-training", "train"),
        (1, "1", "long-training", "train"),
    ]
    assert sorted(future.logs().splitlines()) == ["[0] begins", "[1] begins"]


def test_nodes_of_a_job_are_on_one_machine_and_ranks_meet(tmp_path: Path) -> None:
    @remote(instance_count=2, nproc_per_node=2, return_all_ranks=True)
    def place(value: int) -> tuple[int, Any, str]:
        job = current_job()
        assert job is not None
        return value, job.group, os.environ["MASTER_PORT"]

    found: Any = place.options(detach=True).submit(7).result(SECONDS)
    assert [(value, group.rank, group.node_rank, group.local_rank) for value, group, _ in found] == [
        (7, 0, 0, 0),
        (7, 1, 0, 1),
        (7, 2, 1, 0),
        (7, 3, 1, 1),
    ]
    assert {(group.world_size, group.local_world_size, str(group.port)) for _, group, _ in found} == {
        (4, 2, found[0][2])
    }


def test_a_rank_that_dies_is_one_death_and_the_whole_group_is_tried_again(tmp_path: Path) -> None:
    @remote(nproc_per_node=2)
    def train(folder: str, deaths: int) -> int:
        rank = int(os.environ["RANK"])
        attempt = len(list(Path(folder).glob(f"{rank}-*")))
        note(folder, f"{rank}-{time.monotonic_ns()}")
        while len(list(Path(folder).glob("?-*[0-9]"))) % 2:  # both of this attempt are here
            time.sleep(0.01)
        if attempt < deaths:
            if rank:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(600)
        return rank

    assert train.options(max_retry_attempts=1)(str(tmp_path), 1) == 0
    pids = until(tmp_path, of=4)
    assert len(set(pids)) == 4
    assert all(gone(pid) for pid in pids)

    again = tmp_path / "again"
    again.mkdir()
    with pytest.raises(WorkerDied, match="SIGKILL") as caught:
        train.options(detach=True)(str(again), 1)
    certificate = caught.value.certificate
    assert certificate is not None
    assert certificate.last_lines[-1] == "rank 1 of 2 of train was killed by signal 9"
    assert all(gone(pid) for pid in until(again, of=2))


def test_a_rank_that_raises_stops_the_others_which_are_interrupted_first(tmp_path: Path) -> None:
    @remote(nproc_per_node=2, detach=True, max_retry_attempts=1)
    def fail(folder: str) -> None:
        if note(folder):
            until(Path(folder), of=2)
            raise ValueError("rank one")
        try:
            time.sleep(600)
        finally:
            Path(folder, "stopped").touch()

    with pytest.raises(ValueError, match="rank one") as caught:
        fail(str(tmp_path))
    assert caught.value.__notes__ == ["raised by rank 1 of 2"]
    assert (tmp_path / "stopped").exists()


def test_a_job_is_cancelled_and_ends_in_time_with_all_its_ranks(tmp_path: Path) -> None:
    future = hold.options(detach=True).submit(str(tmp_path))
    pids = until(tmp_path, of=2)
    assert future.cancel(wait=True)
    assert all(gone(pid) for pid in pids)
    with pytest.raises(CancelledError):
        future.result(SECONDS)

    late = tmp_path / "late"
    late.mkdir()
    with pytest.raises(MaxRuntimeExceeded):
        hold.options(detach=True, max_runtime_in_seconds=2)(str(late))
    assert all(gone(one.read_text()) for one in late.iterdir() if one.suffix != ".part")


@needs_torch
def test_a_process_group_of_pytorch_in_a_job() -> None:
    found: Any = remote(nproc_per_node=2, return_all_ranks=True, detach=True)(summed)(1.0)
    assert found == [3.0, 3.0]


def test_launchers_that_take_several_machines_are_no_job() -> None:
    @remote(instance_count=2, use_torchrun=True)
    def never() -> None: ...

    with pytest.raises(ConfigurationError, match="instance_count is 2") as caught:
        never.options(detach=True)()
    assert caught.value.option == "detach"


# --- executors ---


def rank_of(number: int) -> tuple[int, int]:
    return number, int(os.environ["RANK"])


def meet(folder: str, number: int) -> int:
    """Return how many groups were here while this one was."""
    rank = note(folder, f"{number}-{os.environ['RANK']}")
    while len(list(Path(folder).glob(f"{number}-[01]"))) < 2:
        time.sleep(0.005)
    seen = len(list(Path(folder).glob("*-0")))
    if not rank:
        time.sleep(0.05)
        Path(folder, f"{number}-0").unlink()
    return seen


def test_an_executor_runs_groups() -> None:
    with RemoteExecutor(nproc_per_node=2) as executor:
        assert executor.submit(rank_of, 1).result(SECONDS) == (1, 0)
        assert list(executor.map(rank_of, [2, 3])) == [(2, 0), (3, 0)]
        with pytest.raises(ZeroDivisionError) as caught:
            executor.submit(divmod, 1, 0).result(SECONDS)
        assert "rank" in caught.value.__notes__[0]
        last = executor.submit(rank_of, 4)
    assert last.done()
    with RemoteExecutor(instance_count=2, return_all_ranks=True) as executor:
        found: Any = executor.submit(rank_of, 1).result(SECONDS)
    assert found == [(1, 0), (1, 1)]


def test_an_executor_runs_so_many_groups_at_once_and_others_can_be_cancelled(tmp_path: Path) -> None:
    with RemoteExecutor(1, nproc_per_node=2) as executor:
        assert list(executor.map(meet, [str(tmp_path)] * 3, range(3))) == [1, 1, 1]
        running = executor.submit(hold.local, str(tmp_path))
        until(tmp_path, of=2)
        waiting = [executor.submit(rank_of, number) for number in range(3)]
        assert waiting[0].why() == "it waits for other groups to end"
        assert waiting[1].cancel()
        assert waiting[1].cancelled()
        (tmp_path / "go").touch()
        assert waiting[2].result(SECONDS) == (2, 0)
        assert running.result(SECONDS) == [0]

    executor = RemoteExecutor(1, nproc_per_node=2)
    for one in tmp_path.iterdir():
        one.unlink()
    running = executor.submit(hold.local, str(tmp_path))
    waiting = [executor.submit(rank_of, number) for number in range(2)]
    until(tmp_path, of=2)
    executor.shutdown(wait=False, cancel_futures=True)
    assert [one.cancelled() for one in waiting] == [True, True]
    (tmp_path / "go").touch()
    assert running.result(SECONDS) == [0]


def test_an_executor_submits_jobs(tmp_path: Path) -> None:
    with RemoteExecutor(nproc_per_node=2, detach=True, return_all_ranks=True) as executor:
        name = executor.submit(hold.local, str(tmp_path)).job
    assert get_future(name).status in ("queued", "running")  # a detached job is not waited for
    (tmp_path / "go").touch()
    found: Any = get_future(name).result(SECONDS)
    assert found == [[0], [1]]
    with RemoteExecutor(max_retry_attempts=1) as executor:
        future = executor.submit(pow, 2, 5)
    assert future.done()
    assert get_future(future.job).result(SECONDS) == 32


def test_an_initializer_belongs_to_workers_that_groups_do_not_have() -> None:
    with (
        RemoteExecutor(nproc_per_node=2, initializer=print) as executor,
        pytest.raises(ConfigurationError, match="initializer") as caught,
    ):
        executor.submit(rank_of, 1)
    assert caught.value.option == "initializer"
