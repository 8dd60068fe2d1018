"""A notebook's remote cell in the sidebar of the JupyterLab that the notebook is open in."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from browsing import KERNEL_IS_IDLE, execute, missing, press, tab

if TYPE_CHECKING:
    from playwright.sync_api import Page
    from servers import Server

CELLS = (
    "%load_ext jupyter_ext",
    "%%remote\nimport time\nsteps = 0\nprint('begun', flush=True)\nwhile True:\n    steps += 1\n    time.sleep(0.05)",
    "%%remote --name after\nf'after it: {steps > 0}'",
)
RUN = """async n => {
  const { content } = window.jupyterapp.shell.currentWidget;
  content.activeCellIndex = n;
  void window.jupyterapp.commands.execute('notebook:run-cell');
}"""
REASONS = (
    "Run again: it is a cell: run it again in its notebook",
    "Attach in the notebook: it is a cell, whose names are for its notebook alone",
)

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"missing: {', '.join(missing())}")


def test_cell_is_in_the_list_with_its_code_and_cancelled_from_there(lab: Server, page: Page) -> None:
    cells: list[dict[str, Any]] = [
        {
            "cell_type": "code",
            "id": f"c{n}",
            "metadata": {},
            "source": text,
            "outputs": [],
            "execution_count": None,
        }
        for n, text in enumerate(CELLS)
    ]
    spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    written: dict[str, Any] = {"cells": cells, "metadata": spec, "nbformat": 4, "nbformat_minor": 5}
    (lab.root / "letters.ipynb").write_text(json.dumps(written))
    execute(page, "docmanager:open", path="letters.ipynb")
    outputs = page.locator(".jp-NotebookPanel .jp-OutputArea-output")
    page.locator(".jp-NotebookPanel .jp-Cell").nth(2).wait_for()
    page.wait_for_function(KERNEL_IS_IDLE)
    page.evaluate(RUN, 0)
    page.evaluate(RUN, 1)
    outputs.get_by_text("begun").wait_for()

    page.get_by_label("Group by").select_option("notebook")
    page.locator(".jp-RemoteExec-head", has_text="letters.ipynb (1)").wait_for()
    listed = page.locator(".jp-RemoteExec-job", has_text="letters.ipynb [2]")
    listed.get_by_text("steps = 0").wait_for()
    listed.click()
    for reason in REASONS:
        assert page.get_by_role("button", name=reason, exact=True).first.is_disabled()
    listed.dblclick()
    page.get_by_role("heading", name="letters.ipynb [2]").wait_for()
    page.get_by_role("log").get_by_text("begun").wait_for()
    tab(page, "Code")
    assert page.locator(".jp-RemoteExec-code").inner_text().strip() == CELLS[1]
    tab(page, "Details")
    details = page.locator(".jp-RemoteExec-facts")
    assert details.get_by_role("definition").filter(has_text="[2]").count() == 1
    assert details.inner_text().count("letters.ipynb") == 1
    press(page, "Cancel")
    page.locator(".jp-RemoteExec-header [data-state=cancelled]").wait_for()

    execute(page, "docmanager:open", path="letters.ipynb")
    outputs.get_by_text("cancelled from the list of jobs").wait_for()
    page.evaluate(RUN, 2)
    outputs.get_by_text("after it: True").wait_for()  # the namespace is there
    page.locator(".jp-RemoteExec-job", has_text="after [3]").wait_for()  # quick as it was
    page.evaluate("window.jupyterapp.serviceManager.sessions.shutdownAll()")
