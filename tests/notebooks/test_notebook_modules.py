"""Modules that lie in files beside the notebook are found where its cells run, and are loaded anew as they are here."""

from __future__ import annotations

from pathlib import Path

from kernels import Notebook


def folder_of(notebook: Notebook) -> Path:
    """Where the notebook runs, and imports from."""
    return Path(notebook.value("__import__('os').getcwd()"))


def test_what_lies_beside_the_notebook_can_be_imported_there(notebook: Notebook) -> None:
    package = folder_of(notebook) / "shapes"
    package.mkdir()
    (package / "__init__.py").write_text("from .plane import Square\nSIDES = 4\n")
    (package / "plane.py").write_text(
        "class Square:\n    def __init__(self, side): self.side = side\n    def area(self): return self.side ** 2\n"
    )
    (folder_of(notebook) / "prices.py").write_text("def price(area): return 2 * area\n")

    notebook.run("import shapes\nfrom shapes import Square\nmine = Square(3)")
    ran = notebook.run(
        "%%remote\nyours = Square(mine.area())\nyours.area(), shapes.SIDES, isinstance(mine, Square)"
    )
    assert ran.value["text/plain"] == "(81, 4, True)"
    assert notebook.value("type(yours) is Square and type(yours) is shapes.plane.Square")
    # ... written in the remote cell alone, or in a function; and by what was imported there, here
    ran = notebook.run(
        "%%remote\ndef total(shape):\n    from prices import price\n    return price(shape.area())\ntotal(mine)"
    )
    assert ran.value["text/plain"] == "18"
    notebook.run("%%remote\nimport prices as cost\nfrom shapes import plane")
    assert notebook.value("(cost.price(2), plane.Square(2).area(), total(mine))") == (4, 4, 18)


def test_parts_of_packages_that_are_imported_at_one_end_are_there_at_the_other(notebook: Notebook) -> None:
    package = folder_of(notebook) / "tools"
    package.mkdir()
    (package / "__init__.py").write_text("")
    for name in ("saws", "files"):
        (package / f"{name}.py").write_text(f"NAME = {name!r}\n")
    notebook.run("import tools.saws\ndef used(): return tools.saws.NAME")
    assert notebook.run("%%remote\nused(), tools.saws.NAME").value["text/plain"] == "('saws', 'saws')"
    notebook.run("%%remote\nimport tools.files")
    assert notebook.run("tools.files.NAME").value["text/plain"] == "'files'"


def test_all_frames_of_a_module_are_shown_whatever_it_is_called(notebook: Notebook) -> None:
    file = folder_of(notebook) / "forecast.py"  # its name ends as that of Python's own `ast.py` does
    file.write_text(
        "def fit():\n    try:\n        {}['k']\n    except KeyError as error:\n        raise ValueError from error\n"
    )
    ran = notebook.run("%%remote\nimport forecast\nforecast.fit()", fails=True)
    cause, _, error = ran.traceback.partition("direct cause of")
    assert "{}['k']" in cause
    assert "raise ValueError from error" in error


def test_a_module_that_is_written_later_and_elsewhere_is_found(notebook: Notebook) -> None:
    lib = folder_of(notebook) / "lib"
    lib.mkdir()
    (lib / "late.py").write_text("import sys\nWHERE = 'lib'\n")
    assert notebook.run("%%remote\nimport late", fails=True).ename == "ModuleNotFoundError"
    notebook.run(f"import sys\nsys.path.append({str(lib)!r})")
    assert notebook.run("%%remote\nimport late\nlate.WHERE").value["text/plain"] == "'lib'"
    # what is installed comes first there as it does here
    (lib / "tqdm.py").write_text("hidden = True\n")
    assert notebook.run("%%remote\nimport tqdm\nhasattr(tqdm, 'hidden')").value["text/plain"] == "False"


def test_a_module_reloaded_here_is_reloaded_there(notebook: Notebook) -> None:
    file = folder_of(notebook) / "answers.py"
    file.write_text("def answer(): return 1\n")
    notebook.run("import answers\nfrom answers import answer")
    assert notebook.run("%%remote\nanswers.answer(), answer()").value["text/plain"] == "(1, 1)"
    file.write_text("def answer(): return 'two'\n")
    assert notebook.run("%%remote\nanswers.answer()").value["text/plain"] == "1"  # as it is here
    notebook.run("import importlib\nimportlib.reload(answers)")
    ran = notebook.run("%%remote\nanswers.answer(), answer()")
    assert ran.value["text/plain"] == "('two', 1)"
    assert notebook.value("(answers.answer(), answer())") == ("two", 1)
    # what cannot be loaded is as it was, here and there
    file.write_text("def answer(: return 3\n")
    assert notebook.run("importlib.reload(answers)", fails=True).ename == "SyntaxError"
    ran = notebook.run("%%remote\nanswers.answer()")
    assert ran.value["text/plain"] == "'two'"
    assert "answers was not reloaded there, and is as it was: SyntaxError" in ran.stderr
    assert notebook.run("%%remote\nanswers.answer()").stderr == ""


def test_autoreload_holds_there(notebook: Notebook) -> None:
    file = folder_of(notebook) / "rates.py"
    file.write_text("def rate(): return 1\n")
    notebook.run("%load_ext autoreload\n%autoreload 2\nfrom rates import rate")
    assert notebook.run("%%remote\nrate()").value["text/plain"] == "1"
    file.write_text("def rate(): return 'more'\n")
    ran = notebook.run("%%remote\nrate()")
    assert (ran.value["text/plain"], notebook.value("rate()")) == ("'more'", "more")
    # ... also of what was imported there first
    file = folder_of(notebook) / "taxes.py"
    file.write_text("def tax(): return 1\n")
    assert notebook.run("%%remote\nimport taxes\ntaxes.tax()").value["text/plain"] == "1"
    file.write_text("def tax(): return 'more'\n")
    assert notebook.run("%%remote\ntaxes.tax()").value["text/plain"] == "'more'"


def test_an_error_in_a_module_shows_its_file_here(notebook: Notebook) -> None:
    file = folder_of(notebook) / "broken.py"
    file.write_text("def divide(a):\n    return a / 0\n")
    notebook.run("import broken")
    ran = notebook.run("%%remote\nbroken.divide(1)", fails=True)
    assert ran.ename == "ZeroDivisionError"
    assert f"File {file}:2" in ran.traceback
    assert "return a / 0" in ran.traceback
