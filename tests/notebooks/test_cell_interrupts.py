"""Stop: the cell is interrupted where it runs, and the kernel is free whatever that does; so when its worker dies."""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path

import pytest
from kernels import Notebook
from leftovers import until_empty

FREE_SECONDS = 20.0  # far more than it takes, and far less than what is interrupted would


def stop_when(notebook: Notebook, begun: Path) -> None:
    """Press stop as soon as a file is there."""
    until_empty(lambda: not begun.exists(), FREE_SECONDS)
    notebook.interrupt()


def test_a_cell_is_interrupted_and_what_it_has_changed_comes_home(notebook: Notebook) -> None:
    notebook.run("steps = []\nalias = steps")
    ran = notebook.run(
        "%%remote\nimport time\nlate = 'made'\nfor step in range(600):\n    steps.append(step)\n"
        "    if step == 1: print('now')\n    time.sleep(0.1)",
        at="now",
        fails=True,
    )
    assert ran.ename == "KeyboardInterrupt"
    assert "----> 7     time.sleep(0.1)" in ran.traceback
    assert ran.traceback.count("Cell In[") == 1
    assert ran.seconds < FREE_SECONDS
    assert notebook.value("late, len(steps) > 1, alias is steps") == ("made", True, True)
    assert notebook.run("%%remote\nlate, len(steps) > 1").value["text/plain"] == "('made', True)"


def test_a_cell_that_awaits_is_interrupted_and_tasks_go_on(notebook: Notebook) -> None:
    ran = notebook.run(
        "%%remote\nimport asyncio\nended = []\ntask = asyncio.create_task(asyncio.sleep(0, 'done'))\n"
        "try:\n    print('now')\n    await asyncio.sleep(60)\nfinally:\n    ended.append(1)",
        at="now",
        fails=True,
    )
    assert ran.ename == "KeyboardInterrupt"
    assert "----> 7     await asyncio.sleep(60)" in ran.traceback
    assert ran.seconds < FREE_SECONDS
    assert notebook.value("ended") == [1]
    notebook.run("%%remote\nlater = asyncio.create_task(asyncio.sleep(0, 'too'))")  # nothing is awaited
    assert notebook.run("%%remote\nawait task, await later").value["text/plain"] == "('done', 'too')"


def test_what_a_cell_has_started_is_interrupted_with_it(notebook: Notebook) -> None:
    ran = notebook.run("%%remote\n%%bash\necho now\nsleep 60\necho not said", at="now", fails=True)
    assert ran.ename == "CalledProcessError"
    assert "died with <Signals.SIGINT: 2>" in ran.traceback
    assert ran.seconds < FREE_SECONDS
    assert "not said" not in ran.stdout


def test_an_interrupt_that_the_cell_handles_is_its_own(notebook: Notebook) -> None:
    ran = notebook.run(
        "%%remote\nimport time\nprint('now')\ntry:\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    print('handled')\n"
        "'went on'",
        at="now",
    )
    assert (ran.stdout, ran.value["text/plain"]) == ("now\nhandled\n", "'went on'")


def test_what_is_printed_without_an_end_is_interrupted(notebook: Notebook) -> None:
    ran = notebook.run(
        "%%remote\nfrom IPython.display import display\nwhile True:\n    display('shown')\n    print('now')",
        at="now",
        fails=True,
    )
    assert ran.ename == "KeyboardInterrupt"
    assert ran.seconds < FREE_SECONDS
    assert notebook.run("%%remote\n1 + 1").value["text/plain"] == "2"


def test_a_cell_that_does_not_heed_is_ended(fresh_notebook: Notebook) -> None:
    notebook = fresh_notebook
    notebook.run("%%remote\nhere = [1]\nstays = open('/dev/null')")
    ran = notebook.run(
        "%%remote\nimport time\nhere.append(2)\nprint('now')\nwhile True:\n"
        "    try: time.sleep(60)\n    except KeyboardInterrupt: pass",
        at="now",
        fails=True,
    )
    assert ran.ename == "RemoteInterrupted"
    assert notebook.value("isinstance(__import__('sys').last_value, KeyboardInterrupt)")
    assert len(ran.errors) == 1
    assert "lost" in ran.traceback
    assert "gone: stays" in ran.traceback
    assert "Cell In" not in ran.traceback
    assert ran.seconds < FREE_SECONDS
    assert notebook.value("here") == [1]
    assert "is lost" in notebook.run("%%remote\nstays", fails=True).traceback
    assert notebook.run("%%remote\nhere").value["text/plain"] == "[1]"


