"""A shell where a job runs, opened in the sidebar of a real JupyterLab in a real browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import server_work as work
from browsing import lab_environ, missing, opened, press, row, show_panel
from server_work import start

from remote_exec.client.connections import connections

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from servers import Server

NO_TERMINALS = "Open a shell: this Jupyter has no terminals"

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"missing: {', '.join(missing())}")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """JupyterLab with the sidebar that was built here; `remote-exec` is not on its PATH."""
    from servers import served

    connections.session()
    folder = tmp_path_factory.mktemp("lab")
    with served(folder, {**lab_environ(folder), "PATH": os.defpath, "SHELL": "/bin/sh"}) as server:
        yield server


def test_shell_is_in_the_jobs_process_and_there_is_none_when_it_has_ended(
    lab: Server, browser: Browser, tmp_path: Path, gate: Path
) -> None:
    from servers import TOKEN, until

    job = start(work.wait_in, str(tmp_path), str(gate), name="inside")
    with browser.new_context() as context, opened(context, lab.url, TOKEN, "shell") as page:
        show_panel(page)
        row(page, job.job, "running").dblclick()
        press(page, "Open a shell where it runs")
        page.locator(".jp-Terminal .xterm-helper-textarea").wait_for(state="attached")
        page.locator(".jp-Terminal").click()
        page.keyboard.type("touch here\n")
        until((tmp_path / "here").exists)
        page.keyboard.type("exit\n")
        until(lambda: not page.evaluate("[...window.jupyterapp.serviceManager.terminals.running()].length"))

        gate.touch()
        row(page, job.job, "succeeded").dblclick()
        page.get_by_role("button", name="Open a shell: it has ended", exact=True).wait_for()
    refused = lab.act("jobs/inside/shell", host="local")
    assert (refused.status, refused.value["message"]) == (
        409,
        "inside does not run: there is no process to enter",
    )


def test_no_shell_is_offered_where_jupyter_has_no_terminals(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory, gate: Path
) -> None:
    from servers import TOKEN, served

    job = start(work.say_and_wait, "words", str(gate), name="not-entered")
    folder = tmp_path_factory.mktemp("lab")
    with served(folder, lab_environ(folder), ["--ServerApp.terminals_enabled=False"]) as lab:
        with browser.new_context() as context, opened(context, lab.url, TOKEN, "no-shell") as page:
            show_panel(page)
            row(page, job.job, "running").dblclick()
            page.get_by_role("button", name=NO_TERMINALS, exact=True).wait_for()
        assert lab.act("jobs/not-entered/shell").status == 409
