"""What a remote cell prints, displays and asks is in the cell, as if it had run here."""

from __future__ import annotations

import re
from typing import Any

import pytest
from kernels import CellRun, Notebook


def shape(ran: CellRun) -> list[Any]:
    """Return kinds and texts of a cell's outputs, in their order."""
    return [one["text"] if one["output_type"] == "stream" else one["data"] for one in ran.user_outputs]


def test_all_that_is_shown_is_in_its_order(notebook: Notebook) -> None:
    ran = notebook.run(
        "%%remote\nimport sys, logging, subprocess\n"
        "print('a'); print('b', file=sys.stderr); display(1); print('c'); logging.warning('d'); print('e')\n"
        "_ = subprocess.run(['echo', 'f']); display({'text/plain': 'g'}, raw=True); sys.stderr.write('h\\n');"
    )
    plain = [{"text/plain": "1"}, {"text/plain": "g"}]
    assert shape(ran) == ["a\n", "b\n", plain[0], "c\n", "d\n", "e\nf\n", plain[1], "h\n"]


def test_levels_and_format_of_logging_are_the_notebooks(fresh_notebook: Notebook) -> None:
    fresh_notebook.run(
        "import logging, sys\nlogging.basicConfig(format='%(name)s|%(message)s', stream=sys.stdout)\n"
        "logging.getLogger('chatty').setLevel('INFO')"
    )
    ran = fresh_notebook.run(
        "%%remote\nimport logging\nlogging.getLogger('chatty').info('one')\nlogging.getLogger('quiet').info('two')"
    )
    assert ran.stdout == "chatty|one\n"


def test_the_last_value_is_shown_by_this_notebook(notebook: Notebook) -> None:
    notebook.run("class Shown:\n    def _repr_html_(self):\n        return '<b>made there</b>'")
    assert notebook.run("%%remote\nShown()").value["text/html"] == "<b>made there</b>"
    assert notebook.value("type(_) is Shown")
    notebook.run("html = get_ipython().display_formatter.formatters['text/html']")
    notebook.run("html.for_type(Shown, lambda one: '<i>as is set here</i>')")
    assert notebook.run("%%remote\nShown()").value["text/html"] == "<i>as is set here</i>"
    assert not notebook.run("%%remote\nShown();").value
    assert not notebook.run("%%remote\nShown(); # quiet").value
    assert notebook.run("%%remote\n'ends in ;'").value["text/plain"] == "'ends in ;'"


def test_displays_are_updated_and_cleared(notebook: Notebook) -> None:
    ran = notebook.run("%%remote\nhandle = display('first', display_id=True)\nhandle.update('second')")
    assert ran.displays == [{"text/plain": "'second'"}]
    notebook.run("handle.update('from here')")
    notebook.run("%%remote\nhandle.update('from there')")
    assert ran.displays == [{"text/plain": "'from there'"}]
    ran = notebook.run(
        "%%remote\nfrom IPython.display import clear_output, HTML\n"
        "print('gone')\nclear_output(wait=True)\nprint('stays')\nHTML('<hr>')"
    )
    assert (ran.stdout, ran.value["text/html"]) == ("stays\n", "<hr>")


def test_bundles_of_any_kind_come_as_they_are(notebook: Notebook) -> None:
    ran = notebook.run(
        "%%remote\nplot = {'application/vnd.plotly.v1+json': {'data': [{'y': [1, 2]}]}, 'text/html': '<div/>'}\n"
        "display(plot, raw=True, metadata={'isolated': True})\n"
        "class Plot:\n    def _repr_mimebundle_(self, **_):\n        return plot\n"
        "Plot()"
    )
    assert ran.displays == [
        {"application/vnd.plotly.v1+json": {"data": [{"y": [1, 2]}]}, "text/html": "<div/>"}
    ]
    assert ran.user_outputs[0]["metadata"] == {"isolated": True}
    assert ran.value["application/vnd.plotly.v1+json"] == {"data": [{"y": [1, 2]}]}


def test_figures_are_shown_once(notebook: Notebook) -> None:
    ran = notebook.run("%%remote\n%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]);")
    assert ["image/png" in data for data in ran.displays] == [True]
    ran = notebook.run("%%remote\nplt.plot([1, 2]); plt.show()\nprint('after')")
    assert [type(one) for one in shape(ran)] == [dict, str]
    ran = notebook.run("%%remote\nfigure, axes = plt.subplots()\naxes.plot([1, 2])\nplt.close()\nfigure")
    assert not ran.displays
    assert "image/png" in ran.value
    assert "image/png" in notebook.run("figure").value
    assert not notebook.run("plt.get_fignums()").displays


def test_figures_are_below_the_value_and_known_here(fresh_notebook: Notebook) -> None:
    ran = fresh_notebook.run("%%remote\nimport matplotlib.pyplot as plt\nplt.plot([1, 2])")
    assert [one["output_type"] for one in ran.user_outputs] == ["execute_result", "display_data"]
    assert "image/png" in ran.displays[0]
    ran = fresh_notebook.run("%%capture told\n%%remote\nplt.plot([1, 2])")
    assert not ran.user_outputs
    assert fresh_notebook.value("[sorted(one.data) for one in told.outputs]") == [
        ["text/plain"],
        ["image/png", "text/plain"],
    ]
    fresh_notebook.run("%%remote\nfigure, axes = plt.subplots()\nplt.close()")
    assert "image/png" in fresh_notebook.run("figure").value


