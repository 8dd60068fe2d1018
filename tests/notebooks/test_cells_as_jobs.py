"""Remote cells as the lists of jobs, their pages and the command line show them, beside calls and detached cells."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import server_work as work
from kernels import Notebook, opened
from servers import Server, part, served, until

from remote_exec import RemoteExecutor, remote
from remote_exec.client.connections import connections
from remote_exec.errors import WorkerDied

PATH = "/home/somebody/work/digits.ipynb"
REFUSED = "it is a cell: run it again in its notebook"
CALL = """
from remote_exec import remote
@remote
def nap(seconds):
    import time
    time.sleep(seconds)

nap(0.4)
"""
SLOW_WIDGET = """%%remote
import time
import ipywidgets
button = ipywidgets.Button()
def clicked(_):
    time.sleep(0.8)
    print('clicked')
button.on_click(clicked)
button
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server, beside an agent."""
    connections.session()
    with served(tmp_path_factory.mktemp("server") / "s") as made:
        yield made


@pytest.fixture(scope="module")
def digits(clients_loop: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """The kernel of `PATH`, as a Jupyter server starts it, its session begun, and a call made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JPY_SESSION_NAME", PATH)
        with opened(tmp_path_factory.mktemp("notebook")) as made:
            made.run(CALL)
            yield made


def rows(server: Server, **look: Any) -> list[dict[str, Any]]:
    """Jobs of the notebook."""
    found: list[dict[str, Any]] = server.ask("jobs", notebook=PATH, **look).value["jobs"]
    return found


def row_of(server: Server, ran: Any, state: str) -> dict[str, Any]:
    """Wait until the row of a cell that has run stands in a state; there is one."""
    cell = str(ran.reply["execution_count"])

    def look() -> dict[str, Any] | None:
        found = [row for row in rows(server) if row["tags"].get("cell") == cell]
        assert len(found) <= 1, found
        return found[0] if found and found[0]["state"] == state else None

    found: dict[str, Any] = until(look)
    return found


