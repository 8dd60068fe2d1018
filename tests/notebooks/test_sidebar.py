"""The sidebar in a real JupyterLab in a real browser, beside a real agent with real jobs.

Screenshots go to the folder that the variable SIDEBAR_SCREENSHOTS names, if it does.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import server_work as work
from server_work import start

from remote_exec.client.connections import connections

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page
    from servers import Server

SECONDS = 60.0
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
SOURCES = Path(__file__).parents[2] / "jupyter_ext" / "labextension"
BUILT = SOURCES.with_name("labextension_built")
AXE = SOURCES / "node_modules" / "axe-core" / "axe.min.js"
SCRIPT = "<script>document.title='taken'</script>"
SCREENSHOTS = os.environ.get("SIDEBAR_SCREENSHOTS", "")
THEMES = ("light", "dark")
PARTS = (".jp-RemoteExec-jobs", ".jp-RemoteExec-hosts", ".jp-RemoteExec-page", ".jp-RemoteExec-status")
# whether JupyterLab has written down that a page is open
SAVED = """async name => {
  const { workspaces } = window.jupyterapp.serviceManager;
  const found = await workspaces.fetch(document.location.pathname.split('/').pop());
  return JSON.stringify(found.data['layout-restorer:data']?.main ?? '').includes(name);
}"""

_missing = [name for name in ("jupyterlab", "playwright") if importlib.util.find_spec(name) is None]
_missing += [] if CHROMIUM else ["chromium"]
_missing += [] if (BUILT / "package.json").exists() else ["the sidebar, built"]
pytestmark = pytest.mark.skipif(bool(_missing), reason=f"missing: {', '.join(_missing)}")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """JupyterLab with the sidebar that was built here, and an agent."""
    from servers import served

    connections.session()
    folder = tmp_path_factory.mktemp("lab")
    (folder / "share" / "labextensions").mkdir(parents=True)
    (folder / "share" / "labextensions" / "remote-exec").symlink_to(BUILT)
    news = folder / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text('{"fetchNews": "false"}')
    (folder / "config").mkdir()
    (folder / "config" / "jupyter_lab_config.json").write_text('{"LabApp": {"expose_app_in_browser": true}}')
    variables = {
        "JUPYTER_PATH": str(folder / "share"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
    }
    with served(folder, os.environ | variables) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def page(lab: Server, browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """JupyterLab in a workspace of the test's own, its panel open. What goes wrong in the page fails the test."""
    from servers import TOKEN

    errors: list[str] = []
    name = re.sub(r"\W+", "-", request.node.name).strip("-")
    opened = browser.new_page(viewport={"width": 1280, "height": 800})
    opened.set_default_timeout(1000 * SECONDS)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.goto(f"{lab.url}/lab/workspaces/{name}?token={TOKEN}")
    opened.wait_for_function("window.jupyterapp?.commands.hasCommand('remote-exec:show-panel')")
    opened.evaluate("window.jupyterapp.restored")
    execute(opened, "remote-exec:show-panel")
    opened.locator(".jp-RemoteExec-jobs").wait_for()
    yield opened
    if SCREENSHOTS:
        opened.screenshot(path=Path(SCREENSHOTS, f"{name}.png"))
    opened.context.close()
    opened.close()
    assert errors == []


def execute(page: Page, command: str, **arguments: object) -> None:
    """Have JupyterLab carry out a command."""
    script = "async ([id, args]) => { await window.jupyterapp.commands.execute(id, args); }"
    page.evaluate(script, [command, arguments])


def row(page: Page, name: str | None, state: str) -> Locator:
    """Wait until a job stands in the list with a state, and return its row."""
    found = page.locator(f'.jp-RemoteExec-job[data-job="{name}"][data-state={state}]')
    found.wait_for()
    return found


def press(page: Page, label: str) -> None:
    """Click a button that is seen."""
    page.get_by_role("button", name=label, exact=True).locator("visible=true").first.click()


def tab(page: Page, name: str) -> None:
    """Choose a tab of the job's page that is seen."""
    page.get_by_role("tab", name=name, exact=True).locator("visible=true").click()


