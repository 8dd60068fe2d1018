"""GPUs as users meet them: claimed, queued for, freed with the worker, and never given twice on one machine.

The GPUs are those of a stand-in for NVML: what is granted and shown is real, nothing computes on it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nvml
import pytest
from waiting import until

from remote_exec import remote
from remote_exec.agent.devices import detect
from remote_exec.agent.gpu_locks import lease_gpus
from remote_exec.backends.host import Host
from remote_exec.client.connections import connections
from remote_exec.errors import MaxRuntimeExceeded, ResourceLimitExceeded, WorkerDied

GPUS = ["GPU-0000-aaaa", "GPU-1000-aaaa"]
SECONDS = 30.0
pytestmark = pytest.mark.here("a container engine refuses GPUs by itself", "ssh")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    return nvml.build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def enter(own_host: Callable[..., Any], library: str, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Call with a name to have an agent there, on a machine with two GPUs; the agents of all names end in the end."""
    variables = {
        "REMOTE_EXEC_NVML_LIBRARY": library,
        "STANDIN_GPUS": "2",
        "STANDIN_USE": str(tmp_path / "use"),
        "REMOTE_EXEC_AGENT_LOCK_FOLDER": str(tmp_path / "locks"),
    }

    def at_home(name: str) -> None:
        own_host(name, **variables)

    at_home("home")
    yield at_home
    (tmp_path / "end").touch()


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


@remote(gpus=0.5, max_workers=9, detach=True, keep_alive_period_in_seconds=0)
def share(note: Path, gate: Path) -> str:
    return hold.local(note, gate)


def test_shares_of_a_gpu_are_given_to_those_who_ask_for_shares_whoevers_agents_they_have(
    enter: Callable[[str], None], tmp_path: Path
) -> None:
    gates = [tmp_path / f"gate-{number}" for number in range(5)]
    futures = [share.submit(tmp_path / "note-0", gates[0])]
    assert begun(tmp_path / "note-0")[1] == GPUS[0]
    futures.append(share.options(gpus=0.3).submit(tmp_path / "note-1", gates[1]))
    assert begun(tmp_path / "note-1")[1] == GPUS[0]
    enter("other")
    futures.append(share.options(gpus=0.2).submit(tmp_path / "note-2", gates[2]))
    assert begun(tmp_path / "note-2")[1] == GPUS[0], "the rest of the one is taken before another is begun"
    futures.append(hold.submit(tmp_path / "note-3", gates[3]))
    assert begun(tmp_path / "note-3")[1] == GPUS[1]
    futures.append(share.submit(tmp_path / "note-4", gates[4]))
    until(lambda: "GPUs are taken by user" in futures[4].why())
    gates[1].touch()
    futures[1].result(SECONDS)
    assert not (tmp_path / "note-4").exists(), "0.5 and 0.2 and 0.5 are too much"
    gates[0].touch()
    futures[0].result(SECONDS)
    assert begun(tmp_path / "note-4")[1] == GPUS[0]
    for gate in gates:
        gate.touch()
    assert [future.result(SECONDS) for future in futures] == [GPUS[n] for n in (0, 0, 0, 1, 0)]


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("heeds", [True, False])
def test_a_gpu_is_free_when_cancel_returns(
    enter: Callable[[str], None], tmp_path: Path, *, detach: bool, heeds: bool
) -> None:
    def work(note: Path) -> None:
        note.write_text("begun")
        while True:
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                if heeds:
                    raise

    call = remote(gpus=2, detach=detach, keep_alive_period_in_seconds=600)(work)
    future = call.submit(tmp_path / "note")
    until((tmp_path / "note").exists)
    assert lease_gpus(1, tmp_path / "locks", gpus=detect()) is None
    assert future.cancel(wait=True)
    lease = lease_gpus(2, tmp_path / "locks", gpus=detect())
    assert lease is not None
    lease.close()
    assert future.cancelled()


@pytest.mark.parametrize("way", ["call", "map", "job"])
def test_a_gpu_is_free_when_ctrl_c_returns(enter: Callable[[str], None], tmp_path: Path, way: str) -> None:
    def work(note: Path) -> None:
        note.write_text("begun")
        time.sleep(60)

    note = tmp_path / "note"
    call = remote(gpus=2, keep_alive_period_in_seconds=600, name="held" if way == "job" else None)(work)

    def interrupt() -> None:
        until(note.exists)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        list(call.map([note])) if way == "map" else call(note)
    lease = lease_gpus(2, tmp_path / "locks", gpus=detect())
    assert lease is not None
    lease.close()


