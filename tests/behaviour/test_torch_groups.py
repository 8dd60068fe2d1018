"""PyTorch in groups, and torchrun. Elsewhere, on two hosts: tests/hosts/test_group_hosts.py."""

from __future__ import annotations

import importlib.util
import os
import time
from pathlib import Path
from typing import Any

import pytest
from groups_work import all_ranks, ended, hold, note, until
from torch_work import summed

from remote_exec import current_job, remote

TORCH = importlib.util.find_spec("torch") is not None
pytestmark = pytest.mark.skipif(not TORCH, reason="PyTorch is not installed")


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
    assert ended(int(Path(tmp_path, "0").read_text()))


def test_torchrun_is_cancelled_with_all_that_it_started_and_can_be_a_job(tmp_path: Path) -> None:
    launched = hold.options(use_torchrun=True)
    future = launched.submit(str(tmp_path))
    pids = until(tmp_path, of=2)
    assert future.cancel(wait=True)
    assert all(ended(int(pid)) for pid in pids)
    Path(tmp_path, "go").touch()
    assert launched.options(name="torchrun-job", return_all_ranks=True)(str(tmp_path)) == [0, 1]
