"""JupyterLab with the sidebar that was built here, in a real browser.

Screenshots go to the folder that the variable SIDEBAR_SCREENSHOTS names, if it does.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Locator, Page

SECONDS = 60.0
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
SOURCES = Path(__file__).parents[2] / "jupyter_ext" / "labextension"
BUILT = SOURCES.with_name("labextension_built")
AXE = SOURCES / "node_modules" / "axe-core" / "axe.min.js"
# whether JupyterLab has written down that a page is open
SAVED = """async name => {
  const { workspaces } = window.jupyterapp.serviceManager;
  const found = await workspaces.fetch(document.location.pathname.split('/').pop());
  return JSON.stringify(found.data['layout-restorer:data']?.main ?? '').includes(name);
}"""
KERNEL_IS_IDLE = "window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === 'idle'"
SCREENSHOTS = os.environ.get("SIDEBAR_SCREENSHOTS", "")


def missing() -> list[str]:
    """Return what is missing here for that."""
    found = [name for name in ("jupyterlab", "playwright") if importlib.util.find_spec(name) is None]
    found += [] if CHROMIUM else ["chromium"]
    return found + ([] if (BUILT / "package.json").exists() else ["the sidebar, built"])


def lab_environ(folder: Path, settings: Mapping[str, object] | None = None) -> dict[str, str]:
    """Make ready a folder for a server with JupyterLab, and return the environment variables that this takes.

    Args:
        folder: the server's.
        settings: the user's, by plugin.
    """
    (folder / "share" / "labextensions").mkdir(parents=True)
    (folder / "share" / "labextensions" / "remote-exec").symlink_to(BUILT)
    given = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}, **(settings or {})}
    for plugin, values in given.items():
        package, name = plugin.split(":")
        (folder / "settings" / package).mkdir(parents=True, exist_ok=True)
        (folder / "settings" / package / f"{name}.jupyterlab-settings").write_text(json.dumps(values))
    (folder / "config").mkdir()
    (folder / "config" / "jupyter_lab_config.json").write_text('{"LabApp": {"expose_app_in_browser": true}}')
    return {
        **os.environ,
        "JUPYTER_PATH": str(folder / "share"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
    }


@contextlib.contextmanager
def chromium() -> Generator[Browser]:
    """Run the browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@contextlib.contextmanager
def opened(context: BrowserContext, url: str, token: str, name: str) -> Generator[Page]:
    """Open JupyterLab in a workspace of its own; what goes wrong in the page is an error at the end."""
    errors: list[str] = []
    workspace = re.sub(r"\W+", "-", name).strip("-")
    page = context.new_page()
    page.set_default_timeout(1000 * SECONDS)
    page.on("pageerror", lambda error: errors.append(str(error)))
    try:
        page.goto(f"{url}/lab/workspaces/{workspace}?token={token}")
        await_lab(page)
        page.locator(".jp-Launcher").wait_for()  # it comes last, and takes the keyboard
        yield page
        assert errors == []
    finally:
        if SCREENSHOTS:
            page.screenshot(path=Path(SCREENSHOTS, f"{workspace}.png"))
        page.close()


def await_lab(page: Page) -> None:
    """Wait until JupyterLab has started in a page."""
    page.wait_for_function("window.jupyterapp?.commands.hasCommand('remote-exec:show-panel')")
    page.evaluate("window.jupyterapp.restored")


def execute(page: Page, command: str, **arguments: object) -> None:
    """Have JupyterLab carry out a command."""
    script = "async ([id, args]) => { await window.jupyterapp.commands.execute(id, args); }"
    page.evaluate(script, [command, arguments])


def show_panel(page: Page) -> None:
    """Open the panel, and wait until it is drawn."""
    execute(page, "remote-exec:show-panel")
    page.locator(".jp-RemoteExec-jobs").wait_for()


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
