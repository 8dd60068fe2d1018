"""A kernel of another environment than Jupyter's: it has remote_exec and ipykernel, Jupyter's has the sidebar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browsing import execute, lab_environ, missing, opened, row, show_panel
from installed import environment, wheel

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WHERE = "import sys\nprint('runs in', sys.prefix)"
IS_IDLE = "window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === 'idle'"
SET = "text => window.jupyterapp.shell.currentWidget.content.activeCell.model.sharedModel.setSource(text)"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),  # the wheel may have to be built, with the sidebar
    pytest.mark.skipif(bool(missing()), reason=f"missing: {', '.join(missing())}"),
]


def test_kernel_of_another_environment_is_told_its_instance_type_and_its_jobs_are_listed(
    browser: Browser, tmp_path: Path
) -> None:
    from servers import TOKEN, served

    place = tmp_path / "environment"
    python = environment(place, [str(wheel(tmp_path)), "ipykernel"])
    environ = lab_environ(tmp_path / "lab")
    kernel = {
        "argv": [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "language": "python",
    }
    (tmp_path / "lab" / "share" / "kernels" / "other").mkdir(parents=True)
    spec = tmp_path / "lab" / "share" / "kernels" / "other" / "kernel.json"
    spec.write_text(json.dumps({**kernel, "display_name": "Another environment"}))
    with (
        served(tmp_path / "lab", environ) as lab,
        browser.new_context(viewport={"width": 1280, "height": 800}) as context,
        opened(context, lab.url, TOKEN, "another environment") as page,
    ):
        show_panel(page)
        execute(page, "notebook:create-new", kernelName="other")
        picker = page.locator(".jp-NotebookPanel-toolbar").get_by_label("Instance type of remote cells")
        picker.select_option("local")
        run(page, f"%%remote\n{WHERE}")
        page.locator(".jp-OutputArea-output", has_text=f"runs in {place}").wait_for()
        run(page, f"%%remote --detach --name elsewhere\n{WHERE}")
        row(page, "elsewhere", "succeeded").dblclick()
        page.get_by_role("log").get_by_text(f"runs in {place}").wait_for()
        page.evaluate("window.jupyterapp.serviceManager.sessions.shutdownAll()")


def run(page: Page, text: str) -> None:
    """Run a cell."""
    page.wait_for_function(IS_IDLE)
    page.evaluate(SET, text)
    execute(page, "notebook:run-cell-and-select-next")
