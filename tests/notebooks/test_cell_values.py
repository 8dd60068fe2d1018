"""What stays there stands here under its name; and what lives on there between cells."""

from __future__ import annotations

from pathlib import Path

from kernels import Notebook, opened


def test_what_cannot_travel_stays_and_is_used_in_place(notebook: Notebook) -> None:
    ran = notebook.run("%%remote\nnumbers = (n * n for n in range(9))\nplain = [1]\nnumbers")
    assert "generator object" in ran.value["text/plain"]
    assert "numbers stays there: generator" in ran.stderr
    assert notebook.value("plain, type(numbers).__name__, type(_).__name__") == ([1], "Kept", "Kept")
    assert notebook.run("%%remote\nnext(numbers), next(numbers)").value["text/plain"] == "(0, 1)"
    assert notebook.run("%%remote\nnext(numbers)").value["text/plain"] == "4"
    assert "cannot pickle 'generator'" in notebook.run("numbers.fetch()", fails=True).traceback


def test_what_is_bigger_than_the_limit_stays_until_it_is_fetched(notebook: Notebook) -> None:
    notebook.run("%config RemoteMagics.most_bytes = 100_000")
    try:
        ran = notebook.run("%%remote\nbig = bytearray(b'x' * 200_000)\nsmall = bytearray(b'x')\nbig")
    finally:
        notebook.run("%config RemoteMagics.most_bytes = 256 << 20")
    assert ran.value["text/plain"].startswith("bytearray(b'xxx")
    assert notebook.value("type(_).__name__, type(big).__name__, type(small).__name__") == (
        "Kept",
        "Kept",
        "bytearray",
    )
    assert notebook.run("%%remote\nbig.extend(b'yy')\nlen(big)").value["text/plain"] == "200002"
    assert notebook.value("len(big.fetch()), type(big).__name__") == (200_002, "Kept")
    notebook.run("big = big.fetch()\nbig.append(1)")
    assert notebook.run("%%remote\nlen(big), big[-1]").value["text/plain"] == "(200003, 1)"


def test_what_is_kept_on_request_is_the_object_itself_there(notebook: Notebook) -> None:
    notebook.run("class Model:\n    pass")
    ran = notebook.run("%%remote --keep\nmodel = Model()\nmodel.weights = [1, 2]\nmodel")
    assert notebook.value("_.fetch().weights") == [1, 2]
    assert "Model at" in ran.value["text/plain"]
    notebook.run("def grow(model):\n    model.weights.append(3)\n    return model")
    assert (
        notebook.run("%%remote\ngrow(model) is model, model.weights").value["text/plain"]
        == "(True, [1, 2, 3])"
    )
    assert notebook.value("type(model.fetch()) is Model, model.fetch().weights") == (True, [1, 2, 3])


def test_names_can_be_limited(notebook: Notebook) -> None:
    notebook.run("one, two = [1], [2]")
    ran = notebook.run("%%remote --in one --out made\none.append(1)\nmade = 'two' in globals()\nother = 1")
    assert not ran.errors
    assert notebook.value("one, made, 'other' in globals()") == ([1], False, False)
    assert notebook.run("%%remote\nother").value["text/plain"] == "1"
    assert notebook.value("'other' in globals()") is False
    notebook.run("%%remote\nother = 2")
    assert notebook.value("other") == 2


def test_former_values_go_along_and_what_is_thrown_away_stays(fresh_notebook: Notebook) -> None:
    notebook = fresh_notebook
    number = notebook.run("listed = [1]; listed").reply["execution_count"]
    ran = notebook.run(f"%%remote\nwas = _ is listed\n_.append(2)\n_{number}, Out[{number}], was")
    assert ran.value["text/plain"] == "([1, 2], [1, 2], True)"
    assert notebook.value("listed") == [1, 2]
    assert notebook.run("%%remote\n_[0] + _[1]").value["text/plain"] == "[1, 2, 1, 2]"
    notebook.run("%%remote\nfor _ in range(3): pass\n_ = (n for n in range(3))")
    assert notebook.run("_").value["text/plain"] == "[1, 2, 1, 2]"
    notebook.run("_image, __private = 'one', 'two'")
    assert notebook.run("%%remote\n_image, __private").value["text/plain"] == "('one', 'two')"
    notebook.run("%%remote\n_index: int = 5\nimport warnings; warnings.warn('noted')")
    assert notebook.value("_index, __annotations__['_index'] is int") == (5, True)
    assert notebook.value("'__warningregistry__' in globals()") is False
    notebook.run("%%remote\nfrom gettext import gettext as _")
    assert notebook.run("%%remote\n_('said')").value["text/plain"] == "'said'"
    assert notebook.run("_('said')").value["text/plain"] == "'said'"


