"""Cells that run as durable jobs: what they are given, what comes of them, and finding them again."""

from __future__ import annotations

import pytest
from kernels import Notebook

SETUP = """
import numpy as np
class Point:
    def __init__(self, x):
        self.x = x
    def move(self):
        self.x += 1
point = Point(1)
data, numbers, gone = [1, 2], np.arange(5), 1
def append():
    data.append(len(data) + 1)
"""
CELL = """%%remote --detach --name {name}
from IPython.display import HTML, display
append()
point.move()
del gone
doubled = numbers * 2
same = point
display(HTML('<b>shown</b>'))
print('printed')
{{'point': point, 'sum': sum(data)}}
"""


@pytest.fixture(scope="module")
def done(notebook: Notebook) -> Notebook:
    """A notebook whose variable `job` is a detached cell, which has ended."""
    notebook.run(SETUP)
    notebook.run(CELL.format(name="made"))
    notebook.run("job = _\nvalue = job.result()")
    return notebook


def test_its_names_come_when_they_are_asked_for(done: Notebook) -> None:
    assert done.value("data, point.x, gone, value['sum']") == ([1, 2], 1, 1, 6)
    assert done.value("type(value['point']) is Point") is True
    bound = done.run("job.apply()").value["text/plain"]
    assert "'data'" in bound
    assert done.value("data, point.x, same is point, 'gone' in globals()") == ([1, 2, 3], 2, True, False)
    assert done.value("type(point) is Point, doubled.tolist(), doubled.flags.writeable") == (
        True,
        [0, 2, 4, 6, 8],
        True,
    )
    done.run("append()")
    assert done.value("data") == [1, 2, 3, 4]


def test_its_display_and_log(done: Notebook) -> None:
    shown = done.run("job").outputs[0]
    assert shown["metadata"]["remote_exec"]["state"] == "succeeded"
    assert "%remote result made" in shown["data"]["text/html"]
    assert "printed\n" in done.value("job.logs()")
    assert done.run("%remote result made").displays[0]["text/html"] == "<b>shown</b>"


def test_it_is_found_again_after_a_restart_of_the_kernel(fresh_notebook: Notebook) -> None:
    notebook = fresh_notebook
    notebook.run(
        "%%remote --detach --name goes-on\n"
        "import time\nfrom pathlib import Path\nprint('begun', flush=True)\n"
        "while not Path('go').exists(): time.sleep(0.02)\n"
        "answer = 42\nanswer + 1"
    )
    notebook.run(
        "import time\nagain = %remote attach goes-on\nwhile 'begun' not in again.logs(): time.sleep(0.02)"
    )
    notebook.restart()
    notebook.run("%load_ext jupyter_ext")
    ran = notebook.run("again = %remote attach goes-on\nagain")
    assert ran.outputs[0]["metadata"]["remote_exec"]["state"] == "running"
    waiting = "print('waiting', flush=True)\nvalue = %remote result goes-on"
    assert notebook.run(waiting, at="waiting", fails=True).ename == "KeyboardInterrupt"
    assert notebook.value("again.status") == "running", "the waiting ends alone"
    notebook.run("from pathlib import Path\nPath('go').touch()")
    assert notebook.run("%remote result goes-on --apply").value["text/plain"] == "43"
    assert notebook.value("answer") == 42
    told = notebook.run("from remote_exec import get_future\nget_future('goes-on').result()")
    assert "answer" in told.value["text/plain"]


def test_a_failed_one_raises_and_leaves_what_it_had_changed(notebook: Notebook) -> None:
    notebook.run("%%remote --detach --name breaks\nso_far = 5\n\n1 / 0")
    notebook.run("job = _")
    ran = notebook.run("job.result()", fails=True)
    assert ran.ename == "ZeroDivisionError"
    assert "line 4" in ran.traceback
    assert "_settle" not in ran.traceback
    assert notebook.run("job.apply()").value["text/plain"] == "('so_far',)"
    assert notebook.value("so_far, job.status, job.why()") == (5, "failed", "it has failed")
    notebook.run("%%remote --detach\ninput('? ')")
    ran = notebook.run("job = _\njob.result()", fails=True)
    assert ran.ename == "EOFError"
    assert "File" not in ran.traceback


def test_one_that_is_cancelled(notebook: Notebook) -> None:
    notebook.run("%%remote --detach\nimport time\nprint('begun', flush=True)\ntime.sleep(100)")
    notebook.run("import time\njob = _\nwhile 'begun' not in job.logs(): time.sleep(0.02)")
    assert notebook.value("job.cancel(wait=True), job.status") == (True, "cancelled")
    assert notebook.run("job.result()", fails=True).ename == "CancelledError"


@pytest.mark.parametrize(
    ("cell", "ename", "told"),
    [
        ("%%remote --detach\nlock.acquire()", "SerializationError", "lock"),
        ("%%remote --detach\nfit.result()", "SerializationError", "pass what the cell came to"),
        ("%%remote --detach\nx = (", "SyntaxError", "never closed"),
        ("%%remote --detach --nproc-per-node 2\n1", "ConfigurationError", "nproc_per_node"),
    ],
)
def test_what_cannot_be_handed_over_is_said_at_once(
    notebook: Notebook, cell: str, ename: str, told: str
) -> None:
    notebook.run("import threading\nlock = threading.Lock()")
    if "fit" in cell:
        notebook.run("%%remote --detach\n1")
        notebook.run("fit = _")
    ran = notebook.run(cell, fails=True)
    assert ran.ename == ename
    assert told in ran.traceback


def test_a_value_that_cannot_travel_looks_as_it_did_there(notebook: Notebook) -> None:
    notebook.run("%%remote --detach\nimport threading\nheld = threading.Lock()\n(n for n in range(3))")
    ran = notebook.run("job = _\njob.result()")
    assert ran.value["text/plain"].startswith("<generator object")
    applied = notebook.run("job.apply()")
    assert "held did not come" in applied.stderr
