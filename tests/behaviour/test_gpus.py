"""GPUs as users meet them: claimed, queued for, freed with the worker, and never given twice on one machine.

The GPUs are those of a stand-in for NVML: what is granted and shown is real, nothing computes on it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nvml
import pytest

from remote_exec import remote
from remote_exec.client.connections import connections
from remote_exec.errors import HostUnavailable, ResourceLimitExceeded, WorkerDied
from remote_exec.model.layout import Layout

GPUS = ["GPU-0000-aaaa", "GPU-1000-aaaa"]
SECONDS = 30.0


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    return nvml.build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def enter(library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Call with a name to be at home there, on a machine with two GPUs; the agents of all homes end in the end."""
    monkeypatch.setenv("REMOTE_EXEC_NVML_LIBRARY", library)
    monkeypatch.setenv("STANDIN_GPUS", "2")
    monkeypatch.setenv("REMOTE_EXEC_AGENT_LOCK_FOLDER", str(tmp_path / "locks"))
    layouts: set[Layout] = set()

    def at_home(name: str) -> None:
        monkeypatch.setenv("REMOTE_EXEC_HOME", str(tmp_path / name))
        layouts.add(Layout.of(os.environ))

    at_home("home")
    yield at_home
    (tmp_path / "end").touch()
    for layout in layouts:
        session = connections.session(layout)
        with contextlib.suppress(HostUnavailable):
            session.ask("stop")
        until(lambda ending=session: ending.lost)


def until(found: Callable[[], Any]) -> None:
    deadline = time.monotonic() + SECONDS
    while not found():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


@remote(gpus=1, max_workers=3, detach=True, keep_alive_period_in_seconds=0)
def hold(note: Path, gate: Path) -> str:
    visible = os.environ["CUDA_VISIBLE_DEVICES"]
    note.write_text(f"{os.getpid()} {visible}")
    while not (gate.exists() or (gate.parent / "end").exists()):
        time.sleep(0.01)
    return visible


def begun(note: Path) -> tuple[int, str]:
    """Wait until a call has begun; return its process and its GPUs."""
    until(lambda: note.exists() and note.read_text())
    pid, _, visible = note.read_text().partition(" ")
    return int(pid), visible


@pytest.mark.usefixtures("enter")
def test_two_calls_get_two_gpus_a_third_says_what_it_waits_for_and_gets_that_of_a_killed_one(
    tmp_path: Path,
) -> None:
    gate = tmp_path / "gate"
    futures = [hold.submit(tmp_path / f"note-{number}", gate) for number in range(2)]
    held = [begun(tmp_path / f"note-{number}") for number in range(2)]
    assert sorted(visible for _, visible in held) == GPUS
    third = hold.submit(tmp_path / "note-2", gate)
    until(lambda: "gpus are in use" in third.why())
    os.kill(held[0][0], signal.SIGKILL)
    with pytest.raises(WorkerDied):
        futures[0].result(SECONDS)
    assert begun(tmp_path / "note-2")[1] == held[0][1]
    gate.touch()
    assert {futures[1].result(SECONDS), third.result(SECONDS)} == set(GPUS)


@pytest.mark.usefixtures("enter")
def test_more_gpus_than_there_are_is_refused_at_once() -> None:
    with pytest.raises(ResourceLimitExceeded, match="gpus=3 was asked for; this host has 2"):
        hold.options(gpus=3, detach=False)(Path("note"), Path("gate"))


def test_two_agents_never_give_out_the_same_gpu(enter: Callable[[str], None], tmp_path: Path) -> None:
    gates = [tmp_path / f"gate-{number}" for number in range(3)]
    first = hold.submit(tmp_path / "note-0", gates[0])
    _, visible = begun(tmp_path / "note-0")
    enter("other")
    second = hold.submit(tmp_path / "note-1", gates[1])
    assert {visible, begun(tmp_path / "note-1")[1]} == set(GPUS)
    third = hold.submit(tmp_path / "note-2", gates[2])
    until(lambda: "GPUs are taken by user" in third.why())
    gates[0].touch()
    assert first.result(SECONDS) == visible
    assert begun(tmp_path / "note-2")[1] == visible, "the kernel has freed it with its worker"
    for gate, future in ((gates[1], second), (gates[2], third)):
        gate.touch()
        future.result(SECONDS)


@pytest.mark.usefixtures("enter")
def test_an_adopted_worker_goes_on_holding_its_gpu(tmp_path: Path) -> None:
    gates = [tmp_path / f"gate-{number}" for number in range(3)]
    first = hold.submit(tmp_path / "note-0", gates[0])
    _, visible = begun(tmp_path / "note-0")
    session = connections.session(Layout.of(os.environ))
    os.kill(session.welcome.pid, signal.SIGKILL)
    until(lambda: session.lost)
    second = hold.submit(tmp_path / "note-1", gates[1])
    assert {visible, begun(tmp_path / "note-1")[1]} == set(GPUS)
    third = hold.submit(tmp_path / "note-2", gates[2])
    until(lambda: "gpus are in use" in third.why())
    gates[0].touch()
    assert first.result(SECONDS) == visible
    assert begun(tmp_path / "note-2")[1] == visible
    for gate, future in ((gates[1], second), (gates[2], third)):
        gate.touch()
        future.result(SECONDS)


@pytest.mark.usefixtures("enter")
def test_who_claims_no_gpu_sees_what_the_caller_sees_and_who_asks_for_none_sees_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @remote
    def seen() -> str | None:
        return os.environ.get("CUDA_VISIBLE_DEVICES")

    assert seen() is None
    assert seen.options(gpus=0)() == ""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert seen() == "1"
    assert seen.options(gpus=1)() == GPUS[1], "a claim is met from what the caller may see"
