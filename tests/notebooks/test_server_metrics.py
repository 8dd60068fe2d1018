"""A job's metrics as a page is told them, in a real server beside a real agent."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import server_work as work
from hypothesis import given
from hypothesis import strategies as st
from server_work import start
from servers import Server, served

from jupyter_ext.server.messages import Sample
from jupyter_ext.server.series import MOST_SAMPLES, MOST_SERIES, AllSeries
from remote_exec.client.connections import connections

SECONDS = 60.0
VALUES = st.lists(st.floats(), max_size=MOST_SAMPLES * 3)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server, and an agent of this module's with a worker."""
    connections.session()
    with served(tmp_path_factory.mktemp("server") / "s") as made:
        yield made


def test_page_sees_metrics_grow_and_has_them_all_at_the_end(server: Server, gate: Path) -> None:
    async def page() -> None:
        async with server.page() as one:
            job = await asyncio.to_thread(start, work.fit, 3, str(gate))
            await one.look(1, "metrics", name=job.job)
            told: dict[str, list[Any]] = {}
            await hear(one, told, until=lambda: len(told.get("loss", ())) == 3)
            assert [sample[1:3] for sample in told["loss"]] == [[0, 1.0], [1, 0.5], [2, 1 / 3]]
            gate.touch()
            frame = await hear(one, told, until=None)
            assert told["loss"][3][1:] == [3, None, None, None, "NaN"]
            assert told["loss"][4][1:] == [4, 0.1, 0.1, 0.1, ""]
        async with server.page() as late:
            await late.look(1, "metrics", name=job.job, host="local")
            frame = await late.frame(1)
            assert (frame["type"], frame["value"]["end"], frame["value"]["left_out"]) == ("snapshot", True, 0)
            assert next(one for one in frame["value"]["series"] if one["name"] == "loss") == {
                "name": "loss",
                "first": 0,
                "samples": told["loss"],
                "count": 5,
                "odd": 1,
                "last": 0.1,
            }
            await late.look(2, "metrics", name="no-such-job")
            assert (await late.frame(2))["problem"]["status"] == 404
            await late.look(3, "metrics")
            assert (await late.frame(0))["problem"]["status"] == 400

    asyncio.run(asyncio.wait_for(page(), 2 * SECONDS))


async def hear(page: Any, told: dict[str, list[Any]], until: Any) -> Any:
    """Put together what comes until something holds, or until the end."""
    while until is None or not until():
        frame = await page.frame(1)
        for change in frame["value"]["series"]:
            told.setdefault(change["name"], [])[change["first"] :] = change["samples"]
        if frame["value"]["end"]:
            return frame
    return None


@given(st.lists(VALUES, max_size=8))
def test_a_chart_gets_few_samples_that_hide_nothing(pieces: list[list[float]]) -> None:
    """Whatever comes in whatever pieces: changes put together are the whole, and least and most are in it."""
    series = AllSeries()
    told: list[Sample] = []
    values: list[float] = []
    for piece in pieces:
        series.add(
            [["loss", float(number), number, value] for number, value in enumerate(piece, len(values))]
        )
        values += piece
        for change in series.changes(end=False).series:
            told[change.first :] = change.samples
            assert change.count == len(values)
            assert change.odd == sum(not math.isfinite(value) for value in values)
    fresh = AllSeries()
    fresh.add([["loss", float(number), number, value] for number, value in enumerate(values)])
    assert told == [sample for one in fresh.changes(end=True).series for sample in one.samples]
    assert len(told) <= MOST_SAMPLES
    finite = [value for value in values if math.isfinite(value)]
    bounds = [bound for sample in told for bound in sample[3:5] if bound is not None]
    assert (min(bounds, default=0.0), max(bounds, default=0.0)) == (
        min(finite, default=0.0),
        max(finite, default=0.0),
    )
    assert [sample[1] for sample in told[-1:]] == [number for number in [len(values) - 1] if values]


def test_more_metrics_than_a_page_can_hold_are_counted() -> None:
    series = AllSeries()
    series.add([[f"metric {number}", 0.0, None, 1.0] for number in range(MOST_SERIES + 3)])
    found = series.changes(end=True)
    assert (len(found.series), found.left_out, found.end) == (MOST_SERIES, 3, True)
