"""Cells on several instance types: a session for each, the notebook's names the one truth between them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kernels import Notebook, opened

CONFIG = """
[tool.remote_exec.instances.one]
backend = "local"
[tool.remote_exec.instances.other]
backend = "local"
[tool.remote_exec.instances.whole]
backend = "local"
cpus = {cpus}
[tool.remote_exec.instances.same]
backend = "local"
cpus = {cpus}
"""


@pytest.fixture(scope="module")
def several(clients_loop: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """A notebook whose project has several instance types, with a session on two of them."""
    folder = tmp_path_factory.mktemp("several")
    (folder / "counting.py").write_text("count = 0\n")
    with opened(folder, started=False) as notebook:
        cpus = notebook.value("len(__import__('os').sched_getaffinity(0))")
        (folder / "pyproject.toml").write_text(CONFIG.format(cpus=cpus))
        notebook.run("import threading\nimport counting")
        notebook.run("%%remote one\npass")
        notebook.run("%%remote other\npass")
        yield notebook


def test_names_are_the_same_everywhere_and_modules_are_each_session_s_own(several: Notebook) -> None:
    notebook = several
    notebook.run("values = [1]\nalias = values\ngone = 1\ndef step(): return len(values)\nclass Point: pass")
    notebook.run(
        "%%remote one\nvalues.append(2)\ncounting.count += 1\npoint = Point()\ndef late(): return step() + 1"
    )
    notebook.run("%%remote other\nvalues.append(3)\npoint.x = late()\ndel gone\ncounting.count += 10")
    notebook.run("def step(): return 100")
    ran = notebook.run("%%remote one\nvalues, point.x, late(), 'gone' in globals(), counting.count")
    assert ran.value["text/plain"] == "([1, 2, 3], 4, 101, False, 1)"
    assert notebook.run("%%remote other\ncounting.count").value["text/plain"] == "10"
    assert notebook.value("values is alias, values, type(point) is Point, counting.count") == (
        True,
        [1, 2, 3],
        True,
        0,
    )


def test_what_has_stayed_on_one_says_so_on_the_other(several: Notebook) -> None:
    notebook = several
    notebook.run("%%remote one --keep\nlock = threading.Lock()\nmodel = [1, 2]")
    for source, told in {
        "lock.acquire()": ("lock has stayed on one, and this cell runs on other", "%%remote one"),
        "model.append(3)": ("model has stayed on one", "model = model.fetch()"),
    }.items():
        ran = notebook.run(f"%%remote other\n{source}", fails=True)
        assert all(one in ran.traceback for one in told), ran.traceback
    notebook.run("def use(): return lock.acquire(False)")
    ran = notebook.run("%%remote other\nuse()", fails=True)
    assert (ran.ename, "it stays on one" in ran.traceback) == ("AttributeError", True)
    # it may be held there, and stays what it is
    notebook.run("%%remote other\nheld = [globals()['lock']]")
    assert notebook.value("held[0] is lock")
    assert notebook.run("%%remote one\nuse(), held[0] is lock").value["text/plain"] == "(True, True)"
    notebook.run("model = model.fetch()")
    notebook.run("%%remote other\nmodel.append(3)")
    assert notebook.run("%%remote one\nmodel").value["text/plain"] == "[1, 2, 3]"
    status = notebook.run("%remote status").value["text/plain"]
    assert "instance_type=one" in status
    assert "instance_type=other" in status
    assert status.splitlines()[-1].split() != ["stay", "there:", "lock"]
    assert any(line.split() == ["stay", "there:", "lock"] for line in status.splitlines())


def test_other_options_mean_another_worker_unless_something_would_be_lost(several: Notebook) -> None:
    notebook = several
    notebook.run("%%remote other --keep\nstays = [1]")
    ran = notebook.run("%%remote other --environment-variables MARK=1\nmade = 1", fails=True)
    assert "would be lost: stays" in ran.traceback
    assert "stays = stays.fetch()" in ran.traceback
    assert "%remote restart other" in ran.traceback
    assert "File" not in ran.traceback
    notebook.run("stays = stays.fetch()")
    ran = notebook.run("%%remote other --environment-variables MARK=1\nimport os\nos.environ['MARK'], stays")
    assert ran.value["text/plain"] == "('1', [1])"
    assert "given back" in ran.stderr
    # a cell that asks for nothing goes on in it
    ran = notebook.run("%%remote other\nos.environ['MARK']")
    assert (ran.value["text/plain"], ran.stderr) == ("'1'", "")
    assert notebook.run("%%remote one\n'MARK' in os.environ").value["text/plain"] == "False"


def test_an_option_that_is_not_read_there_is_said_once_and_changes_nothing(several: Notebook) -> None:
    notebook = several
    notebook.run("%%remote one\ncounting.count = 50")
    ran = notebook.run("%%remote one --spot\ncounting.count")
    assert "(flag --spot) is not read by the backend 'local' and is ignored" in ran.stderr
    assert ran.value["text/plain"] == "50"
    assert notebook.run("%%remote one --spot\n1").stderr == ""


def test_a_session_ends_without_the_other(several: Notebook) -> None:
    notebook = several
    notebook.run("%%remote one\ncounting.count = 7\nfirst = open('/dev/null')")
    notebook.run("%%remote other\nsecond = open('/dev/null')")
    ran = notebook.run("%%remote other\nimport os\nos._exit(3)", fails=True)
    assert "gone: second." in ran.traceback
    assert notebook.run("%%remote one\ncounting.count, first.closed").value["text/plain"] == "(7, False)"
    ran = notebook.run("%%remote one\nsecond.closed", fails=True)
    assert "second is lost" in ran.traceback
    notebook.run("%%remote other\ncounting.count = 8")
    assert "is gone" in notebook.run("%remote restart one").stdout
    assert notebook.run("%%remote other\ncounting.count").value["text/plain"] == "8"
    assert notebook.run("first.closed", fails=True).ename == "AttributeError"
    assert "none" in notebook.run("%remote restart one").stdout


def test_who_waits_for_what_the_notebook_itself_holds_is_told(several: Notebook) -> None:
    notebook = several
    notebook.run("%remote restart")
    notebook.run("%%remote whole\nhere = 1")
    told = "this notebook's session on whole (%remote restart whole ends it)"
    ran = notebook.run("%%remote same\nhere", at=told, fails=True)
    assert ran.ename == "KeyboardInterrupt"
    assert "%remote restart whole" in ran.stderr
    notebook.run("%remote restart whole")
    assert notebook.run("%%remote same\nhere").value["text/plain"] == "1"
