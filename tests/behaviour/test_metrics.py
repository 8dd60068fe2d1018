"""Metrics that a function logs, and what it is seen to use: live while it runs, and kept whatever becomes of it."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import command
from waiting import until

from remote_exec import RemoteFuture, current_job, get_future, log_metrics, remote
from remote_exec.errors import WorkerDied

SECONDS = 60.0
BOTH = pytest.mark.parametrize("attached", [True, False], ids=["call", "job"])


def begin(function: Any, *args: Any, attached: bool) -> RemoteFuture[Any]:
    begun: RemoteFuture[Any] = (function if attached else function.options(detach=True)).submit(*args)
    return begun


def logged(future: RemoteFuture[Any]) -> dict[str, list[tuple[int | None, float]]]:
    """Return the steps and values of what a function has logged itself."""
    return {
        name: [(point.step, point.value) for point in points]
        for name, points in future.metrics().items()
        if not name.startswith("system/")
    }


@BOTH
def test_metrics_are_seen_while_the_function_runs_and_are_kept(attached: bool, tmp_path: Path) -> None:
    go = tmp_path / "go"

    @remote
    def train() -> None:
        print("begins")
        for step in range(3):
            log_metrics({"loss": 1 / (step + 1), "accuracy": step}, step=step)
        until(go.exists)
        log_metrics({"loss": math.inf})

    before = time.time()
    future = begin(train, attached=attached)
    found = until(lambda: logged(future))
    assert found == {"loss": [(0, 1.0), (1, 0.5), (2, 1 / 3)], "accuracy": [(0, 0.0), (1, 1.0), (2, 2.0)]}
    assert not future.done()
    go.touch()
    future.result(SECONDS)
    assert logged(future)["loss"][3:] == [(None, math.inf)]
    times = [point.time for point in future.metrics()["loss"]]
    assert times == sorted(times)
    assert before - 1 < times[0] <= times[-1] < time.time() + 1
    until(lambda: "succeeded" in command("jobs", "--prefix", future.job))
    assert logged(get_future(future.job)) == logged(future)
    assert command("logs", future.job) == "begins\n"  # nothing of them is text
    rows = [json.loads(line) for line in command("metrics", future.job, "--json").splitlines()]
    assert [row["value"] for row in rows if row["name"] == "loss"][2:] == [1 / 3, "Infinity"]
    table = command("metrics", future.job).splitlines()
    assert table[0].split() == ["METRIC", "LAST", "STEP", "LEAST", "MOST", "POINTS"]
    assert table[1].split() == ["loss", "inf", "0.333333", "1", "4"]


@BOTH
def test_what_was_logged_before_a_death_is_there_after_it(attached: bool) -> None:
    @remote
    def die() -> None:
        for step in range(100):
            log_metrics({"loss": float(step)}, step)
        os.kill(os.getpid(), signal.SIGKILL)

    future = begin(die, attached=attached)
    with pytest.raises(WorkerDied):
        future.result(SECONDS)
    assert logged(future) == {"loss": [(step, float(step)) for step in range(100)]}


def test_those_of_a_job_are_those_of_all_its_attempts(tmp_path: Path) -> None:
    @remote(detach=True, max_retry_attempts=1)
    def try_again() -> None:
        first = not (tmp_path / "tried").exists()
        (tmp_path / "tried").touch()
        log_metrics({"loss": 2.0 if first else 1.0}, 0)
        if first:
            os.kill(os.getpid(), signal.SIGKILL)

    future = try_again.submit()
    future.result(SECONDS)
    assert logged(future) == {"loss": [(0, 2.0), (0, 1.0)]}


@BOTH
def test_ranks_of_a_group_are_told_apart(attached: bool) -> None:
    @remote(nproc_per_node=2)
    def train() -> None:
        job = current_job()
        assert job is not None
        assert job.group is not None
        log_metrics({f"metric {number} {'x' * 100}": job.group.rank for number in range(100)})
        log_metrics({"loss": job.group.rank}, step=7)

    future = begin(train, attached=attached)
    future.result(SECONDS)
    found = logged(future)
    assert (found["loss"], found["loss (rank 1)"]) == ([(7, 0.0)], [(7, 1.0)])
    assert len(found) == 2 * 101


def test_metrics_of_generators_threads_and_nested_functions() -> None:
    @remote
    def inner(step: int) -> None:
        log_metrics({"inner": step}, step)

    @remote
    def count() -> Iterator[int]:
        for step in range(3):
            log_metrics({"yielded": step}, step)
            yield step
        thread = threading.Thread(target=log_metrics, args=({"thread": 1}, 1))
        thread.start()
        thread.join()
        inner(5)

    future: RemoteFuture[Any] = remote(lambda: list(count())).submit()
    assert future.result(SECONDS) == [0, 1, 2]
    assert logged(future) == {
        "yielded": [(0, 0.0), (1, 1.0), (2, 2.0)],
        "thread": [(1, 1.0)],
        "inner": [(5, 5.0)],
    }
    assert list(count()) == [0, 1, 2]


def test_a_flood_is_thinned_and_its_last_point_is_there() -> None:
    steps = 150_000

    @remote
    def flood() -> None:
        for step in range(steps):
            log_metrics({"loss": float(step)}, step)

    future = flood.submit()
    future.result(SECONDS)
    points = logged(future)["loss"]
    assert len(points) < steps
    assert [step for step, _ in points[:1000]] == list(range(1000))
    assert points[-1] == (steps - 1, steps - 1.0)
    assert sum(step > steps // 2 for step, _ in points if step is not None) > 100


def test_further_names_than_a_call_can_have_are_left_out_with_a_warning(
    capfd: pytest.CaptureFixture[str],
) -> None:
    @remote
    def log() -> None:
        log_metrics({f"metric {number}": number for number in range(1100)})
        log_metrics({"another": 1, "metric 3": 4})

    future = log.submit()
    future.result(SECONDS)
    found = logged(future)
    assert len(found) == 1000
    assert found["metric 3"] == [(None, 3.0), (None, 4.0)]
    assert capfd.readouterr().err.count("'metric 1000'") == 1


def test_what_a_job_uses_is_looked_at(tmp_path: Path) -> None:
    go = tmp_path / "go"

    @remote(detach=True)
    def work() -> None:
        held = bytearray(os.urandom(1) * 200_000_000)
        while held and not go.exists():
            pass

    future = work.submit()
    until(lambda: "system/cpu_percent" in future.metrics())
    go.touch()
    future.result(SECONDS)
    found = future.metrics()
    assert all(point.value > 200e6 for point in found["system/memory_bytes"])
    assert all(point.value > 0 for point in found["system/cpu_percent"])


@pytest.mark.here("it is about this machine's disk")
def test_they_are_read_where_no_agent_runs(own_host: Callable[..., Any]) -> None:
    own_host()

    @remote(name="kept", detach=True)
    def train() -> None:
        log_metrics({"loss": 0.25}, step=3)

    train()
    command("hosts", "stop")
    (row,) = map(json.loads, command("metrics", "kept", "--json").splitlines())
    assert (row["name"], row["step"], row["value"]) == ("loss", 3, 0.25)


def test_quick_calls_that_log_none_have_none() -> None:
    @remote
    def quick() -> int:
        return 1

    future = quick.submit()
    future.result(SECONDS)
    assert future.metrics() == {}
