"""What a remote cell raises is shown as IPython shows what a cell raises, and nothing of what carried it."""

from __future__ import annotations

import re

import pytest
from kernels import CellRun, Notebook

MACHINERY = ("site-packages", "remote_exec_runtime", "jupyter_ext/", "run_cell_magic", "session/shell.py")


def no_machinery(ran: CellRun) -> bool:
    """Whether what is shown is of cells alone, and once."""
    told = ran.traceback + ran.stderr
    return not any(part in told for part in MACHINERY)


def test_frames_of_cells_have_their_lines(notebook: Notebook) -> None:
    here = notebook.run(
        "# a comment\ndef inner(value):\n    grown = value + 1\n    raise ValueError(f'bad {grown}')"
    )
    there = notebook.run("%%remote\n\ndef outer(value):\n    return inner(2 * value)")
    ran = notebook.run("%%remote\n# another\nouter(3)", fails=True)
    count = [one.reply["execution_count"] for one in (here, there, ran)]
    assert (ran.ename, ran.errors[0]["evalue"]) == ("ValueError", "bad 7")
    assert f"Cell In[{count[2]}], line 3" in ran.traceback
    assert f"Cell In[{count[1]}], line 4, in outer" in ran.traceback
    assert f"Cell In[{count[0]}], line 4, in inner" in ran.traceback
    assert "----> 4     return inner(2 * value)" in ran.traceback
    assert no_machinery(ran)
    assert len(ran.errors) == 1
    assert ran.traceback.count("ValueError: bad 7") == 1


def test_lines_are_counted_from_the_top_of_the_cell(notebook: Notebook) -> None:
    ran = notebook.run("%%time\n%%remote\n\n1 / 0", fails=True)
    assert f"Cell In[{ran.reply['execution_count']}], line 4" in ran.traceback
    ran = notebook.run("# %%remote\n1 / 0", fails=True)
    assert f"Cell In[{ran.reply['execution_count']}], line 2" in ran.traceback


def test_the_magic_is_shown_as_it_was_typed(notebook: Notebook) -> None:
    ran = notebook.run("%%remote local\n# a comment\n1 / 0", fails=True)
    assert [line for line in ran.traceback.splitlines() if line.lstrip("-> ")[:1].isdecimal()] == [
        "      1 %%remote local",
        "      2 # a comment",
        "----> 3 1 / 0",
    ]
    listed = re.sub(r"\x1b\[[\d;]*m", "", notebook.run("%debug", answers=("list", "q")).stdout)
    assert "      1 %%remote local\n" in listed
    assert "#  %%" not in listed
    timed = notebook.run("%%time\n%%remote\n1 / 0", fails=True).traceback
    assert "      1 %%time\n      2 %%remote\n----> 3 1 / 0" in timed


def test_debug_opens_the_remote_frames(notebook: Notebook) -> None:
    notebook.run(
        "class Unsendable:\n    def __reduce__(self):\n        raise TypeError('it stays')\n"
        "    def __repr__(self):\n        return '<unsendable>'"
    )
    notebook.run(
        "%%remote\ndef deep(number):\n    stuck = Unsendable()\n    return number / 0\n\n"
        "def shallow(text):\n    return deep(len(text))\n\nshallow('four')",
        fails=True,
    )
    ran = notebook.run(
        "%debug", answers=("p number + 1", "p stuck", "up", "p text.upper()", "up", "p 1", "up", "q")
    )
    lines = ran.stdout.splitlines()
    for told in ("5", "<unsendable>", "'FOUR'"):
        assert told in lines
    assert "Oldest frame" in ran.stdout
    assert no_machinery(ran)