def detail(server: Server, row: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = server.ask(f"jobs/{part(row['name'])}").value
    return told


def log(server: Server, name: str) -> str:
    return server.ask(f"jobs/{part(name)}/logs", download=1).text


def remote_exec(*arguments: str) -> str:
    """What the command line prints."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("remote-exec")), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def test_cell_is_listed_while_it_runs_and_cancelled_from_there(server: Server, digits: Notebook) -> None:
    source = (
        "%%remote\n"
        "# count for ever\n"
        "import time\n"
        "so_far = 0\n"
        "print('begun', flush=True)\n"
        "while True:\n"
        "    so_far += 1\n"
        "    time.sleep(0.05)"
    )
    seen: list[dict[str, Any]] = []

    def cancel() -> None:
        seen.append(until(lambda: rows(server, states="running", search="so_far")[0:])[0])
        told = detail(server, seen[0])
        assert told["code"] == source
        assert told["environment"]["python"]
        assert (told["can_rerun"], told["why_not_rerun"]) == (False, REFUSED)
        until(lambda: log(server, seen[0]["name"]) == "begun\n")
        assert server.act(f"jobs/{part(seen[0]['name'])}/cancel").value == {"cancelled": True}

    ran = digits.run(source, at="begun", do=cancel, fails=True)
    number = ran.reply["execution_count"]
    row = seen[0]
    assert row["name"].startswith("digits-")
    assert (row["kind"], row["function"], row["notebook"]) == ("call", f"[{number}] so_far = 0", PATH)
    assert row["tags"] == {"notebook": PATH, "cell": str(number)}
    assert row["instance_type"] == "local"
    assert ran.ename == "KeyboardInterrupt"
    assert "cancelled from the list of jobs" in ran.traceback
    assert "line 8" in ran.traceback
    assert digits.value("so_far") > 0
    assert digits.run("%%remote\nso_far > 0").value["text/plain"] == "True", "its session is alive"
    assert row_of(server, ran, "cancelled")["name"] == row["name"]
    assert server.act(f"jobs/{part(row['name'])}/rerun").status == 409


def test_stop_button_s_cell_is_no_cancelled_one_of_the_list_s(server: Server, digits: Notebook) -> None:
    stopped = digits.run(
        "%%remote\nprint('begun', flush=True)\nimport time; time.sleep(60)", at="begun", fails=True
    )
    assert stopped.ename == "KeyboardInterrupt"
    assert "list of jobs" not in stopped.traceback
    row_of(server, stopped, "cancelled")
    own = digits.run("%%remote\nraise KeyboardInterrupt('mine')", fails=True)
    assert "mine" in own.traceback
    assert row_of(server, own, "failed")["summary"] == "KeyboardInterrupt: mine"


def test_each_cell_is_listed_once_and_what_passes_between_is_not(server: Server, digits: Notebook) -> None:
    before = {row["name"] for row in until(lambda: _with(rows(server), "nap"))}
    shown = digits.run(SLOW_WIDGET)
    (model,) = {
        comm["comm_id"]
        for comm in shown.comms("open")
        if comm["data"]["state"].get("_model_name") == "ButtonModel"
    }
    clicked = digits.say(model, {"method": "custom", "content": {"event": "click"}})
    assert "clicked" in clicked.stdout
    short = [digits.run(f"%%remote\nprint({number})\nlast = {number}") for number in range(5)]
    last = f"[{short[-1].reply['execution_count']}] print(4)"
    assert until(lambda: last in digits.run("%remote jobs --prefix digits-").value["text/plain"])
    for number, ran in enumerate(short):
        row = row_of(server, ran, "succeeded")
        assert row["function"] == f"[{ran.reply['execution_count']}] print({number})"
        assert detail(server, row)["code"] == f"%%remote\nprint({number})\nlast = {number}"
        assert log(server, row["name"]) == f"{number}\n"
    long = digits.run("%%remote\ntime.sleep(0.4)\n[last, button]")
    row = row_of(server, long, "succeeded")
    added = [one for one in rows(server) if one["name"] not in before]
    cells = [ran.reply["execution_count"] for ran in (shown, *short, long)]
    assert sorted(int(one["tags"]["cell"]) for one in added) == cells
    assert {one["kind"] for one in added} == {"call"}
    told = detail(server, row)
    assert (told["result"]["type"], told["result"]["text"]) == ("builtins.list", "[4, <Button>]")


def test_named_cell_is_cancelled_by_its_name(server: Server, digits: Notebook) -> None:
    source = "%%remote --name grow\nimport time\nprint('grows', flush=True)\ntime.sleep(60)"

    def cancel() -> None:
        row = until(lambda: rows(server, states="running", search="grow"))[0]
        assert row["tags"]["cell_name"] == "grow"
        assert detail(server, {"name": "grow"})["job"]["name"] == row["name"]
        until(lambda: remote_exec("logs", "grow") == "grows\n")
        remote_exec("cancel", "grow")

    ran = digits.run(source, at="grows", do=cancel, fails=True)
    assert "cancelled from the list of jobs" in ran.traceback
    row = row_of(server, ran, "cancelled")
    assert row["name"].startswith("grow-")
    assert detail(server, row)["code"] == source


def test_failed_cell_has_its_traceback_with_locals(server: Server, digits: Notebook) -> None:
    ran = digits.run(
        "%%remote\ndef share(whole, parts):\n    return whole / parts\n\nshare(3, 0)", fails=True
    )
    row = row_of(server, ran, "failed")
    assert (row["cause"], row["summary"]) == ("user_error", "ZeroDivisionError: division by zero")
    told = detail(server, row)
    assert told["failure"]["type"] == "builtins.ZeroDivisionError"
    frame = told["failure"]["frames"][-1]
    assert (frame["name"], frame["locals"]["whole"], frame["locals"]["parts"]) == ("share", "3", "0")
    assert told["failure"]["frames"][0]["source"].startswith("%%remote\ndef share(")
    cell = f"Cell In[{ran.reply['execution_count']}]"
    assert [(frame["filename"], frame["lineno"]) for frame in told["failure"]["frames"]] == [
        (cell, 5),
        (cell, 3),
    ]
    assert "ZeroDivisionError" in told["traceback"]


def test_calls_and_detached_cells_are_the_notebook_s_with_their_code(
    server: Server, digits: Notebook
) -> None:
    digits.run("%%remote --detach --name apart\nx = 6\nx * 7")
    digits.run("_.result()")
    found = {row["function"]: row for row in until(lambda: _with(rows(server), "nap"))}
    job = next(row for row in rows(server) if row["name"] == "apart")
    assert job["tags"]["cell"]
    assert detail(server, job)["code"] == "%%remote --detach --name apart\nx = 6\nx * 7"
    assert detail(server, job)["can_rerun"]
    told = detail(server, job)["result"]
    assert (told["type"], told["text"], told["size_bytes"] > 0) == ("builtins.int", "42", True)
    assert "builtins.int 42" in remote_exec("jobs", "apart")
    call = detail(server, found["nap"])
    assert call["code"].startswith("@remote\ndef nap(seconds):\n")
    assert call["environment"]["python"]
    groups = server.ask("jobs", group="notebook", search="notebook=").value["groups"]
    assert [group["name"] for group in groups] == [PATH]


def _with(found: list[dict[str, Any]], function: str) -> list[dict[str, Any]]:
    return found if any(row["function"] == function for row in found) else []


def test_what_a_cell_displays_is_in_its_log_as_text(server: Server, digits: Notebook) -> None:
    source = "from IPython.display import HTML, display\nprint('before')\ndisplay(['shown'])\nprint('after')"
    for flags in "", " --detach --name displays":
        ran = digits.run(f"%%remote{flags}\n{source}")
        if flags:
            digits.run("_.result()")
        name = row_of(server, ran, "succeeded")["name"]
        assert remote_exec("logs", name) == "before\n['shown']\nafter\n"


def test_command_line_tells_of_a_cell(server: Server, digits: Notebook) -> None:
    ran = digits.run("%%remote\nimport time\ntime.sleep(0.4)\nsum(range(10))")
    row = row_of(server, ran, "succeeded")
    number = ran.reply["execution_count"]
    assert f"[{number}] time.sleep(0.4)" in remote_exec("jobs", "--prefix", row["name"])
    told = remote_exec("jobs", row["name"])
    assert f"cell={number}" in told
    assert PATH in told
    assert "builtins.int 45" in told
    table = digits.run(f"%remote jobs --prefix {row['name']}").value["text/plain"]
    assert f"[{number}] time.sleep(0.4)" in table


def test_cell_that_ends_its_worker_at_once_is_told_with_its_code(server: Server, digits: Notebook) -> None:
    ran = digits.run("%%remote --name dies\nimport os\nos._exit(3)", fails=True)
    assert ran.ename == "WorkerDied"
    row = row_of(server, ran, "failed")
    assert f"remote-exec jobs {row['name']}" in ran.traceback
    assert (row["cause"], row["notebook"]) == ("exited", PATH)
    told = detail(server, row)
    assert told["code"].endswith("os._exit(3)")
    assert told["attempts"][0]["death"]["exit_code"] == 3
    digits.run("%%remote\n1")  # the session is there again, as it was before


def test_cell_that_does_not_heed_its_cancellation_says_what_is_lost(server: Server, digits: Notebook) -> None:
    source = (
        "%%remote\nimport time\nprint('deaf', flush=True)\n"
        "while True:\n    try:\n        time.sleep(60)\n    except BaseException:\n        pass"
    )

    def cancel() -> None:
        row = until(lambda: rows(server, states="running", search="deaf"))[0]
        assert server.act(f"jobs/{part(row['name'])}/cancel").value == {"cancelled": True}

    ran = digits.run(source, at="deaf", do=cancel, fails=True)
    assert ran.ename == "RemoteInterrupted"
    assert "remote namespace is lost" in ran.traceback
    row_of(server, ran, "cancelled")
    assert digits.run("%%remote\n1 + 1").value["text/plain"] == "2"


@remote
class Sleeper:
    """An instance whose class is shown."""

    def nap(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    def die(self) -> None:
        os._exit(3)


@remote
def die_unseen(code: int) -> None:
    """A call whose function is shown though nothing is told of it before it ends its process."""
    os._exit(
        code,
    )


def test_code_of_functions_and_classes_that_are_called_elsewhere(server: Server, gate: Path) -> None:
    with RemoteExecutor(max_workers=1) as executor:
        call = executor.submit(work.say_and_wait, "here", str(gate))
        row = until(lambda: server.ask("jobs", search="say_and_wait", states="running").value["jobs"])[0]
        assert detail(server, row)["code"].startswith("def say_and_wait(text: str, gate: str) -> str:\n")
        gate.touch()
        call.result()
    until(lambda: detail(server, row)["job"]["state"] == "succeeded")
    assert "last words" in detail(server, row)["code"], "it is kept"
    sleeper = Sleeper()
    assert sleeper.nap(0.4) == 0.4
    sleeper.close()
    row = until(lambda: server.ask("jobs", search="Sleeper", states="succeeded").value["jobs"])[0]
    code = detail(server, row)["code"]
    assert code.startswith("@remote\nclass Sleeper:\n")
    assert code.endswith("        os._exit(3)\n")


def test_code_of_calls_that_end_their_worker_at_once(server: Server) -> None:
    def code_of(function: str) -> str:
        (row,) = until(lambda: [row for row in failed() if row["function"] == function])
        return str(detail(server, row)["code"])

    def failed() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = server.ask("jobs", states="failed").value["jobs"]
        return found

    for call in (lambda: die_unseen(3), Sleeper().die):
        with pytest.raises(WorkerDied):
            call()
    assert code_of("die_unseen").startswith('@remote\ndef die_unseen(code: int) -> None:\n    """A call')
    assert code_of("die_unseen").endswith("        code,\n    )\n")
    assert code_of("Sleeper").startswith("@remote\nclass Sleeper:\n")
    assert code_of("Sleeper").endswith("        os._exit(3)\n")
