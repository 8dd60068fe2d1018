"""Progress reaches the sink, in bounds, from wherever the loop runs; it is nearly free without one."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from remote_exec.worker.progress import EVENTS_PER_SECOND, Bars, Progress, catch_up, progress, set_sink


@pytest.fixture
def events() -> Iterator[list[dict[str, Any]]]:
    seen: list[dict[str, Any]] = []
    previous = set_sink(seen.append)
    yield seen
    set_sink(previous)


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_first_and_the_last_event_are_always_sent(events: list[dict[str, Any]]) -> None:
    assert list(progress(range(1000), desc="epochs")) == list(range(1000))
    first, last = events[0], events[-1]
    assert (first["done"], first["total"], first["ended"]) == (0, 1000, False)
    assert (last["done"], last["total"], last["ended"]) == (1000, 1000, True)
    assert set(first) == {"id", "desc", "done", "total", "elapsed_seconds", "rate", "ended"}
    assert [event["desc"] for event in (first, last)] == ["epochs", "epochs"]


def test_at_most_ten_events_a_second_are_sent_and_their_figures_are_right(
    events: list[dict[str, Any]],
) -> None:
    clock = Clock()
    with Progress(total=4000, clock=clock) as bar:
        for _ in range(4000):
            clock.now += 0.001
            bar.update()
    assert 4 * (EVENTS_PER_SECOND - 1) <= len(events) <= 4 * EVENTS_PER_SECOND + 2
    assert [event["done"] for event in events] == sorted(event["done"] for event in events)
    assert events[-1]["elapsed_seconds"] == pytest.approx(4.0)
    assert events[-1]["rate"] == pytest.approx(1000)


class Unsized:
    def __iter__(self) -> Iterator[int]:
        return iter([1, 2])


class Hinted(Unsized):
    def __length_hint__(self) -> int:
        return 5


class Failing(Unsized):
    def __len__(self) -> int:
        raise RuntimeError("iterable data set")


@pytest.mark.parametrize(
    ("iterable", "total", "expected"),
    [([1, 2], None, 2), (Unsized(), None, None), (Hinted(), None, 5), (Failing(), None, None), ([1], 9, 9)],
    ids=["len", "unknown", "hint", "failing len", "given"],
)
def test_the_total_is_what_can_be_known(
    events: list[dict[str, Any]], iterable: Iterable[int], total: int | None, expected: int | None
) -> None:
    list(progress(iterable, total=total))
    assert {event["total"] for event in events} == {expected}


def test_a_loop_that_is_left_early_ends_its_bar_with_what_was_done(events: list[dict[str, Any]]) -> None:
    for item in (bar := progress(range(10))):
        if item == 3:
            break
    bar.close()
    assert (events[-1]["done"], events[-1]["ended"]) == (3, True)

    def failing() -> None:
        with Progress(total=2) as by_hand:
            by_hand.update()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert (events[-1]["done"], events[-1]["ended"]) == (1, True)


def test_nested_bars_have_ids_of_their_own(events: list[dict[str, Any]]) -> None:
    for _ in progress(range(2), desc="outer"):
        for _ in progress(range(2), desc="inner"):
            pass
    ids = {desc: {event["id"] for event in events if event["desc"] == desc} for desc in ("outer", "inner")}
    assert (len(ids["outer"]), len(ids["inner"])) == (1, 2)
    assert not ids["outer"] & ids["inner"]


def test_updates_from_many_threads_are_all_counted(events: list[dict[str, Any]]) -> None:
    with Progress() as bar:
        threads = [threading.Thread(target=lambda: [bar.update() for _ in range(2000)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert events[-1]["done"] == 8000
    bar.update()
    bar.close()
    assert events[-1]["done"] == 8000


def test_outside_a_worker_it_just_iterates_and_a_broken_sink_breaks_no_loop() -> None:
    assert list(progress(iter("ab"))) == ["a", "b"]

    def broken(event: dict[str, Any]) -> None:
        raise OSError("the display is gone")

    previous = set_sink(broken)
    try:
        assert list(progress("ab")) == ["a", "b"]
    finally:
        assert set_sink(previous) is broken


def test_a_bar_that_stands_still_is_told_in_full(events: list[dict[str, Any]]) -> None:
    clock = Clock()
    bar = Progress(total=10, clock=clock)
    bar.update(3)
    assert events[-1]["done"] == 0  # too soon to be told
    catch_up()
    assert events[-1]["done"] == 0
    clock.now += 1
    catch_up()
    catch_up()
    assert [event["done"] for event in events] == [0, 3]
    bar.close()
    catch_up()
    assert len(events) == 3


def test_bars_of_loops_in_loops_are_shown_as_they_stand_and_not_too_often(
    events: list[dict[str, Any]],
) -> None:
    bars = Bars(seconds=1.0)
    shown: list[list[tuple[str, float, bool]]] = []
    for now, _ in enumerate(progress(range(3), desc="outer")):
        for _ in range(100):
            for _ in progress(range(2), desc="inner"):
                for event in events:
                    bars.take(event)
                events.clear()
                shown += [[(one["desc"], one["done"], one["ended"]) for one in bars.due(now)] or []]
    for event in events:
        bars.take(event)
    told = [one for one in shown if one]
    assert len(told) == 2  # at seconds 1 and 2; before that a second has not passed
    assert all([desc for desc, _, _ in one] == ["outer", "inner"] for one in told)
    (last,) = bars.rest()
    assert (last["desc"], last["done"], last["ended"]) == ("outer", 3, True)
    assert bars.rest() == []
