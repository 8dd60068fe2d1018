"""The sidebar in a real Jupyter Notebook 7, which has one main widget on a page, in a real browser."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import server_work as work
from browsing import SECONDS, await_lab, execute, lab_environ, missing, press, row
from server_work import start

from remote_exec.client.connections import connections

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Error, Page
    from servers import Server

CELL: dict[str, object] = {
    "cell_type": "code",
    "id": "c1",
    "execution_count": None,
    "metadata": {},
    "outputs": [],
    "source": "",
}
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
NOTEBOOK: dict[str, object] = {
    "cells": [CELL],
    "metadata": {"kernelspec": KERNEL},
    "nbformat": 4,
    "nbformat_minor": 5,
}

_missing = missing() + ([] if importlib.util.find_spec("notebook") else ["notebook"])
pytestmark = pytest.mark.skipif(bool(_missing), reason=f"missing: {', '.join(_missing)}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with Notebook 7 and the sidebar that was built here, and an agent."""
    from servers import served

    connections.session()
    folder = tmp_path_factory.mktemp("notebook7")
    environ = lab_environ(folder, {"remote-exec:notifications": {"leastSeconds": 0}})
    shown = {"JupyterNotebookApp": {"expose_app_in_browser": True}}
    (folder / "config" / "jupyter_notebook_config.json").write_text(json.dumps(shown))
    with served(folder, environ) as made:
        (made.root / "it.ipynb").write_text(json.dumps(NOTEBOOK))
        yield made


@contextmanager
def at(server: Server, browser: Browser, where: str) -> Generator[Page]:
    """Open a page of Notebook's. What goes wrong in it and is ours is an error at the end."""
    from servers import TOKEN

    errors: list[str] = []

    def note(error: Error) -> None:
        if "remote-exec" in (error.stack or ""):
            errors.append(str(error))

    with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        page = context.new_page()
        page.set_default_timeout(1000 * SECONDS)
        page.on("pageerror", note)
        page.goto(f"{server.url}/{where}?token={TOKEN}")
        await_lab(page)
        yield page
    assert errors == []


def test_job_is_seen_opened_attached_and_entered_beside_a_notebook(
    server: Server, browser: Browser, gate: Path
) -> None:
    ended, job = (
        start(work.divide, 1, 2, name="half-here"),
        start(work.say_and_wait, "words", str(gate), name="speaker-here"),
    )
    with at(server, browser, "notebooks/it.ipynb") as page:
        picker = page.locator(".jp-NotebookPanel-toolbar").get_by_label("Instance type of remote cells")
        picker.select_option("local")
        page.get_by_role("menuitem", name="View", exact=True).click()
        page.locator(".lm-Menu-item", has_text="Left Sidebar").hover()
        page.locator(".lm-Menu-item", has_text="Show Remote jobs").click()
        row(page, ended.job, "succeeded").click()
        press(page, "Attach in the notebook")
        page.locator(".jp-Notebook .cm-content", has_text="%remote result half-here").wait_for()

        row(page, job.job, "running").dblclick()
        below = page.locator("#jp-down-stack")
        below.get_by_role("log").get_by_text("words").wait_for()
        row(page, ended.job, "succeeded").dblclick()
        below.get_by_role("heading", name="half-here").wait_for()
        assert not below.get_by_role("heading", name="speaker-here").is_visible()
        row(page, job.job, "running").dblclick()
        with page.context.expect_page() as terminal:
            press(page, "Open a shell where it runs")
        terminal.value.locator(".xterm").wait_for()
        terminal.value.close()
        gate.touch()
        page.locator(".Toastify__toast", has_text="speaker-here succeeded").wait_for()
        page.evaluate("window.jupyterapp.serviceManager.sessions.shutdownAll()")
        page.evaluate("window.jupyterapp.serviceManager.terminals.shutdownAll()")


def test_job_is_seen_and_opened_beside_the_files(server: Server, browser: Browser) -> None:
    job = start(work.divide, 1, 0, name="fraction-here")
    with at(server, browser, "tree") as page:
        execute(page, "remote-exec:show-panel")
        row(page, job.job, "failed").dblclick()
        page.get_by_role("tab", name="fraction-here", exact=True).wait_for()
        page.get_by_role("heading", name="fraction-here").wait_for()
        page.get_by_role("tab", name="Files", exact=True).click()
        page.get_by_text("it.ipynb", exact=True).wait_for()
        row(page, job.job, "failed").dblclick()  # the same page again
        page.get_by_role("heading", name="fraction-here").locator("visible=true").wait_for()