@pytest.mark.parametrize("where", ["", "%%remote\n"])
def test_classes_of_the_notebook_are_kept(notebook: Notebook, where: str) -> None:
    notebook.run(
        f"{where}class Refused(Exception):\n    def __init__(self, who, *, why):\n"
        "        super().__init__(f'{who}: {why}')\n        self.who = who"
    )
    ran = notebook.run("%%remote\nraise Refused('bob', why='late')", fails=True)
    assert (ran.ename, ran.errors[0]["evalue"]) == ("Refused", "bob: late")
    assert notebook.value("__import__('sys').last_value.who") == "bob"
    assert notebook.value("type(__import__('sys').last_value) is Refused")


def test_chains_and_groups_are_shown(notebook: Notebook) -> None:
    ran = notebook.run(
        "%%remote\ntry:\n    {}['key']\nexcept KeyError as error:\n    raise ValueError('outer') from error",
        fails=True,
    )
    assert (
        ran.traceback.index("KeyError: 'key'")
        < ran.traceback.index("direct cause of")
        < ran.traceback.index("outer")
    )
    assert no_machinery(ran)
    ran = notebook.run(
        "%%remote\nraise ExceptionGroup('both', [ValueError('one'), KeyError('two')])", fails=True
    )
    assert ran.reply["ename"] == "ExceptionGroup"
    assert "ValueError: one" in ran.stderr
    assert "KeyError: 'two'" in ran.stderr
    assert no_machinery(ran)


def test_a_syntax_error_is_raised_before_anything_runs(notebook: Notebook) -> None:
    source = "print('not run')\nx = = 1\n"
    ran, local = notebook.run(f"%%remote\n{source}", fails=True), notebook.run(f"#\n{source}", fails=True)
    assert ran.ename == local.ename == "SyntaxError"
    assert ran.traceback.splitlines()[1:] == local.traceback.splitlines()[1:]
    assert "line 3" in ran.traceback
    assert not ran.stdout


def test_what_a_failing_cell_has_changed_comes_home(notebook: Notebook) -> None:
    notebook.run("taken = [1]\nkept = taken\ngone = 1")
    ran = notebook.run("%%remote\ntaken.append(2)\nmade = 3\ndel gone\nmissing\nnever = 1", fails=True)
    assert ran.errors[0]["evalue"] == "name 'missing' is not defined"
    assert notebook.value("taken, kept is taken, made, 'gone' in globals(), 'never' in globals()") == (
        [1, 2],
        True,
        3,
        False,
        False,
    )


def test_an_error_of_ours_is_one_message(notebook: Notebook) -> None:
    notebook.run("import threading\nlock = threading.Lock()")
    ran = notebook.run("%%remote\nprint('not run')\nlock.acquire()", fails=True)
    assert ran.ename == "SerializationError"
    assert "lock" in ran.traceback
    assert no_machinery(ran)
    assert not ran.stdout
    ran = notebook.run("%%remote --no-such-flag\n1", fails=True)
    assert "UsageError" in ran.stderr
    assert no_machinery(ran)


def test_errors_shown_by_other_means_are_as_ever(notebook: Notebook) -> None:
    assert "Cell In[" in notebook.run("1 / 0", fails=True).traceback
    ran = notebook.run("%%remote\n%xmode Minimal\n1 / 0", fails=True)
    assert ran.ename == "ZeroDivisionError"
    notebook.run("%xmode Minimal")
    assert (
        notebook.run("%%remote\n1 / 0", fails=True).traceback.strip() == "ZeroDivisionError: division by zero"
    )
    notebook.run("%xmode Context")


def test_what_is_no_python_and_ends_the_cell_is_told_where_it_is(notebook: Notebook) -> None:
    ran = notebook.run("%%remote\ntext = '1 +'\neval(text)", fails=True)
    assert ran.ename == "SyntaxError"
    assert f"Cell In[{ran.reply['execution_count']}], line 3" in ran.traceback
    ran = notebook.run("%%remote\nimport sys\nsys.exit(3)", fails=True)
    assert (ran.ename, ran.stdout) == ("SystemExit", "")
    ran = notebook.run("%%remote\n%%bash\nexit 3", fails=True)
    assert ran.ename == "CalledProcessError"
    assert "File" not in ran.traceback