def test_job_is_seen_while_it_runs_and_cancelled_in_the_panel(page: Page) -> None:
    job = start(work.wait_for_ever)
    row(page, job.job, "running").click()
    page.locator(".jp-RemoteExec-statusButton", has_text="1").wait_for()
    press(page, "Cancel")
    row(page, job.job, "cancelled")
    page.locator(".jp-RemoteExec-statusButton", has_text="0").wait_for()
    assert page.get_by_role("button", name="Cancel", exact=True).first.is_disabled()


def test_job_is_found_and_opened_with_the_keyboard_and_its_log_streams(page: Page, gate: Path) -> None:
    job = start(work.say_and_wait, "first words", str(gate), name="speaker")
    page.get_by_role("searchbox", name="Search jobs").fill("SPEAKER")
    row(page, job.job, "running")
    page.get_by_role("listbox", name="Jobs").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    log = page.get_by_role("log")
    log.get_by_text("first words").wait_for()
    gate.touch()
    last = log.get_by_text("last words")
    last.wait_for()
    assert last.get_attribute("class") == "jp-RemoteExec-ansi-fg1"
    page.locator(".jp-RemoteExec-header [data-state=succeeded]").wait_for()

    page.get_by_role("searchbox", name="Search the log").fill("LAST")
    page.locator(".jp-RemoteExec-line[data-found]", has_text="last words").wait_for()
    with page.expect_download() as download:
        press(page, "Download the log")
    assert "first words\n" in Path(download.value.path()).read_text()

    deadline = time.monotonic() + SECONDS
    while not page.evaluate(SAVED, "remote-exec-job:local/speaker"):
        assert time.monotonic() < deadline
        page.wait_for_timeout(100)
    page.reload()
    page.get_by_role("log").get_by_text("last words").wait_for()  # the layout is restored, the page with it


def test_page_of_a_failure_has_the_frames_with_their_locals_and_nothing_is_html(page: Page) -> None:
    job = start(work.refuse, SCRIPT)
    row(page, job.job, "failed").dblclick()
    page.get_by_role("log").get_by_text(SCRIPT).wait_for()
    tab(page, "Traceback")
    page.get_by_role("heading", name=f"ValueError: {SCRIPT}").wait_for()
    page.locator(".jp-RemoteExec-facts dd", has_text=SCRIPT).wait_for()
    tab(page, "Timeline")
    page.get_by_role("rowheader", name="run").wait_for()
    assert page.title() != "taken"


def test_job_is_attached_in_the_notebook_whose_default_is_picked_in_its_toolbar(page: Page) -> None:
    job = start(work.divide, 1, 2, name="half")
    execute(page, "notebook:create-new", kernelName="python3")
    picker = page.locator(".jp-NotebookPanel-toolbar").get_by_label("Instance type of remote cells")
    picker.select_option("local")
    row(page, job.job, "succeeded").click()
    press(page, "Attach in the notebook")
    page.locator(".jp-Notebook .cm-content", has_text="%remote result half").wait_for()
    execute(page, "notebook:run-cell")
    page.locator(".jp-OutputArea-output", has_text="0.5").wait_for()  # the picker has loaded the magic
    assert picker.input_value() == "local"
    page.evaluate("window.jupyterapp.serviceManager.sessions.shutdownAll()")


@pytest.mark.parametrize("theme", THEMES)
def test_panel_and_page_are_accessible_in_each_theme(page: Page, gate: Path, theme: str) -> None:
    job = start(work.get_on, 10, str(gate), name=f"steps-{theme}")
    execute(page, "apputils:change-theme", theme=f"JupyterLab {theme.title()}")
    row(page, job.job, "running").dblclick()
    page.get_by_role("progressbar", name="steps 9/10").first.wait_for()
    page.get_by_role("meter", name="Memory").wait_for()
    if not AXE.exists():
        pytest.skip("axe-core is not installed: npm ci in jupyter_ext/labextension")
    page.evaluate(AXE.read_text())
    for part in PARTS:
        found = page.evaluate("part => axe.run(part)", part)["violations"]
        serious = [
            (one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")
        ]
        assert serious == [], part
