"""The line above a cell's output that says what the cell waits for, and displays that go on updating."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from kernels import CellRun, Notebook

from jupyter_ext.status import CellStatus
from remote_exec.client.phases import Phases, Span
from remote_exec.client.reporter import Console

FUNCTIONS = """
import logging, time
from pathlib import Path
from remote_exec import progress, remote

def wait_for(path, seconds=30):
    deadline = time.monotonic() + seconds
    while not Path(path).exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)

@remote
def steps(count, seconds):
    for number in progress(range(count), desc="<b>steps"):
        time.sleep(seconds)
    return count

@remote
def quick():
    return 1

@remote
def talks(path):
    wait_for(path)
    print("late word", flush=True)
    return 2

@remote
def mixes():
    import sys
    for number in range(3):
        print(f"out {number}", flush=True)
        print(f"err {number}", file=sys.stderr, flush=True)
        logging.getLogger("mixes").warning("log %d", number)

@remote(name="waited-for")
def waited_for():
    print("printed")
    for number in progress(range(4), desc="parts"):
        time.sleep(0.4)
    return "it"

@remote
def fails():
    time.sleep(0.8)
    raise ValueError("<script>alert(1)</script>")
"""


GIVE_BACK = """
from remote_exec.client.connections import connections
for dispatcher in list(connections._dispatchers.values()):
    if not dispatcher._single:
        connections.drop(dispatcher)
"""


@pytest.fixture(scope="module")
def defined(notebook: Notebook) -> Notebook:
    """A notebook with functions."""
    notebook.run(FUNCTIONS)
    return notebook


@pytest.fixture
def functions(defined: Notebook) -> Iterator[Notebook]:
    """A notebook with functions, whose workers are given back."""
    yield defined
    defined.run(GIVE_BACK)


def lines_of(ran: CellRun) -> list[dict[str, Any]]:
    """All states of a cell's status line, as they came."""
    told = [
        one for one in ran.messages if one["header"]["msg_type"] in ("display_data", "update_display_data")
    ]
    return [one["content"] for one in told if "remote_exec" in one["content"]["metadata"]]


def test_the_line_reads_well() -> None:
    status = CellStatus(100.0)
    assert not status.is_due(200.0)
    span = Span(Phases(Console()), "environment", "fit")
    span.started_at = 100.5
    status.busy(span, 101.0)
    span.tell("numpy is built")
    status.busy(span, 103.0)
    assert status.text(103.0) == "fit · making the environment · 2 s · numpy is built"
    span.seconds = 2.5
    status.not_busy()
    status.end(103.5, None)
    assert status.text(103.5) == "2.5 s · first start 2.5 s"
    assert status.facts(103.5)["phases"] == {"environment": 2.5}


def test_a_quick_cell_has_no_line(functions: Notebook) -> None:
    functions.run("quick()")
    for source, value in {"quick()": "1", "%%remote\n1 + 1": "2"}.items():
        runs = (functions.run(source).outputs for _ in range(20))  # it may be a slow machine's slow moment
        assert any([one["data"] for one in outputs] == [{"text/plain": value}] for outputs in runs)


def test_a_long_cell_has_one_line_that_is_updated_and_ends_short(notebook: Notebook) -> None:
    ran = notebook.run("%%remote local\nimport time\ntime.sleep(1.5)\nprint('printed')\n5")
    first, *updates = lines_of(ran)
    assert [one["output_type"] for one in ran.outputs] == ["display_data", "stream", "execute_result"]
    display_id = first["transient"]["display_id"]
    assert updates
    assert all(one["transient"]["display_id"] == display_id for one in updates)
    assert first["metadata"]["remote_exec"]["state"] == "run"
    assert first["metadata"]["remote_exec"]["elapsed_seconds"] >= 0.5
    assert re.fullmatch(r"local · running · \d+ s", first["data"]["text/plain"]), "it is in its notebook"
    end = ran.outputs[0]
    told = end["metadata"]["remote_exec"]
    assert told["state"] == "done"
    assert len(updates) <= 4 * told["elapsed_seconds"] + 1, "four times a second at the most"
    assert re.match(r"local · \d+\.\d s", end["data"]["text/plain"])
    assert "\n" not in end["data"]["text/plain"]
    assert "var(--jp-" in end["data"]["text/html"]


AT_ONCE = {
    "print": ("import time\nprint('first')\ntime.sleep(1.2)\nprint('then')", ["first\nthen\n"]),
    "display": (
        "import time\nfrom IPython.display import display\ndisplay('first')\nprint('between')\n"
        "display('then')\ntime.sleep(1.2)",
        ["'first'", "between\n", "'then'"],
    ),
    "log": (
        "import logging, time\nprint('first')\nlogging.warning('then')\ntime.sleep(1.2)",
        ["first\n", "then\n"],
    ),
    "clear": (
        "import time\nfrom IPython.display import clear_output\nprint('gone')\nclear_output()\nprint('first')\n"
        "time.sleep(0.8)\nfor n in range(3):\n    clear_output(wait=n != 1)\n    print(n)\n    time.sleep(0.3)",
        ["2\n"],
    ),
}


