"""A kernel's subshells run beside its cells: a remote cell is for the main one; what else goes there takes turns."""

from __future__ import annotations

from pathlib import Path

import ipykernel
import pytest
from kernels import Notebook
from test_cell_widgets import model

pytestmark = pytest.mark.skipif(
    ipykernel.version_info < (7,), reason="NOT TO BE HAD HERE: kernels with subshells"
)
BUSY = "%%remote\nimport os, time\nprint('begun', flush=True)\nwhile not os.path.exists({gate!r}): time.sleep(0.01)\n"


def test_a_remote_cell_is_refused_while_others_run_and_names_may_change(
    notebook: Notebook, tmp_path: Path
) -> None:
    gate = str(tmp_path / "gate")
    subshell = notebook.subshell()
    notebook.run("import pathlib\nvalues = [1]")
    main = notebook.execute(f"{BUSY.format(gate=gate)}values.append(2)\nended = True")
    notebook.heard(main, until=lambda ran: "begun" in ran.stdout)
    (refused,) = notebook.heard(notebook.execute("%%remote\n1", subshell=subshell))
    assert "subshell cannot run it" in refused.stderr
    # names come and go beside it, and when it ends
    binding = notebook.execute(
        f"pathlib.Path({gate!r}).touch()\nnumber = 0\nwhile not globals().get('ended'):\n    number += 1\n"
        "    globals()[f'name{number % 999}'] = number\nprint('beside')",
        subshell=subshell,
    )
    ran, beside = notebook.heard(main, binding)
    assert (ran.errors, beside.errors, beside.stdout) == ([], [], "beside\n")
    assert notebook.value("values, ended") == ([1, 2], True)
    assert notebook.run("%%remote\nvalues").value["text/plain"] == "[1, 2]"


def test_what_a_widget_hears_waits_for_the_cell(notebook: Notebook, tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    subshell = notebook.subshell()
    notebook.run("import pathlib")
    ran = notebook.run(
        "%%remote\nimport ipywidgets\nslider, seen = ipywidgets.IntSlider(), []\n"
        "def changed(change):\n    seen.append(change['new'])\n    print('now', seen)\n"
        "slider.observe(changed, 'value')\nslider"
    )
    comm = model(ran, "IntSliderModel")
    main = notebook.execute(f"{BUSY.format(gate=gate)}seen.append('cell')")
    notebook.heard(main, until=lambda ran: "begun" in ran.stdout)
    moved = notebook.send(
        "comm_msg",
        {"comm_id": comm, "data": {"method": "update", "state": {"value": 7}, "buffer_paths": []}},
        subshell=subshell,
    )
    open(gate, "w").close()
    ran, heard = notebook.heard(main, moved)
    assert (ran.errors, heard.errors, heard.stdout) == ([], [], "now ['cell', 7]\n")
    assert notebook.value("seen") == ["cell", 7]
    assert notebook.run("%%remote\nslider.value, seen").value["text/plain"] == "(7, ['cell', 7])"


def test_what_is_fetched_beside_a_cell_waits_for_it(notebook: Notebook, tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    subshell = notebook.subshell()
    notebook.run("%%remote --keep\nlarge = [1]")
    main = notebook.execute(f"{BUSY.format(gate=gate)}large.append(2)\nmore = [3]")
    notebook.heard(main, until=lambda ran: "begun" in ran.stdout)
    fetching = notebook.execute("print('asked', flush=True)\nprint(large.fetch())", subshell=subshell)
    notebook.heard(fetching, until=lambda ran: "asked" in ran.stdout)
    open(gate, "w").close()
    ran, fetched = notebook.heard(main, fetching)
    assert (ran.errors, fetched.errors, fetched.stdout) == ([], [], "[1, 2]\n")
    assert notebook.value("more, type(large).__name__") == ([3], "Kept")
    assert notebook.run("%%remote\nlarge, more").value["text/plain"] == "([1, 2], [3])"