def test_modules_generators_and_files_live_on(notebook: Notebook, tmp_path: Path) -> None:
    notebook.run("%%remote\nimport random, math\nrandom.seed(5)\nmath.mark = 'set'\nfirst = random.random()")
    notebook.run(f"%%remote\nfile = open({str(tmp_path / 'log')!r}, 'w')\nsecond = random.random()")
    notebook.run("%%remote\nfile.write('two ')\nmark = math.mark")
    notebook.run("%%remote\nfile.write('parts')\nfile.close()")
    assert (tmp_path / "log").read_text() == "two parts"
    assert notebook.value("mark") == "set"
    notebook.run("import random\nrandom.seed(5)\nexpected = random.random(), random.random()")
    assert notebook.value("(first, second) == expected")


def test_deleted_names_are_gone_at_both_ends(notebook: Notebook) -> None:
    notebook.run("%%remote\nleft, right = 1, 2")
    notebook.run("del left")
    ran = notebook.run("%%remote\nleft", fails=True)
    assert ran.ename == "NameError"
    notebook.run("%%remote\ndel right")
    assert notebook.run("right", fails=True).ename == "NameError"
    notebook.run("import threading\nlock = threading.Lock()")
    notebook.run("%%remote\ndel lock")
    assert notebook.run("lock", fails=True).ename == "NameError"


def test_what_a_cell_here_lets_go_is_gone(notebook: Notebook) -> None:
    notebook.run("import gc, weakref\nclass Row: pass\nrows = [Row()]; first = weakref.ref(rows[0])")
    assert notebook.run("%%remote\nlen(rows)").value["text/plain"] == "1"
    notebook.run("del rows")
    assert notebook.value("(gc.collect(), first() is None)[1]") is True