@pytest.mark.parametrize("way", ["call", "map", "job"])
def test_a_gpu_is_free_when_a_call_that_ran_for_too_long_says_so(
    enter: Callable[[str], None],
    tmp_path: Path,
    way: str,
    capfd: pytest.CaptureFixture[str],  # so that what is told on the way is read
) -> None:
    def too_long() -> None:
        time.sleep(60)

    call = remote(gpus=2, keep_alive_period_in_seconds=600, max_runtime_in_seconds=1)(too_long)
    ways: dict[str, Callable[[], object]] = {
        "map": lambda: list(call.starmap([()])),
        "call": lambda: call.submit().result(SECONDS),
        "job": lambda: call.options(detach=True).submit().result(SECONDS),
    }
    with pytest.raises(MaxRuntimeExceeded, match="too_long"):
        ways[way]()
    lease = lease_gpus(2, tmp_path / "locks", gpus=detect())
    assert lease is not None
    lease.close()
    if way == "call":
        assert "time.sleep(60)" in capfd.readouterr().err


def cli(*arguments: str) -> Any:
    ran = subprocess.run(
        [sys.executable, "-m", "remote_exec.cli", *arguments, "--json"],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    return (
        [json.loads(line) for line in ran.stdout.splitlines()]
        if "logs" in arguments
        else json.loads(ran.stdout)
    )


@pytest.mark.usefixtures("enter")
def test_top_says_who_holds_which_gpu_and_how_busy_it_is_and_so_does_the_record_of_the_call(
    host: Host,
    tmp_path: Path,
) -> None:
    gates, use = [tmp_path / "gate-0", tmp_path / "gate-1"], tmp_path / "use"
    use.write_text("0 30 95\n")
    first = hold.submit(tmp_path / "note-0", gates[0])
    pid, _ = begun(tmp_path / "note-0")
    second = share.submit(tmp_path / "note-1", gates[1])
    other, _ = begun(tmp_path / "note-1")
    busy, shared = cli("top", *(() if host.here else ("--on", "home")))["gpus"]
    assert (busy["uuid"], busy["memory_used_bytes"] >> 30, busy["memory_total_bytes"] >> 30) == (
        GPUS[0],
        30,
        80,
    )
    assert (busy["name"], busy["percent"]) == ("Stand-in 0", 95)
    assert [(one["call"], one["pid"], one["gpus"]) for one in busy["held_by"]] == [(first.job, pid, 1)]
    assert [(one["call"], one["pid"], one["gpus"]) for one in shared["held_by"]] == [(second.job, other, 0.5)]
    until(lambda: cli("jobs", first.job)["gpus"])
    use.write_text("0 20 50\n")

    def seen() -> tuple[int, int, int]:
        (gpu,) = cli("jobs", first.job)["gpus"]
        assert gpu["uuid"] == GPUS[0]
        return gpu["memory_used_bytes"] >> 30, gpu["peak_memory_bytes"] >> 30, gpu["percent"]

    until(lambda: seen() == (20, 30, 50))
    told = [row["event"]["gpus"][0] for row in cli("logs", first.job) if "gpus" in row.get("event", {})]
    assert [gpu["percent"] for gpu in told][:: len(told) - 1] == [95, 50]
    drawn = [point.value for point in first.metrics()["system/gpu0_percent"]]
    assert drawn[:: len(drawn) - 1] == [95.0, 50.0]
    assert first.metrics()["system/gpu0_memory_bytes"][-1].value == 20 << 30
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerDied) as caught:
        first.result(SECONDS)
    assert caught.value.certificate is not None
    assert caught.value.certificate.peak_gpu_memory == 30 << 30
    gates[1].touch()
    second.result(SECONDS)


@pytest.mark.usefixtures("enter")
def test_each_rank_of_a_job_sees_a_gpu_of_its_own() -> None:
    @remote(gpus=1, nproc_per_node=2, detach=True, return_all_ranks=True)
    def seen() -> str:
        return os.environ["CUDA_VISIBLE_DEVICES"]

    assert sorted(seen()) == GPUS


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


@pytest.mark.here("the agent of this machine is killed")
@pytest.mark.usefixtures("enter")
def test_an_adopted_worker_goes_on_holding_its_gpu(tmp_path: Path) -> None:
    gates = [tmp_path / f"gate-{number}" for number in range(3)]
    first = hold.submit(tmp_path / "note-0", gates[0])
    _, visible = begun(tmp_path / "note-0")
    session = connections.session()
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


@pytest.mark.here("elsewhere the host's own variables hold")
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
