"""The server extension in a real Jupyter server, beside a real agent with real jobs, as the panel asks it."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import server_work as work
from server_work import start
from servers import Server, part, served, until
from tornado.httpclient import HTTPClientError

from remote_exec import RemoteExecutor, RemoteFuture
from remote_exec.client.connections import connections

SECONDS = 60.0
BURST = 300  # jobs at least, and ...
FRAMES = 20  # ... as many as it takes for somebody who reads to be told this often
PAUSE_SECONDS = 0.005
ACTIONS = (
    "jobs/one/cancel",
    "cancel-all",
    "jobs/one/rerun",
    "jobs/one/shell",
    "pools/one/keep",
    "pools/one/release",
)
SCRIPT = "<script>alert('a job')</script>"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server, and an agent of this module's with a worker."""
    connections.session()
    with served(tmp_path_factory.mktemp("server") / "s") as made:
        yield made


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a page's life."""
    asyncio.run(asyncio.wait_for(work, SECONDS * 2))


# --- lists, jobs, logs ------------------------------------------------------------------------------------------


def test_job_is_listed_while_it_runs_with_its_log_and_cancelled_from_there(server: Server) -> None:
    job = start(work.wait_for_ever)
    assert job.job
    row = until(lambda: _row(server, job.job, state="running"))
    assert (row["host"], row["kind"], row["function"]) == ("local", "job", "wait_for_ever")

    piece = until(lambda: _piece(server, job.job))
    assert [record["text"] for record in piece["records"]] == ["I wait\n"]
    assert not piece["end"]

    assert server.act(f"jobs/{part(job.job)}/cancel").value == {"cancelled": True}
    until(lambda: _row(server, job.job, state="cancelled"))
    rest = until(lambda: (found := _logs(server, job.job, piece["next"]))["end"] and found)
    assert rest["records"] == []
    assert server.act(f"jobs/{part(job.job)}/cancel").value == {"cancelled": False}


def test_job_that_failed_tells_its_traceback_with_locals_and_runs_again(server: Server) -> None:
    job = start(work.divide, 1, 0)
    with pytest.raises(ZeroDivisionError):
        job.result()
    told = server.ask(f"jobs/{part(job.job)}").value
    assert told["job"]["state"] == "failed"
    assert told["failure"]["type"] == "builtins.ZeroDivisionError"
    frame = told["failure"]["frames"][-1]
    assert frame["locals"]["denominator"] == "0"
    assert frame["locals"]["remark"] == repr("<script>alert(1)</script>")
    assert "ZeroDivisionError" in told["traceback"]
    assert [attempt["cause"] for attempt in told["attempts"]] == ["user_error"]
    assert told["environment"]["python"]
    assert "def divide" in told["code"]
    assert told["can_rerun"]

    again = server.act(f"jobs/{part(job.job)}/rerun")
    assert again.status == 201
    assert again.value["name"] != job.job
    row = until(lambda: _row(server, again.value["name"], state="failed"))
    assert row["tags"] == {"rerun_of": job.job}


def test_what_is_not_kept_whole_is_not_run_again(server: Server, gate: Path) -> None:
    with RemoteExecutor(max_workers=1) as executor:
        call = executor.submit(work.get_on, 3, str(gate))
        row = until(lambda: _row(server, function="get_on", state="running"))
        refused = server.act(f"jobs/{part(row['name'])}/rerun")
        gate.touch()
        assert call.result() == {"count": 3}
    assert refused.status == 409
    assert "caller" in refused.value["message"]