def test_settings_of_this_notebook_hold_there(fresh_notebook: Notebook) -> None:
    notebook = fresh_notebook
    notebook.run(
        "import numpy as np, pandas as pd\nnp.set_printoptions(precision=2)\npd.set_option('display.max_rows', 2)\n"
        "%config InlineBackend.figure_formats = ['svg']"
    )
    ran = notebook.run(
        "%%remote\nprint(np.array([1.2345]))\nprint(pd.DataFrame({'a': range(9)}).to_string())"
    )
    assert "1.23]" in ran.stdout
    ran = notebook.run(
        "%%remote\nprint(pd.DataFrame({'a': range(9)}))\ndisplay(pd.DataFrame({'a': range(9)}))"
    )
    assert "[9 rows x 1 columns]" in ran.stdout
    assert "<p>9 rows" in ran.displays[0]["text/html"]
    ran = notebook.run("%%remote\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]);")
    assert [sorted(data) for data in ran.displays] == [["image/svg+xml", "text/plain"]]
    notebook.run("np.set_printoptions(precision=8)\npd.reset_option('display.max_rows')")
    ran = notebook.run(
        "%%remote\nprint(np.array([1.2345]))\nprint(len(str(pd.DataFrame({'a': range(9)}))) > 40)"
    )
    assert ran.stdout == "[1.2345]\nTrue\n"
    notebook.run("%config InteractiveShell.ast_node_interactivity = 'all'")
    assert shape(notebook.run("%%remote\n1\nprint(2)\n3")) == [
        {"text/plain": "1"},
        "2\n",
        {"text/plain": "3"},
    ]
    notebook.run("%config InteractiveShell.ast_node_interactivity = 'none'")
    assert not notebook.run("%%remote\n1").value


def test_filters_of_warnings_hold_there(fresh_notebook: Notebook) -> None:
    warn = "%%remote\nimport warnings\nwarnings.warn('said')\nwarnings.warn('quiet')"
    fresh_notebook.run("import warnings\nwarnings.filterwarnings('ignore', message='qui.t')")
    ran = fresh_notebook.run(warn)
    assert "UserWarning: said" in ran.stderr
    assert "UserWarning: quiet" not in ran.stderr
    fresh_notebook.run("warnings.simplefilter('ignore')")
    assert not fresh_notebook.run(warn).stderr
    fresh_notebook.run("warnings.resetwarnings()")
    assert "UserWarning: quiet" in fresh_notebook.run(warn).stderr


def test_bars_are_told_now_and_then_and_at_their_end(notebook: Notebook) -> None:
    ran = notebook.run(
        "%%remote\nimport sys\nfrom tqdm import tqdm\n"
        "for step in tqdm(range(3000), mininterval=0, miniters=1):\n    pass\n"
        "for step in range(3000):\n    print(f'\\rstep {step}', end='', flush=True)\nprint()\nprint('end')"
    )
    assert "3000/3000" in ran.stderr
    assert ran.stderr.count("\r") < 100
    assert re.search(r"\rstep 2999\s*\nend\n$", ran.stdout)
    assert ran.stdout.count("\r") < 100


def test_questions_are_asked_here(notebook: Notebook) -> None:
    ran = notebook.run(
        "%%remote\nimport getpass\nprint('hello')\nname = input('who? ')\nword = getpass.getpass('word? ')\n"
        "name, word",
        answers=("bob", "xyzzy"),
    )
    asked = [one["content"] for one in ran.messages if one["header"]["msg_type"] == "input_request"]
    assert asked == [{"prompt": "who? ", "password": False}, {"prompt": "word? ", "password": True}]
    assert ran.value["text/plain"] == "('bob', 'xyzzy')"
    ran = notebook.run("%%remote\nname = input('who? ')", answers=(notebook.interrupt,), fails=True)
    assert ran.ename == "KeyboardInterrupt"
    assert "Cell In[" in ran.traceback
    assert ran.traceback.count("-->") == 1
    assert notebook.run("%%remote\nname").value["text/plain"] == "'bob'"


@pytest.mark.parametrize("line", ["%time total = sum(values)", "%%time\ntotal = sum(values)"])
def test_other_magics_run_there(notebook: Notebook, line: str) -> None:
    notebook.run("import os\nvalues = [1, 2]\nhome = os.getpid()")
    ran = notebook.run(f"%%remote\n{line}")
    assert "Wall time" in ran.stdout
    assert notebook.value("total") == 3


def test_shell_commands_run_there(notebook: Notebook) -> None:
    notebook.run("word = 'hi'")
    assert notebook.run("%%remote\n!echo {word} $word").stdout.split() == ["hi", "hi"]
    assert notebook.run("%%remote\n%%bash\necho from bash").stdout == "from bash\n"
    assert notebook.run("%%remote\nimport asyncio\nawait asyncio.sleep(0, 'awaited')").value == {
        "text/plain": "'awaited'"
    }