@pytest.mark.parametrize("what", AT_ONCE)
def test_what_a_cell_tells_at_once_stands_below_its_line(notebook: Notebook, what: str) -> None:
    source, texts = AT_ONCE[what]
    ran = notebook.run(f"%%remote\n{source}")
    line, *outputs = ran.outputs
    assert line["metadata"]["remote_exec"]["state"] == "done"
    assert [one["text"] if "text" in one else one["data"]["text/plain"] for one in outputs] == texts


@pytest.mark.parametrize(("wait", "kinds"), [(False, "line 2"), (True, "2 line")])
def test_the_line_is_there_again_where_the_notebook_s_own_code_clears_its_output(
    functions: Notebook, wait: bool, kinds: str
) -> None:
    """What it shows next takes the line away, if it is cleared by that: only then is it below."""
    ran = functions.run(
        "from IPython.display import clear_output\n"
        f"for n in range(3):\n    steps(2, 0.4)\n    clear_output({wait})\n    print(n)"
    )
    shown = [
        "line" if "remote_exec" in one.get("metadata", {}) else one["text"].strip() for one in ran.outputs
    ]
    assert shown == kinds.split()


def test_the_line_stands_above_a_question_too(notebook: Notebook) -> None:
    ran = notebook.run("%%remote\nprint('first')\nint(input('how many? ')) + 1", answers=("4",))
    assert [one["output_type"] for one in ran.outputs] == ["display_data", "stream", "execute_result"]
    assert ran.value["text/plain"] == "5"


def test_a_quick_call_s_output_comes_before_what_is_done_with_its_result(functions: Notebook) -> None:
    functions.run("@remote\ndef says(n):\n    print('said', n)\n    return n\nsays(0)")
    ran = functions.run(
        "for n in range(3): print('got', says(n))\n"
        "future = says.submit(3)\n"
        "while not future.done(): time.sleep(0.01)\n"
        "print('got', future.result())\n"
        "try:\n    says('no' + 1)\nexcept TypeError:\n    print('error')"
    )
    said = [f"{word} {n}" for n in range(4) for word in ("said", "got")]
    assert ran.stdout.splitlines() == [*said, "error"]


def test_what_nobody_waits_for_is_shown_before_it_has_ended(functions: Notebook) -> None:
    functions.run("@remote\ndef says_and_waits(path):\n    print('said', flush=True)\n    wait_for(path)\n")
    seen = "lambda: 'said' in ''.join(shown)"
    ran = functions.run(
        "import sys\n"
        "end = Path('let go').resolve()\n"
        "write, shown = sys.stdout.write, []\n"
        "sys.stdout.write = lambda text: (shown.append(text), write(text))[1]\n"
        "future = says_and_waits.submit(str(end))\n"
        "deadline = time.monotonic() + 20\n"
        f"seen = {seen}\n"
        "while not seen() and time.monotonic() < deadline: time.sleep(0.02)\n"
        "del sys.stdout.write\n"
        "print(seen())\n"
        "end.touch()\n"
        "future.result()"
    )
    assert ran.stdout == "said\nTrue\n"


def test_progress_of_a_function_is_drawn_in_the_line_and_escaped(functions: Notebook) -> None:
    ran = functions.run("steps(12, 0.12)")
    drawn = [one["data"]["text/html"] for one in lines_of(ran) if "<progress" in one["data"]["text/html"]]
    assert drawn
    assert all("&lt;b&gt;steps" in one and "<b>steps" not in one for one in drawn)
    assert any("/12" in one["data"]["text/plain"] for one in lines_of(ran))
    assert any(" · steps · running · " in one["data"]["text/plain"] for one in lines_of(ran))
    assert ran.stderr == ""


def test_a_job_that_is_waited_for_has_a_line_too(functions: Notebook) -> None:
    ran = functions.run("waited_for()")
    assert (ran.stdout, ran.value["text/plain"]) == ("printed\n", "'it'")
    told = [one["metadata"]["remote_exec"] for one in lines_of(ran)]
    assert any(one["state"] == "run" and one["progress"] for one in told)
    assert told[-1]["state"] == "done"
    assert told[-1]["instance_type"] == "local"