def test_the_working_folder_is_the_last_that_was_entered(notebook: Notebook, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    before = notebook.value("__import__('os').getcwd()")
    assert notebook.run("%%remote\nimport os\nos.getcwd()").value["text/plain"] == repr(before)
    notebook.run(f"%%remote\nos.chdir({str(there)!r})\nos.environ['SET_THERE'] = 'yes'")
    assert notebook.run("%%remote\nos.getcwd()").value["text/plain"] == repr(str(there))
    assert notebook.run("%%remote\nos.environ['SET_THERE']").value["text/plain"] == "'yes'"
    assert notebook.value("__import__('os').getcwd(), 'SET_THERE' in __import__('os').environ") == (
        before,
        False,
    )
    notebook.run(f"%cd {here}")
    assert notebook.run("%%remote\nos.getcwd()").value["text/plain"] == repr(str(here))
    notebook.run(f"%cd {before}")


def test_two_notebooks_are_apart(notebook: Notebook, tmp_path_factory: object, tmp_path: Path) -> None:
    notebook.run("%%remote\nimport sys, os\nmine = 1\nsys.marked = True\npid = os.getpid()")
    with opened(tmp_path) as other:
        ran = other.run(
            "%%remote\nimport sys, os\npid = os.getpid()\nhasattr(sys, 'marked'), 'mine' in globals()"
        )
        assert ran.value["text/plain"] == "(False, False)"
        assert other.value("pid") != notebook.value("pid")
        other.run("%%remote\nmine = 2")
    assert notebook.run("%%remote\nmine").value["text/plain"] == "1"


def test_a_reloaded_extension_begins_anew(fresh_notebook: Notebook) -> None:
    fresh_notebook.run("%%remote\nimport os\npid = os.getpid()")
    fresh_notebook.run("%unload_ext jupyter_ext")
    assert "UsageError" in fresh_notebook.run("%%remote\n1", fails=True).stderr
    assert "Cell In[" in fresh_notebook.run("1 / 0", fails=True).traceback
    fresh_notebook.run("%load_ext jupyter_ext")
    assert fresh_notebook.run("%%remote\nos.getpid() == pid").value["text/plain"] == "False"


def test_what_cannot_be_loaded_at_one_end_holds_up_nothing_else(notebook: Notebook) -> None:
    notebook.run(
        "import os\n"
        "def load(process):\n    if os.getpid() != process:\n        raise RuntimeError('only where it was made')\n"
        "    return Picky()\n"
        "class Picky:\n    def __init__(self):\n        self.process = os.getpid()\n"
        "    def __reduce__(self):\n        return load, (self.process,)\n"
        "ours, grown = Picky(), [1]"
    )
    notebook.run("%%remote\ngrown.append(2)\nif len(grown) > 9: ours")
    assert notebook.value("grown") == [1, 2]
    ran = notebook.run("%%remote\ngrown.append(3)\nours", fails=True)
    assert (ran.ename, notebook.value("grown")) == ("SerializationError", [1, 2])
    assert "only where it was made" in ran.traceback
    ran = notebook.run(
        "%%remote\nimport os\ntheirs = Picky()\ngrown.append(4)\ntheirs.process == os.getpid()"
    )
    assert ran.value["text/plain"] == "True"
    assert "theirs stays there: " in ran.stderr
    assert notebook.value("grown, type(theirs).__name__") == ([1, 2, 4], "Kept")
    assert notebook.run("%%remote\ntheirs.process == os.getpid()").value["text/plain"] == "True"


def test_classes_may_use_the_notebook_while_they_are_loaded(notebook: Notebook) -> None:
    notebook.run(
        "import math\nclass Root:\n    def __init__(self, of):\n        self.of = of\n"
        "    def __getstate__(self):\n        return self.of\n"
        "    def __setstate__(self, of):\n        self.of, self.root = of, math.sqrt(of)\n"
        "nine = Root(9)"
    )
    assert notebook.run("%%remote\nnine.root").value["text/plain"] == "3.0"


def test_a_use_here_of_what_stayed_there_says_where_it_is(notebook: Notebook) -> None:
    notebook.run("%%remote --keep\nimport threading\nlock, rows = threading.Lock(), [1, 2]")
    notebook.run("import copy\nfrom remote_exec import remote\n@remote\ndef length(x): return len(x)")
    for source, kind in {
        "lock.acquire()": "AttributeError",
        "rows.extra = 1": "AttributeError",
        "len(rows)": "TypeError",
        "rows[0]": "TypeError",
        "rows[0] = 1": "TypeError",
        "for row in rows: pass": "TypeError",
        "1 in rows": "TypeError",
        "next(rows)": "TypeError",
        "rows + [3]": "TypeError",
        "[3] + rows": "TypeError",
        "rows += [3]": "TypeError",
        "rows < [3]": "TypeError",
        "if rows: pass": "TypeError",
        "rows()": "TypeError",
        "with lock: pass": "TypeError",
        "range(rows)": "TypeError",
        "__import__('numpy').sum(rows)": "TypeError",
        "copy.copy(rows)": "TypeError",
        "length(rows)": "SerializationError",
    }.items():
        ran = notebook.run(source, fails=True)
        assert ran.ename == kind, (source, ran.ename)
        assert "stays on local" in ran.traceback
        assert "use it in a %%remote cell there" in ran.traceback
        assert ("bring it with .fetch()" in ran.traceback) == ("rows" in source), source
        if kind != "SerializationError":
            assert "kept.py" not in ran.traceback
            assert source in ran.traceback
    assert notebook.value("rows == rows, rows == 3, hasattr(rows, 'append'), rows in [rows]") == (
        True,
        False,
        False,
        True,
    )
    assert notebook.value("repr(rows), f'{rows}'") == ("<remote list: [1, 2]; it stays on local>",) * 2
    # within others, it is the same one
    notebook.run("%%remote\nheld = [lock]")
    assert notebook.value("held[0] is lock")
    assert "stays on local" in notebook.run("held[0].locked()", fails=True).traceback
    notebook.run("%remote restart")
    ran = notebook.run("rows[0]", fails=True)
    assert "this list is lost: the worker in which it was is gone" in ran.traceback
