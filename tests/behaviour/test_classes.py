"""Instances in workers, executors, workers' state, calls within calls, processes that fork."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import BrokenExecutor, CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from waiting import until

from remote_exec import RemoteExecutor, remote
from remote_exec.errors import HostUnavailable, WorkerDied

SECONDS = 30.0  # no test should come near it


@remote
class Counter:
    """Counts, in a worker of its own."""

    def __init__(self, value: int = 0, *, step: int = 1) -> None:
        if value < 0:
            raise ValueError("too low", value)
        self.value, self.step = value, step

    def add(self, times: int = 1) -> int:
        self.value += times * self.step
        return self.value

    def up_to(self, n: int) -> Iterator[int]:
        while self.value < n:
            yield self.add()

    async def add_later(self) -> int:
        await asyncio.sleep(0)
        return self.add()

    async def up_to_later(self, n: int) -> AsyncIterator[int]:
        while self.value < n:
            yield self.add()

    def pid(self) -> int:
        return os.getpid()

    def fail(self) -> None:
        raise LookupError("inside")

    def die(self) -> None:
        os._exit(3)

    def sleep(self, began: str) -> None:
        Path(began).touch()
        time.sleep(60)


@remote
def square(x: int) -> int:
    return x * x


@remote
async def square_later(x: int) -> int:
    return x * x


@remote
def depth(n: int) -> int:
    return 0 if n == 0 else 1 + depth.submit(n - 1).result(SECONDS)


# --- classes ---


def test_an_instance_keeps_its_state_in_every_way_of_calling() -> None:
    with Counter(10, step=2) as counter:
        assert counter.add() == 12
        assert [future.result(SECONDS) for future in [counter.add.submit() for _ in range(3)]] == [14, 16, 18]
        assert asyncio.run(counter.add.aio(5)) == 28
        assert counter.add_later() == 30
        assert list(counter.up_to(40)) == [32, 34, 36, 38, 40]
        assert list(counter.up_to_later(44)) == [42, 44]
        assert counter.value() == 44
        with pytest.raises(LookupError, match="inside"):
            counter.fail()
        with pytest.raises(AttributeError, match="nothing"):
            counter.nothing()
        assert counter.add() == 46
    assert Counter.local(1).add() == 2


def test_instances_are_apart() -> None:
    with Counter(1) as one, Counter(100) as other:
        assert (one.add(), other.add(), one.add(), other.add()) == (2, 101, 3, 102)
        assert one.pid() != other.pid()


def test_what_a_constructor_raises_is_raised() -> None:
    with pytest.raises(ValueError, match="too low") as caught:
        Counter(-1)
    assert caught.value.args == ("too low", -1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'other'"):
        Counter(other=1)


def test_a_temporary_instance_lives_until_its_calls_have_ended() -> None:
    assert Counter(1).add() == 2
    assert Counter(1).add.submit().result(SECONDS) == 2
    assert list(Counter(1).up_to(4)) == [2, 3, 4]


def test_a_closed_instance_says_so_and_what_ran_is_cancelled(tmp_path: Path) -> None:
    counter = Counter()
    running, queued = counter.sleep.submit(str(tmp_path / "began")), counter.add.submit()
    until((tmp_path / "began").exists)
    counter.close()
    counter.close()
    for future in (running, queued):
        with pytest.raises(CancelledError):
            future.result(SECONDS)
    with pytest.raises(WorkerDied, match="the instance was closed"):
        counter.add()


def test_a_dead_instance_fails_what_waits_and_what_comes() -> None:
    counter = Counter()
    dead, behind = counter.die.submit(), counter.add.submit()
    for future in (dead, behind):
        assert isinstance(future.exception(SECONDS), WorkerDied)
    with pytest.raises(WorkerDied, match="exit code 3"):
        counter.add()


def test_a_worker_that_died_while_nothing_ran_on_it_is_told_by_the_next_call() -> None:
    @remote
    class Held:
        def pid(self) -> int:
            return os.getpid()

    kill = remote(os.kill)  # where the worker is
    for pause in (0.0, 0.03, 0.06, 0.12):  # before and after this process has heard of it
        held = Held()
        kill(held.pid(), signal.SIGKILL)
        time.sleep(pause)
        with pytest.raises(WorkerDied, match="SIGKILL"):
            held.pid.submit().result(SECONDS)


def test_an_instance_that_was_idle_for_too_long_says_so() -> None:
    counter = Counter.options(keep_alive_period_in_seconds=1)(5)
    process = Path("/proc", str(counter.pid()))
    is_there = remote(os.path.exists)
    until(lambda: not is_there(process))
    with pytest.raises(WorkerDied, match="keep_alive_period_in_seconds"):
        counter.add()


# --- executors ---


def test_an_initializer_runs_once_in_each_worker(tmp_path: Path) -> None:
    def prepare(value: int) -> None:
        import builtins

        builtins.prepared = value  # type: ignore[attr-defined]
        (tmp_path / str(os.getpid())).touch()

    def look(x: int) -> tuple[int, int]:
        import builtins

        time.sleep(0.005)
        return builtins.prepared + x, os.getpid()  # type: ignore[attr-defined]

    with RemoteExecutor(2, initializer=prepare, initargs=(100,)) as executor:
        found = list(executor.map(look, range(40)))
    assert [value for value, _ in found] == [100 + x for x in range(40)]
    assert {str(pid) for _, pid in found} == set(os.listdir(tmp_path))


def test_an_initializer_that_fails_breaks_its_executor() -> None:
    def prepare() -> None:
        raise ValueError("not today")

    with RemoteExecutor(1, initializer=prepare) as executor:
        error = executor.submit(pow, 2, 3).exception(SECONDS)
        assert isinstance(error, BrokenExecutor)
        assert isinstance(error.__cause__, ValueError)
        with pytest.raises(BrokenExecutor, match="not today"):
            executor.submit(pow, 2, 3)


def test_shutdown_can_cancel_what_has_not_begun(tmp_path: Path) -> None:
    def hold(name: str) -> str:
        (tmp_path / f"began-{name}").touch()
        until((tmp_path / "gate").exists)
        return name

    executor = RemoteExecutor(1)
    running, *queued = (executor.submit(hold, name) for name in "abcd")
    until((tmp_path / "began-a").exists)
    executor.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in queued)
    (tmp_path / "gate").touch()
    assert running.result(SECONDS) == "a"
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(pow, 2, 3)


# --- what a worker keeps ---


def test_module_state_stays_within_a_pool_and_never_crosses_to_another() -> None:
    @remote(max_parallel_jobs=1)
    def visit() -> tuple[int, str | None]:
        import this_is_nowhere_else as module  # type: ignore[import-not-found]

        module.visits += 1
        return module.visits, os.environ.get("FLAVOUR")

    @remote(max_parallel_jobs=1)
    def prepare() -> None:
        import sys
        import types

        module: Any = types.ModuleType("this_is_nowhere_else")
        module.visits = 0
        sys.modules.setdefault("this_is_nowhere_else", module)

    sweet, sour = ({"environment_variables": {"FLAVOUR": taste}} for taste in ("sweet", "sour"))
    for options in (sweet, sour):
        prepare.options(**options)()
    assert [visit.options(**sweet)() for _ in range(2)] == [(1, "sweet"), (2, "sweet")]
    assert visit.options(**sour)() == (1, "sour")
    assert visit.options(**sweet)() == (3, "sweet")
    with pytest.raises(ModuleNotFoundError):
        visit.options(environment_variables={"FLAVOUR": "none"})()


@pytest.mark.here("elsewhere the host's own variables hold")
def test_a_changed_environment_variable_is_seen_by_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    @remote
    def look() -> str | None:
        return os.environ.get("SEEN_BY_THE_NEXT_CALL")

    assert look() is None
    monkeypatch.setenv("SEEN_BY_THE_NEXT_CALL", "yes")
    assert look() == "yes"
    monkeypatch.delenv("SEEN_BY_THE_NEXT_CALL")
    assert look() is None


def test_workers_do_not_share_random_state(tmp_path: Path) -> None:
    @remote(max_parallel_jobs=2)
    def draw(x: int) -> tuple[int, float, float]:
        (tmp_path / str(x)).touch()
        until(lambda: len(os.listdir(tmp_path)) == 2)  # both workers are at it
        return os.getpid(), random.random(), float(np.random.rand())

    first, second = draw.map([1, 2])
    assert all(one != other for one, other in zip(first, second, strict=True))


# --- calls within calls ---


def test_calls_within_calls_work_in_every_way() -> None:
    @remote
    def nested(x: int) -> list[Any]:
        async def gather() -> list[int]:
            return await asyncio.gather(square.aio(x), square_later.aio(x), square_later.aio(x))

        with RemoteExecutor(2) as executor, Counter(x) as counter:
            return [
                square(x),
                square_later(x),
                square.submit(x).result(),
                square_later.submit(x).result(),
                list(square.map([x, x])),
                asyncio.run(gather()),
                executor.submit(square.local, x).result(),
                square.options(cpus=1)(x),
                counter.add(),
                counter.add.submit().result(),
                list(counter.up_to(x + 4)),
            ]

    assert nested(3) == [9, 9, 9, 9, [9, 9], [9, 9, 9], 9, 9, 4, 5, [6, 7]]


def test_nested_calls_never_lock_up_a_full_pool() -> None:
    @remote(max_parallel_jobs=2)
    def fan_out(n: int) -> int:
        futures = [depth.submit(3) for _ in range(n)]
        return sum(future.result() for future in futures)

    assert depth(40) == 40
    assert [future.result(SECONDS) for future in [fan_out.submit(20) for _ in range(8)]] == [60] * 8


def test_a_module_that_names_all_of_the_api_can_be_imported_by_a_worker() -> None:
    import remote_exec

    @remote
    def missing(names: list[str]) -> list[str]:
        import remote_exec
        from remote_exec.errors import WorkerDied

        assert issubclass(WorkerDied, Exception)
        return [name for name in names if not hasattr(remote_exec, name)]

    assert missing(remote_exec.__all__) == []


# --- forks ---


def test_a_forked_child_is_told_that_its_parents_calls_are_not_its_own(tmp_path: Path) -> None:
    @remote
    def hold() -> int:
        until((tmp_path / "gate").exists)
        return 7

    counter, future = Counter(5), hold.submit()
    values = iter(square.map(range(5000)))
    assert next(values) == 0
    read, write = os.pipe()
    child = os.fork()
    if not child:
        told: list[str] = []
        for ask in (
            lambda: future.result(),
            lambda: counter.add(),
            future.cancel,
            future.why,
            lambda: square(3),
        ):
            try:
                told.append(str(ask()))
            except (HostUnavailable, WorkerDied) as error:
                told.append(type(error).__name__)
        os.write(write, ";".join(told).encode())
        os._exit(0)
    try:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        told = os.read(read, 1000).decode().split(";")
        assert told[:3] == ["HostUnavailable", "WorkerDied", "False"]
        assert "forked" in told[3]
        assert told[4] == "9"
    finally:
        os.close(read)
        os.close(write)
    (tmp_path / "gate").touch()
    assert future.result(SECONDS) == 7
    assert counter.add() == 6
    counter.close()
    assert list(values) == [x * x for x in range(1, 5000)]


def test_instances_are_called_from_many_threads() -> None:
    with Counter() as counter:
        threads = [
            threading.Thread(target=lambda: [counter.add() for _ in range(25)], daemon=True) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        assert counter.add(0) == 200