def test_value_is_told_without_being_loaded(server: Server, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    job = start(work.get_on, 2, str(gate))
    assert job.result() == {"count": 2}
    result = server.ask(f"jobs/{part(job.job)}").value["result"]
    assert (result["type"], result["text"]) == ("builtins.dict", "{'count': 2}")
    other = start(Path, "/tmp")
    assert other.result() == Path("/tmp")
    result = server.ask(f"jobs/{part(other.job)}").value["result"]
    assert result["type"].startswith("pathlib")
    assert result["text"] == ""


def test_list_is_filtered_searched_grouped_and_paged(server: Server, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    jobs = [start(work.say_and_wait, f"{number}", str(gate), name=f"paged-{number}") for number in range(5)]
    for job in jobs:
        job.result()
    names = [f"paged-{number}" for number in reversed(range(5))]
    found = until(
        lambda: (told := _jobs(server, search="PAGED say_and", states="succeeded"))["total"] == 5 and told
    )
    assert [row["name"] for row in found["jobs"]] == names
    window = _jobs(server, search="paged", first=1, count=2, group="host")
    assert [row["name"] for row in window["jobs"]] == names[1:3]
    assert window["groups"] == [{"name": "local", "first": 0, "count": 5}]
    assert _jobs(server, search="paged", states="failed")["total"] == 0
    assert _jobs(server, host="elsewhere")["total"] == 0
    assert server.ask("jobs", states="sleeping").status == 400
    assert len(_jobs(server, count=100_000)["jobs"]) <= 200


def test_names_and_text_are_data(server: Server) -> None:
    job = start(work.refuse, SCRIPT)
    with pytest.raises(ValueError, match="alert"):
        job.result()
    reply = until(lambda: (told := server.ask("jobs", search=SCRIPT)).value["jobs"] and told)
    assert reply.headers["Content-Type"].startswith("application/json")
    assert [row["summary"] for row in reply.value["jobs"]] == [f"ValueError: {SCRIPT}"]
    detail = server.ask(f"jobs/{part(job.job)}")
    assert detail.headers["Content-Type"].startswith("application/json")
    assert detail.value["failure"]["message"] == SCRIPT
    piece = server.ask(f"jobs/{part(job.job)}/logs")
    assert piece.headers["Content-Type"].startswith("application/json")
    assert piece.value["records"][0]["text"] == f"{SCRIPT}\n"
    file = server.ask(f"jobs/{part(job.job)}/logs", download=1)
    assert file.headers["Content-Type"].startswith("text/plain")
    assert file.headers["X-Content-Type-Options"] == "nosniff"
    assert file.headers["Content-Disposition"].startswith("attachment;")
    assert file.text.startswith(f"{SCRIPT}\n")
    missing = server.ask(f"jobs/{part(SCRIPT)}")
    assert missing.status == 404
    assert missing.headers["Content-Type"].startswith("application/json")


def test_hosts_tell_their_pools_which_are_kept_and_released(server: Server, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    start(work.say_and_wait, "warm", str(gate)).result()
    pool = until(lambda: _idle_pool(server))
    kept = server.act(f"pools/{pool['key']}/keep", {"seconds": 7200}).value
    assert all(7000 < worker["keep_alive_left"] <= 7200 for worker in kept["workers"])
    assert server.act(f"pools/{pool['key']}/keep", {"seconds": "soon"}).status == 400
    assert server.act("pools/none/release").status == 400
    assert server.act(f"pools/{pool['key']}/release").value == {"pool": pool["key"]}
    until(lambda: not any(worker["state"] == "Available" for worker in _workers(server, pool["key"])))
    (host,) = (one for one in server.ask("hosts").value["hosts"] if one["name"] == "local")
    assert host["memory_total_bytes"] > host["memory_used_bytes"] > 0
    assert host["cpu_percent"] >= 0


def test_instance_types_are_those_that_hold_where_the_notebook_lies(server: Server) -> None:
    root = server.root
    (root / "project").mkdir()
    (root / "project" / "pyproject.toml").write_text(
        '[tool.remote_exec]\ninstance_type = "box"\n'
        '[tool.remote_exec.instances.box]\nbackend = "ssh"\nhost = "box"\ncpus = 4\n'
    )
    told = server.ask("instance-types", path="project/my notebook.ipynb").value
    assert told["default"] == "box"
    box = next(one for one in told["instance_types"] if one["name"] == "box")
    assert (box["backend"], box["shape"]) == ("ssh", "4 cpus")
    assert server.ask("instance-types", path="").value["default"] == "local"
    assert server.ask("instance-types", path="../../outside.ipynb").status == 400
    (root / "project" / "pyproject.toml").write_text('[tool.remote_exec]\ninstance_type = "bxo"\ncpuz = 3\n')
    wrong = server.ask("instance-types", path="project/my notebook.ipynb")
    assert wrong.status == 400
    assert "cpuz" in wrong.value["message"]


# --- the websocket ----------------------------------------------------------------------------------------------


def test_page_gets_a_snapshot_then_changes_and_a_snapshot_when_it_comes_back(
    server: Server, gate: Path
) -> None:
    async def page() -> None:
        async with server.page() as first:
            await first.look(1, "jobs", search="say_and_wait", states=["queued", "running"])
            await first.look(2, "status")
            snapshot = await first.frame(1)
            assert (snapshot["type"], snapshot["sequence"], snapshot["value"]["jobs"]) == ("snapshot", 1, [])
            await first.frame(2)
            job = await asyncio.to_thread(start, work.say_and_wait, "in the page", str(gate))
            frame = await first.frame(1, lambda f: _has(f, job.job, "running"))
            assert frame["value"]["order" if frame["type"] == "changes" else "jobs"]
            await first.look(3, "logs", name=job.job)
            await first.look(4, "job", name=job.job)
            log = await first.frame(3, lambda f: f["value"]["records"])
            assert log["value"]["records"][0]["text"] == "in the page\n"
            assert (await first.frame(4))["value"]["job"]["name"] == job.job
            offset = log["value"]["next"]
        async with server.page() as second:
            await second.look(7, "jobs", search="say_and_wait", states=["running"])
            await second.look(8, "logs", name=job.job, host="local", **{"from": offset})
            await second.look(9, "status")
            snapshot = await second.frame(7)
            assert (snapshot["type"], snapshot["sequence"]) == ("snapshot", 1)
            assert [row["name"] for row in snapshot["value"]["jobs"]] == [job.job]
            gate.touch()
            texts = ""
            while not (frame := await second.frame(8))["value"]["end"]:
                texts += "".join(record["text"] for record in frame["value"]["records"])
            assert texts.endswith("\x1b[31mlast words\x1b[0m\n")
            assert "in the page" not in texts
        async with server.page() as third:
            await third.look(1, "jobs", search=job.job)
            await third.frame(1, lambda f: _has(f, job.job, "succeeded"))
            await third.look(1, "jobs", search=job.job, states=["failed"])  # in place of the former
            frame = await third.frame(1, lambda f: f["sequence"] == 1)
            assert frame["value"]["total"] == 0

    run(page())


def test_progress_and_ends_are_told_as_they_come(server: Server, gate: Path) -> None:
    async def page() -> None:
        async with server.page() as one:
            await one.look(1, "jobs", search="get_on", states=["running"])
            await one.look(2, "status")
            await one.frame(1)
            await one.frame(2)
            job = await asyncio.to_thread(start, work.get_on, 4, str(gate))
            frame = await one.frame(1, lambda f: any(bar["done"] == 3 for bar in _bars(f)))
            assert [(bar["desc"], bar["total"]) for bar in _bars(frame)] == [("steps", 4)]
            gate.touch()
            ended = await one.frame(2, lambda f: f["value"]["ended"])
            assert [row["name"] for row in ended["value"]["ended"]] == [job.job]

    run(page())


def test_burst_is_told_in_few_frames_and_fewer_to_who_does_not_read(server: Server) -> None:
    looks = range(1, 25)  # what they would get does not fit into the sockets' buffers

    async def page() -> None:
        async with server.page() as reader, server.page() as sleeper:
            await reader.look(1, "jobs", search="burst-")
            assert (await reader.frame(1))["value"]["total"] == 0
            for number in looks:
                await sleeper.look(number, "jobs", search="burst-")
            begun, enough = time.monotonic(), threading.Event()
            burst = asyncio.create_task(asyncio.to_thread(_burst, enough))
            try:
                told = [await reader.frame(1) for _ in range(FRAMES)]
            finally:
                enough.set()
            jobs = await burst
            while not _is_over(told[-1]["value"], len(jobs)):
                told.append(await reader.frame(1))
            assert len(told) <= 5 * (time.monotonic() - begun) + 2
            assert [frame["sequence"] for frame in told] == list(range(2, len(told) + 2))

            heard: dict[int, list[dict[str, Any]]] = {number: [] for number in looks}
            while not all(frames and _is_over(frames[-1]["value"], len(jobs)) for frames in heard.values()):
                frame = await sleeper.frame()
                heard[frame["id"]].append(frame)
            for frames in heard.values():
                assert [frame["sequence"] for frame in frames] == list(range(1, len(frames) + 1))
            assert sum(map(len, heard.values())) < len(looks) * len(told) / 2
            assert {row["name"] for row in _assembled(heard[24])} == {job.job for job in jobs[-200:]}

    run(page())


def test_page_is_told_what_it_asked_wrongly(server: Server) -> None:
    async def page() -> None:
        async with server.page() as one:
            await one.say("nonsense")
            assert (await one.frame(0))["problem"]["status"] == 400
            await one.look(1, "moon")
            assert "moon" in (await one.frame(0))["problem"]["message"]
            await one.look(2, "job", name="there-is-none")
            assert (await one.frame(2))["problem"]["status"] == 404
            for number in range(3, 60):
                await one.look(number, "hosts")
            assert (await one.frame(59))["problem"]["status"] == 400
            await one.say({"type": "leave", "id": 3})
            await one.look(2, "status")
            assert (await one.frame(2, lambda f: f["type"] == "snapshot"))["value"]["agent"] == "running"

    run(page())


# --- who may ----------------------------------------------------------------------------------------------------


def test_nothing_is_told_or_done_without_the_token(server: Server) -> None:
    for path in ("jobs", "jobs/one", "jobs/one/logs", "hosts", "instance-types", "status"):
        assert server.ask(path, headers={}).status == 403, path
        assert server.ask(path, headers={"Authorization": "token wrong"}).status == 403, path
    for path in ACTIONS:
        assert server.ask(path, method="POST", body={}, headers={}).status == 403, path
        assert server.ask(path).status == 405, path  # and no GET does it

    async def page() -> None:
        for headers in ({"X-None": ""}, {"Authorization": "token wrong"}):
            with pytest.raises(HTTPClientError) as refused:
                async with server.page(**headers):
                    pass
            assert refused.value.code == 403

    run(page())


def test_other_origins_and_forged_requests_are_refused(server: Server) -> None:
    cookies = server.cookies()
    assert server.ask("status", headers={"Cookie": cookies}).status == 200
    forged = server.ask("jobs/one/cancel", method="POST", body={}, headers={"Cookie": cookies})
    assert forged.status == 403
    xsrf = next(part.partition("=")[2] for part in cookies.split("; ") if part.startswith("_xsrf="))
    honest = {"Cookie": cookies, "X-XSRFToken": xsrf}
    assert server.ask("jobs/one/cancel", method="POST", body={}, headers=honest).status == 404  # no such job
    evil = {"Cookie": cookies, "Origin": "http://evil.example"}
    assert server.ask("jobs", headers=evil).status == 404

    async def page() -> None:
        with pytest.raises(HTTPClientError) as refused:
            async with server.page(**evil):
                pass
        assert refused.value.code == 403
        async with server.page(Cookie=cookies, Origin=server.url) as welcome:
            await welcome.look(1, "status")
            await welcome.frame(1)

    run(page())


def test_authorizer_of_the_server_is_asked(server: Server, tmp_path: Path) -> None:
    (tmp_path / "readers.py").write_text(
        "from jupyter_server.auth import Authorizer\n"
        "class Readers(Authorizer):\n"
        "    def is_authorized(self, handler, user, action, resource):\n"
        "        return action == 'read' or resource != 'jupyter_ext'\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with served(tmp_path / "s", environ, ["--ServerApp.authorizer_class=readers.Readers"]) as guarded:
        assert guarded.ask("status").status == 200
        for path in ACTIONS:
            assert guarded.act(path).status == 403, path


def test_looking_keeps_no_idle_server_alive_and_acting_does(server: Server) -> None:
    async def page() -> None:
        async with server.page() as one:
            await one.look(1, "hosts")
            await one.look(2, "jobs")
            await one.frame(1)
            await one.frame(2)

    before = server.last_activity()
    run(page())
    for path in ("jobs", "hosts", "status", "instance-types"):
        server.ask(path)
    assert server.last_activity() == before
    server.act("jobs/one/cancel")
    assert server.last_activity() > before


# --- helpers ----------------------------------------------------------------------------------------------------


def _jobs(server: Server, **parameters: Any) -> dict[str, Any]:
    told: dict[str, Any] = server.ask("jobs", **parameters).value
    return told


def _row(server: Server, name: str = "", **wanted: str) -> dict[str, Any] | None:
    for row in _jobs(server, search=name)["jobs"]:
        if name in ("", row["name"]) and all(row[key] == value for key, value in wanted.items()):
            found: dict[str, Any] = row
            return found
    return None


def _logs(server: Server, name: str, start: str = "") -> dict[str, Any]:
    parameters: dict[str, Any] = {"from": start}
    told: dict[str, Any] = server.ask(f"jobs/{part(name)}/logs", **parameters).value
    return told


def _piece(server: Server, name: str) -> dict[str, Any] | None:
    found = _logs(server, name)
    return found if found["records"] else None


def _workers(server: Server, key: str) -> list[dict[str, Any]]:
    pools = [pool for host in server.ask("hosts").value["hosts"] for pool in host["pools"]]
    return [worker for pool in pools if pool["key"] == key for worker in pool["workers"]]


def _idle_pool(server: Server) -> dict[str, Any] | None:
    for host in server.ask("hosts").value["hosts"]:
        for pool in host["pools"]:
            if any(worker["state"] == "Available" for worker in pool["workers"]):
                found: dict[str, Any] = pool
                return found
    return None


def _rows(frame: dict[str, Any]) -> list[dict[str, Any]]:
    value = frame["value"]
    rows: list[dict[str, Any]] = value["jobs"] if frame["type"] == "snapshot" else value["changed"]
    return rows


def _has(frame: dict[str, Any], name: str | None, state: str) -> bool:
    return any(row["name"] == name and row["state"] == state for row in _rows(frame))


def _burst(enough: threading.Event) -> list[RemoteFuture[Any]]:
    """Begin many jobs, until it is said to be enough."""
    jobs: list[RemoteFuture[Any]] = []
    with RemoteExecutor(detach=True, job_name_prefix="burst", tags={"note": "x" * 4000}) as executor:
        while len(jobs) < BURST or not enough.wait(PAUSE_SECONDS):
            jobs.append(executor.submit(abs, -len(jobs)))
    return jobs


def _is_over(value: dict[str, Any], count: int) -> bool:
    return value["total"] == count and not value["counts"]["queued"] and not value["counts"]["running"]


def _assembled(frames: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put a window together as a panel does."""
    rows: dict[str, Any] = {}
    order: list[str] = []
    for frame in frames:
        if frame["type"] == "snapshot":
            rows, order = {}, [row["key"] for row in frame["value"]["jobs"]]
        elif frame["value"]["order"] is not None:
            order = frame["value"]["order"]
        rows |= {row["key"]: row for row in _rows(frame)}
    return [rows[key] for key in order]


def _bars(frame: dict[str, Any]) -> list[dict[str, Any]]:
    return [bar for row in _rows(frame) for bar in row["progress"]]