def test_the_line_says_what_it_costs_where_there_is_a_price(fresh_notebook: Notebook) -> None:
    table = "[tool.remote_exec.instances.dear]\nbackend = 'local'\ncost_per_hour = 3600\ncurrency = 'EUR'\n"
    fresh_notebook.run(FUNCTIONS)
    fresh_notebook.run(f"Path('pyproject.toml').write_text({table!r})")
    for source in (
        "steps.options(instance_type='dear')(3, 0.4)",
        "steps.options(instance_type='dear', detach=True)(3, 0.4)",
        "%%remote dear\nimport time\ntime.sleep(1.2)",
    ):
        ran = fresh_notebook.run(source)
        told = [one["metadata"]["remote_exec"] for one in lines_of(ran)]
        costs = [float(one["cost"].removesuffix(" EUR")) for one in told if "cost" in one]
        assert costs == sorted(costs)
        assert costs[0] < costs[-1]
        assert 1.0 < costs[-1] <= told[-1]["elapsed_seconds"] + 0.3
        assert re.search(r"^dear · [\d.]+ s · [\d.]+ EUR", ran.outputs[0]["data"]["text/plain"])
    free = fresh_notebook.run("Path('pyproject.toml').unlink()\nsteps(3, 0.4)")
    assert not any("cost" in one["metadata"]["remote_exec"] for one in lines_of(free))


def test_what_failed_says_so_and_text_is_never_html(functions: Notebook) -> None:
    ran = functions.run("fails()", fails=True)
    assert ran.outputs[0]["metadata"]["remote_exec"]["state"] == "failed"
    assert "failed" in ran.outputs[0]["data"]["text/plain"]
    shown = functions.run("future = fails.submit()\nfuture.exception()\nfuture").outputs[-1]["data"]
    assert "ValueError: &lt;script&gt;" in shown["text/html"]
    assert "<script" not in shown["text/html"]
    table = functions.run("%remote jobs --state failed").value["text/html"]
    assert "&lt;script&gt;" in table
    assert "<script" not in table


def test_output_keeps_its_order(functions: Notebook) -> None:
    ran = functions.run("mixes()")
    texts = [(one["name"], one["text"]) for one in ran.user_outputs if one["output_type"] == "stream"]
    flat = [line for _, text in texts for line in text.splitlines()]
    assert [line for line in flat if line.startswith("out")] == ["out 0", "out 1", "out 2"]
    assert flat == [f"{word} {number}" for number in range(3) for word in ("out", "err", "log")]


def test_late_output_goes_to_the_cell_that_made_the_call(functions: Notebook) -> None:
    client = functions.client
    first = client.execute("go = Path('go').resolve()\nfuture = talks.submit(str(go))")
    second = client.execute("go.touch()\nwhile not future.done(): time.sleep(0.02)\nprint('done')")
    printed: dict[str, str] = {}
    while "done" not in printed.get(second, ""):
        message = client.get_iopub_msg(timeout=30)
        if message["header"]["msg_type"] == "stream":
            of = message["parent_header"]["msg_id"]
            printed[of] = printed.get(of, "") + message["content"]["text"]
    assert printed == {first: "late word\n", second: "done\n"}
    for _ in range(2):
        client.get_shell_msg(timeout=30)


def test_a_future_s_display_goes_on_until_it_has_ended(functions: Notebook) -> None:
    ran = functions.run(
        "future = steps.submit(3, 0.3)\n"
        "display(future)\n"
        "future.result()\n"
        "cards = get_ipython().magics_manager.registry['RemoteMagics'].parts._cards\n"
        "deadline = time.monotonic() + 30\n"
        "while cards._open and time.monotonic() < deadline: time.sleep(0.05)\n"
    )
    card = next(one for one in ran.outputs if "job" in one.get("metadata", {}).get("remote_exec", {}))
    assert card["metadata"]["remote_exec"]["state"] == "succeeded"
    states = [
        one["metadata"]["remote_exec"]["state"]
        for one in lines_of(ran)
        if "job" in one["metadata"]["remote_exec"]
    ]
    assert states[0] in ("queued", "running")
    assert states[-1] == "succeeded"


def test_the_library_s_objects_have_displays(functions: Notebook) -> None:
    shown = functions.run("from remote_exec import RemoteExecutor\nRemoteExecutor(2, cpus=1)").value
    assert "max_parallel_jobs" in shown["text/html"]
    functions.run("%%remote --keep\nlarge = [1, '<b>']")
    shown = functions.run("large").value
    assert "stays there" in shown["text/html"]
    assert "&lt;b&gt;" in shown["text/html"]
    assert shown["text/plain"].startswith("<remote list")


def test_capturing_a_cell_catches_its_output_alone(functions: Notebook) -> None:
    ran = functions.run("%%capture caught\nprint(steps(3, 0.4))")
    assert lines_of(ran) == []
    assert functions.value("caught.stdout") == "3\n"
    assert functions.value("len(caught.outputs)") == 0
