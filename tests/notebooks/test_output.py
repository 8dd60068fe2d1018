"""What a remote cell prints and displays is in the cell, as if it had run here."""

from __future__ import annotations

from kernels import Notebook


def test_names_go_and_come_back(notebook: Notebook) -> None:
    notebook.run("x = [1, 2]")
    ran = notebook.run("%%remote\nx.append(5)\nprint('hi')\nsum(x)")
    assert (ran.stdout, ran.value["text/plain"]) == ("hi\n", "8")
    assert notebook.value("x") == [1, 2, 5]