def test_a_worker_that_dies_is_told_of_once(fresh_notebook: Notebook) -> None:
    notebook = fresh_notebook
    notebook.run("%%remote\nhere = 1")
    ran = notebook.run(
        "%%remote\nimport os, signal\nhere = 2\nos.kill(os.getpid(), signal.SIGKILL)", fails=True
    )
    assert ran.ename == "WorkerDied"
    assert "the worker that ran notebook died" in ran.traceback
    assert "SIGKILL" in ran.traceback
    assert "namespace is lost" in ran.traceback
    assert "File" not in ran.traceback
    assert notebook.value("here, type(__import__('sys').last_value.certificate).__name__") == (
        1,
        "DeathCertificate",
    )
    assert notebook.run("%%remote\nimport os\nhere, os.getpid() == pid", fails=True).ename == "NameError"
    assert notebook.run("%%remote\nhere").value["text/plain"] == "1"


def test_a_worker_that_died_between_cells_is_replaced(fresh_notebook: Notebook) -> None:
    notebook = fresh_notebook
    notebook.run("x = [1]")
    notebook.run("%%remote\nimport os\nx.append(2)\npid = os.getpid()")
    os.kill(notebook.value("pid"), signal.SIGKILL)
    notebook.run(
        "import time\nsession = get_ipython().magics_manager.registry['RemoteMagics'].sessions.last\n"
        "while session.died_of is None: time.sleep(0.01)"
    )
    ran = notebook.run("%%remote\nx.append(3)\nx")
    assert ran.value["text/plain"] == "[1, 2, 3]"
    assert "namespace is lost" in ran.stderr


def test_stop_while_a_worker_is_awaited(fresh_notebook: Notebook, tmp_path: Path) -> None:
    notebook, begun = fresh_notebook, tmp_path / "begun"
    presser = threading.Thread(target=stop_when, args=(notebook, begun))
    presser.start()
    line = f"%%remote --pre-execution-commands 'touch {begun}; sleep 60'"
    ran = notebook.run(f"{line}\n1", fails=True)
    presser.join()
    assert ran.ename == "KeyboardInterrupt"
    assert ran.seconds < FREE_SECONDS
    assert "File" not in ran.traceback
    assert notebook.run("%%remote\n2").value["text/plain"] == "2"


def test_stop_while_the_environment_is_made(fresh_notebook: Notebook, tmp_path: Path) -> None:
    notebook, begun = fresh_notebook, tmp_path / "begun"
    with socket.create_server(("127.0.0.1", 0)) as index:  # it is asked for a wheel, and never answers

        def take() -> None:
            with index.accept()[0]:
                begun.touch()
                ended.wait(3 * FREE_SECONDS)

        ended = threading.Event()
        threads = [
            threading.Thread(target=take),
            threading.Thread(target=stop_when, args=(notebook, begun)),
        ]
        for thread in threads:
            thread.start()
        wheel = f"http://127.0.0.1:{index.getsockname()[1]}/slow-1.0-py3-none-any.whl"
        ran = notebook.run(f"%%remote --dependencies 'slow @ {wheel}'\n1", fails=True)
        ended.set()
        for thread in threads:
            thread.join()
    assert ran.ename == "KeyboardInterrupt"
    assert ran.seconds < FREE_SECONDS
    assert "File" not in ran.traceback
    assert notebook.run("%%remote\n2").value["text/plain"] == "2"


@pytest.mark.parametrize("asks", ["input('? ')", "__import__('getpass').getpass('? ')"])
def test_stop_while_a_cell_asks(notebook: Notebook, asks: str) -> None:
    ran = notebook.run(f"%%remote\nasked = 1\n{asks}", answers=(notebook.interrupt,), fails=True)
    assert ran.ename == "KeyboardInterrupt"
    assert ran.seconds < FREE_SECONDS
    assert notebook.value("asked") == 1
    assert notebook.run("%%remote\nasked").value["text/plain"] == "1"


@pytest.mark.parametrize("method", ["__getstate__", "__setstate__"])
def test_stop_while_names_travel(notebook: Notebook, tmp_path: Path, method: str) -> None:
    begun = tmp_path / "begun"
    notebook.run(
        f"class Slow:\n    def {method}(self, *_):\n        import pathlib, time\n"
        f"        pathlib.Path({str(begun)!r}).touch()\n        time.sleep(60)\n"
        "slow, values = Slow(), [1]\nslow.made = 1"
    )
    presser = threading.Thread(target=stop_when, args=(notebook, begun))
    presser.start()
    ran = notebook.run("%%remote\nvalues.append(2)\nslow", fails=True)
    presser.join()
    assert ran.ename == "KeyboardInterrupt"
    assert ran.seconds < FREE_SECONDS
    assert notebook.value("values") == [1]
    assert notebook.run("%%remote\nvalues.append(3)\nvalues").value["text/plain"] == "[1, 3]"
    assert notebook.value("values") == [1, 3]
