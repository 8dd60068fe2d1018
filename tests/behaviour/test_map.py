"""Many values of one function: generators, coroutines, futures, `map`."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, as_completed, wait
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from remote_exec import list_futures, remote
from remote_exec.errors import MaxRuntimeExceeded, SerializationError

SECONDS = 30.0  # no test should come near it


def hold(gate: Path) -> None:
    """What a worker does until a test lets it go on."""
    until(gate.exists)


def generate(n: int) -> Iterator[int]:
    yield from range(n)


count = remote(generate)


@remote
async def count_slowly(n: int) -> AsyncIterator[int]:
    for i in range(n):
        await asyncio.sleep(0)
        yield i


@remote
def square(x: int) -> int:
    return x * x


@remote
async def square_later(x: int) -> int:
    await asyncio.sleep(0.001)
    return x * x


@remote
def wait_for(gate: str, answer: Any = None) -> Any:
    hold(Path(gate))
    return answer


@remote
def touch_and_sleep(began: str, ended: str) -> None:
    try:
        Path(began).touch()
        time.sleep(60)
    finally:
        Path(ended).touch()


# --- generators ---


def test_values_come_as_they_are_made(tmp_path: Path) -> None:
    @remote
    def steps() -> Iterator[str]:
        for name in "abc":
            yield name
            hold(tmp_path / name)

    values = iter(steps())
    for name in "abc":
        assert next(values) == name  # made while the generator is held after it
        (tmp_path / name).touch()
    assert next(values, None) is None


def test_a_generator_gives_all_its_values_and_what_it_returned() -> None:
    @remote
    def numbers(n: int) -> Any:
        yield from range(n)
        return "the end"

    def around() -> Any:
        returned.append((yield from numbers(1000)))

    returned: list[str] = []
    assert list(around()) == list(range(1000))
    assert returned == ["the end"]
    assert list(count(0)) == []
    assert list(count_slowly(200)) == list(range(200))


@pytest.mark.parametrize("how", ["break", "close", "drop", "with"])
@pytest.mark.parametrize("taken", [1, 500])
def test_a_generator_that_is_left_runs_its_finally(tmp_path: Path, how: str, taken: int) -> None:
    @remote(max_parallel_jobs=1)
    def endless() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            (tmp_path / "ended").touch()

    values: Any = endless()
    if how == "with":
        with contextlib.closing(values):
            assert list(itertools.islice(values, taken)) == list(range(taken))
    elif how == "break":
        for value in values:
            if value == taken:
                break
    else:
        assert list(itertools.islice(values, taken)) == list(range(taken))
    if how == "close":
        values.close()
        assert next(values, "closed") == "closed"
    del values
    until((tmp_path / "ended").exists)
    assert next(endless()) == 0  # its worker is free


def test_an_exception_in_the_middle_comes_behind_the_values_before_it() -> None:
    @remote
    def fails_at(n: int) -> Iterator[int]:
        yield from range(n)
        raise KeyError("middle")

    values = fails_at(100)
    assert list(itertools.islice(values, 100)) == list(range(100))
    with pytest.raises(KeyError, match="middle"):
        next(values)
    assert next(values, "over") == "over"


def test_a_value_that_cannot_be_sent_ends_the_generator(tmp_path: Path) -> None:
    @remote
    def mixed() -> Iterator[Any]:
        try:
            yield 1
            yield threading.Lock()
        finally:
            (tmp_path / "ended").touch()

    values = mixed()
    assert next(values) == 1
    with pytest.raises(SerializationError, match=r"_thread\.lock"):
        next(values)
    assert (tmp_path / "ended").exists()


def test_an_async_generator_can_be_awaited_and_left(tmp_path: Path) -> None:
    @remote
    async def endless() -> AsyncIterator[int]:
        try:
            for i in itertools.count():
                yield i
                await asyncio.sleep(0 if i < 3 else 60)
        finally:
            await asyncio.sleep(0)
            (tmp_path / "ended").touch()

    async def consume() -> list[int]:
        return [value async for value in count_slowly(5)]

    async def leave(found: list[int]) -> None:
        async for value in endless():
            found.append(value)

    found: list[int] = []
    assert asyncio.run(consume()) == [0, 1, 2, 3, 4]
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(leave(found), 0.5))
    assert found in ([], [0, 1, 2, 3])  # a slow machine may not have begun
    until((tmp_path / "ended").exists)


@pytest.mark.parametrize("made", ["submit", "aio", "map", "job", "plain function", "partial"])
def test_where_nobody_streams_a_generators_values_are_a_list(made: str) -> None:
    expected = list(range(1000))
    ways: dict[str, Callable[[], Any]] = {
        "submit": lambda: count.submit(1000).result(SECONDS),
        "aio": lambda: asyncio.run(count_slowly.aio(1000)),
        "map": lambda: next(count.map([1000])),
        "job": lambda: count.options(detach=True).submit(1000).result(SECONDS),
        "plain function": lambda: remote(lambda n: (i for i in range(n)))(1000),
        "partial": lambda: list(remote(functools.partial(generate, 1000))()),
    }
    assert ways[made]() == expected


def test_a_generators_time_is_limited_too() -> None:
    @remote(max_runtime_in_seconds=0.5)
    def stuck() -> Iterator[int]:
        yield 1
        time.sleep(60)

    @remote(max_runtime_in_seconds=0.5)
    async def stuck_later() -> None:
        await asyncio.sleep(60)

    values = stuck()
    assert next(values) == 1
    with pytest.raises(MaxRuntimeExceeded):
        next(values)
    with pytest.raises(MaxRuntimeExceeded):
        stuck_later()


# --- coroutines ---


def test_async_functions_give_their_values_in_every_way_of_calling() -> None:
    async def gather() -> list[int]:
        return await asyncio.gather(
            *(function.aio(x) for x in range(20) for function in (square, square_later))
        )

    assert asyncio.run(gather()) == [x * x for x in range(20) for _ in range(2)]
    assert square_later(3) == square_later.submit(3).result(SECONDS) == 9
    assert list(square_later.map(range(5))) == [0, 1, 4, 9, 16]


def test_cancelling_the_coroutine_stops_the_call(tmp_path: Path) -> None:
    began, ended = tmp_path / "began", tmp_path / "ended"

    async def cancel() -> bool:
        task = asyncio.ensure_future(touch_and_sleep.aio(str(began), str(ended)))
        await asyncio.to_thread(until, began.exists)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return task.cancelled()

    assert asyncio.run(cancel())
    until(ended.exists)


def test_one_failure_among_gathered_calls_is_raised_and_the_others_go_on() -> None:
    async def gather() -> list[Any]:
        calls = (remote(lambda x: 1 // x).aio(x) for x in (1, 0, -1))
        return await asyncio.gather(*calls, return_exceptions=True)

    first, second, third = asyncio.run(gather())
    assert (first, type(second), third) == (1, ZeroDivisionError, -1)


# --- futures ---


def test_a_futures_state_can_be_watched_and_waited_for(tmp_path: Path) -> None:
    gates = [tmp_path / name for name in "ab"]
    held = wait_for.options(max_parallel_jobs=1)
    running, queued = (held.submit(str(gate), gate.name) for gate in gates)
    heard: list[str] = []
    running.add_done_callback(lambda done: heard.append(done.result()))
    until(lambda: running.status == "running")
    assert queued.status == "queued"
    assert "position 1 in this process's queue" in queued.why()
    assert (running.done(), queued.done()) == (False, False)
    with pytest.raises(TimeoutError):
        running.result(timeout=0.01)
    gates[0].touch()
    assert wait([running, queued], SECONDS, FIRST_COMPLETED).done == {running}
    gates[1].touch()
    assert [future.result() for future in as_completed([running, queued], SECONDS)] == ["a", "b"]
    assert heard == ["a"]
    assert (running.status, running.why()) == ("succeeded", "it has succeeded")


def test_what_is_cancelled_is_free_when_cancel_has_waited(tmp_path: Path) -> None:
    began, ended, gate = tmp_path / "began", tmp_path / "ended", tmp_path / "gate"
    gate.touch()
    held = touch_and_sleep.options(max_parallel_jobs=1)
    running = held.submit(str(began), str(ended))
    queued = [held.submit("never", "never") for _ in range(3)]
    until(began.exists)
    assert all(future.cancel() and future.cancelled() for future in queued)
    assert running.cancel(wait=True)
    assert ended.exists()
    for future in (running, *queued):
        assert future.cancelled()
        with pytest.raises(CancelledError):
            future.result()
        assert not future.cancel() or future.cancelled()
    assert wait_for.options(max_parallel_jobs=1)(str(gate), "well") == "well"


def test_what_waits_behind_another_call_on_its_worker_is_cancelled_at_once(tmp_path: Path) -> None:
    gate, opened = tmp_path / "gate", tmp_path / "opened"
    opened.touch()
    held = wait_for.options(max_parallel_jobs=1)
    for _ in range(20):  # now such calls are thought to be short, and sent ahead
        assert held(str(opened), "quick") == "quick"
    running, behind = held.submit(str(gate), "running"), held.submit(str(opened), "behind")
    assert behind.why() == "1 calls run before it on its worker"
    assert behind.cancel(wait=True)
    assert not running.done()
    gate.touch()
    assert running.result(SECONDS) == "running"


def test_calls_are_listed_by_their_names(tmp_path: Path) -> None:
    @remote
    def listed_by_name(gate: str) -> int:
        hold(Path(gate))
        return 7

    future = listed_by_name.submit(str(tmp_path / "gate"))
    until(lambda: future.job and future.job in [found.job for found in list_futures("listed_by_name")])
    (tmp_path / "gate").touch()
    assert future.result(SECONDS) == 7
    until(lambda: [found.status for found in list_futures(future.job)] == ["succeeded"])
    assert not list(list_futures("nothing_of_this_name"))


# --- map ---


@pytest.mark.parametrize("ordered", [True, False])
def test_a_hundred_thousand_items(ordered: bool) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for x in range(100_000):
            taken += 1
            yield x

    values = square.map(items(), ordered=ordered)
    first = [next(values) for _ in range(100)]
    assert taken < 50_000  # the arguments are taken as values are
    rest = list(values)
    assert (sorted(first + rest) if not ordered else first + rest) == [x * x for x in range(100_000)]


def test_an_endless_iterator_is_taken_from_as_needed_and_then_left() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for x in itertools.count():
            taken.append(x)
            yield x

    values: Any = square.map(items())
    assert list(itertools.islice(values, 20)) == [x * x for x in range(20)]
    values.close()
    seen = len(taken)
    assert square(3) == 9
    assert len(taken) == seen < 20_000


def test_map_takes_iterables_together_and_tuples_apart() -> None:
    assert list(remote(pow).map([2, 3, 4], [3, 2])) == [8, 9]
    assert list(remote(pow).starmap([(2, 3), (3, 2, 5)])) == [8, 4]
    assert list(square.map([])) == list(square.map()) == list(square.starmap([])) == []


def test_values_that_are_ready_come_first_when_unordered(tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    @remote(max_parallel_jobs=2)
    def first_waits(x: int) -> int:
        if x == 0:
            hold(gate)
        return x

    values = first_waits.map(range(4), ordered=False)
    first = next(values)
    gate.touch()
    rest = list(values)
    assert first != 0
    assert sorted([first, *rest]) == [0, 1, 2, 3]


def test_the_first_failure_is_raised_in_its_place_or_returned() -> None:
    inverse = remote(lambda x: 100 // x)
    values = inverse.map([1, 2, 0, 4])
    assert [next(values), next(values)] == [100, 50]
    with pytest.raises(ZeroDivisionError):
        next(values)
    assert next(values, "over") == "over"
    found = list(inverse.map([1, 0, 4], return_exceptions=True))
    assert (found[0], type(found[1]), found[2]) == (100, ZeroDivisionError, 25)


@pytest.mark.parametrize("ordered", [True, False])
def test_an_item_that_cannot_be_sent_is_its_own_failure(ordered: bool) -> None:
    items = [threading.Lock() if x in (0, 700, 1999) else x for x in range(2000)]
    values = list(remote(lambda x: x).map(items, return_exceptions=True, ordered=ordered))
    failed = [value for value in values if isinstance(value, SerializationError)]
    assert len(failed) == 3
    assert len(values) == 2000
    with pytest.raises(SerializationError, match="argument 0"):
        list(remote(lambda x: x).map(items[1:]))


def test_what_the_iterator_raises_comes_behind_the_values_of_those_before() -> None:
    def items() -> Iterator[int]:
        yield from range(1500)
        raise LookupError("no more")

    values = square.map(items())
    assert list(itertools.islice(values, 1500)) == [x * x for x in range(1500)]
    with pytest.raises(LookupError, match="no more"):
        next(values)


@pytest.mark.parametrize("how", ["late", "left", "dropped"])
def test_a_map_that_is_late_or_left_stops_what_runs(tmp_path: Path, how: str) -> None:
    names = [(str(tmp_path / f"began-{x}"), str(tmp_path / f"ended-{x}")) for x in range(50)]
    values: Any = touch_and_sleep.starmap(names, timeout=0.5 if how == "late" else None)
    until(lambda: list(tmp_path.glob("began-*")))
    if how == "late":
        with pytest.raises(TimeoutError):
            next(values)
    elif how == "left":
        values.close()
    del values
    until(lambda: len(list(tmp_path.glob("began-*"))) <= len(list(tmp_path.glob("ended-*"))))
    assert square(2) == 4
    assert len(list(tmp_path.glob("began-*"))) < 10


@pytest.mark.parametrize("workers", [1, 2])
def test_no_more_calls_run_at_once_than_allowed(tmp_path: Path, workers: int) -> None:
    @remote(max_parallel_jobs=workers)
    def how_many(x: int) -> int:
        mine = tmp_path / f"{workers}-{x}"
        mine.touch()
        found = len(os.listdir(tmp_path))
        time.sleep(0.01)
        mine.unlink()
        return found

    futures = [how_many.submit(x) for x in range(100, 120)]
    assert max(how_many.map(range(20))) <= workers
    assert max(future.result(SECONDS) for future in futures) <= workers


def test_sixteen_threads_call_at_once() -> None:
    found: dict[int, list[int]] = {}

    def work(number: int) -> None:
        base = 1000 * number
        mine = [square(base + x) for x in range(30)]
        mine += [future.result(SECONDS) for future in [square.submit(base + x) for x in range(30)]]
        found[number] = mine + list(square.map(range(base, base + 30)))

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert not any(thread.is_alive() for thread in threads)
    for number in range(16):
        assert found[number] == [(1000 * number + x) ** 2 for x in range(30)] * 3
