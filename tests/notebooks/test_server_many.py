"""The server extension where ten thousand jobs are kept: with no agent, then with one, then without it again."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import Server, keep_jobs, part, served

from remote_exec.backends import local
from remote_exec.client.looking import look
from remote_exec.client.session import open_session
from remote_exec.model.layout import Layout

COUNT = 10_000
SCRIPT = "<script>alert('a job')</script>"
SECONDS = 60.0


@pytest.fixture
def layout(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, session_home: Path
) -> Iterator[Layout]:
    """A state directory of its own, which is full of jobs."""
    home = session_home / "many"
    monkeypatch.setenv("REMOTE_EXEC_HOME", str(home))
    layout = Layout.of(os.environ)
    keep_jobs(layout, [*(f"call-{number:05}" for number in range(COUNT - 1)), SCRIPT])
    yield layout
    shutil.rmtree(home)


@pytest.fixture
def server(layout: Layout, tmp_path: Path) -> Iterator[Server]:
    """A server beside it."""
    with served(tmp_path / "s") as made:
        yield made


def test_ten_thousand_jobs_are_listed_with_and_without_an_agent(server: Server, layout: Layout) -> None:
    assert server.ask("status").value["agent"] == "none"
    assert server.ask("hosts").value["hosts"][0]["state"] == "no agent"
    told = server.ask("jobs").value
    assert (told["total"], len(told["jobs"]), told["jobs"][0]["name"]) == (COUNT, 200, SCRIPT)
    assert told["counts"]["failed"] == COUNT // 10
    assert server.ask(f"jobs/{part(SCRIPT)}").value["job"]["name"] == SCRIPT
    refused = server.act(f"jobs/{part(SCRIPT)}/cancel")
    assert (refused.status, refused.value["hint"]) == (503, "remote-exec hosts start")
    assert local.connect(layout) is None  # looking has started none

    async def page() -> None:
        async with server.page() as one:
            await one.look(1, "jobs", first=9_900, count=50)
            await one.look(2, "status")
            window = (await one.frame(1))["value"]
            assert [row["name"] for row in window["jobs"]] == [
                f"call-{number:05}" for number in range(99, 49, -1)
            ]
            assert (await one.frame(2))["value"]["agent"] == "none"
            await one.look(1, "jobs", search="train call-0123", states=["failed"], first=0)
            assert (await one.frame(1))["value"]["total"] == 1

            await one.look(1, "jobs", count=1)
            agent = await asyncio.to_thread(open_session, local.here())
            try:
                await one.frame(2, lambda frame: frame["value"]["agent"] == "running")
                frame = await one.frame(1, lambda frame: frame["value"]["agent"] == "running")
                assert frame["value"]["total"] == COUNT
                told = await asyncio.to_thread(server.ask, "jobs", first=5_000, count=3)
                assert [row["name"] for row in told.value["jobs"]] == [
                    "call-04999",
                    "call-04998",
                    "call-04997",
                ]
            finally:
                agent.start("stop").result(SECONDS)
                agent.close()
            await one.frame(2, lambda frame: frame["value"]["agent"] == "none")
            told = await asyncio.to_thread(server.ask, "jobs", search="call-00042")
            assert told.value["total"] == 1

    asyncio.run(asyncio.wait_for(page(), SECONDS * 2))


def test_who_looks_keeps_no_agent_alive(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMOTE_EXEC_AGENT_IDLE_TIMEOUT_IN_SECONDS", "1")
    agent = open_session(local.here())
    looker = look(local.here(), local.connect(layout))
    pieces: Any = looker.follow("watch", {})
    while not next(pieces)["whole"]:
        pass
    agent.close()
    deadline = time.monotonic() + SECONDS
    while not looker.lost and time.monotonic() < deadline:
        time.sleep(0.05)
    assert looker.lost
