"""PyTorch on a real GPU: ``pytest -m gpu`` on a machine that has one, with a PyTorch that can use it."""

from __future__ import annotations

import importlib.util
import os
import time
from pathlib import Path
from typing import Any

import pytest

from remote_exec import remote
from remote_exec.agent.devices import Gpu, detect, utilisation

pytestmark = pytest.mark.gpu

SECONDS = 100.0
HELD_BYTES = 2 << 30
SPARE_BYTES = 512 << 20  # what others may take or give back meanwhile


@pytest.fixture(autouse=True)
def gpus() -> tuple[Gpu, ...]:
    found = detect()
    if not found:
        pytest.skip("NVML finds no GPU here")
    if importlib.util.find_spec("torch") is None:
        pytest.skip("there is a GPU, but no PyTorch here")
    return found


@remote(gpus=1)
def multiply(size: int) -> tuple[str, int, float]:
    import torch

    generator = torch.Generator().manual_seed(0)
    one, other = (torch.rand(size, size, generator=generator) for _ in range(2))
    product = one.cuda() @ other.cuda()
    apart = (product.cpu() - one @ other).abs().max()
    return str(product.device), torch.cuda.device_count(), float(apart)


@remote(gpus=1)
def exhaust() -> None:
    import torch

    torch.empty(1 << 50, dtype=torch.uint8, device="cuda")


@remote(gpus=1, max_workers=2, detach=True, keep_alive_period_in_seconds=0)
def hold(note: Path, gate: Path) -> str:
    """Take memory, and keep it until the gate is there."""
    import torch

    kept = torch.ones(HELD_BYTES, dtype=torch.uint8, device="cuda")
    torch.cuda.synchronize()
    note.write_text(os.environ["CUDA_VISIBLE_DEVICES"])
    while not gate.exists():
        time.sleep(0.01)
    assert int(kept[-1]) == 1
    return os.environ["CUDA_VISIBLE_DEVICES"]


def begun(note: Path, future: Any) -> str:
    deadline = time.monotonic() + SECONDS
    while not (note.exists() and note.read_text()):
        assert not future.done(), future.exception()
        assert time.monotonic() < deadline, future.why()
        time.sleep(0.05)
    return note.read_text()


def used(uuid: str) -> int:
    return next(use.memory_used_bytes for use in utilisation() if use.uuid == uuid)


def test_a_call_computes_on_the_one_gpu_that_it_sees() -> None:
    device, count, apart = multiply(512)
    assert (device, count) == ("cuda:0", 1)
    assert apart < 0.1


def test_an_error_of_the_device_comes_home_as_what_it_was_and_the_next_call_is_well() -> None:
    with pytest.raises(RuntimeError, match="out of memory") as caught:
        exhaust()
    assert caught.type.__name__ == "OutOfMemoryError"
    assert multiply(64)[1] == 1


def test_memory_and_gpu_are_free_when_cancel_returns(tmp_path: Path) -> None:
    future = hold.submit(tmp_path / "note", tmp_path / "gate")
    uuid = begun(tmp_path / "note", future)
    during = used(uuid)
    assert during >= HELD_BYTES
    assert future.cancel(wait=True)
    assert used(uuid) <= during - HELD_BYTES + SPARE_BYTES


def test_two_shares_of_one_gpu_are_used_at_once(tmp_path: Path) -> None:
    futures = [hold.options(gpus=0.5).submit(tmp_path / name, tmp_path / "gate") for name in "ab"]
    first, second = (begun(tmp_path / name, future) for name, future in zip("ab", futures, strict=True))
    assert first == second
    (tmp_path / "gate").touch()
    assert [future.result(SECONDS) for future in futures] == [first, first]


def test_two_jobs_have_different_gpus(tmp_path: Path, gpus: tuple[Gpu, ...]) -> None:
    if len(gpus) < 2:
        pytest.skip("there is one GPU only")
    futures = [hold.submit(tmp_path / name, tmp_path / "gate") for name in "ab"]
    held = {begun(tmp_path / name, future) for name, future in zip("ab", futures, strict=True)}
    assert len(held) == 2
    (tmp_path / "gate").touch()
    assert {future.result(SECONDS) for future in futures} == held
