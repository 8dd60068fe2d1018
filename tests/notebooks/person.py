"""Somebody in front of JupyterLab: has a mouse, a keyboard, and eyes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

CELL = ".jp-Notebook-cell"
THEMES = ("JupyterLab Light", "JupyterLab Dark")
HAS_ENDED = "prompt => /\\[\\d+\\]/.test(prompt.textContent)"


class Person:
    """See the module's docstring.

    Args:
        page: JupyterLab.
        screenshots: a folder for them.
    """

    def __init__(self, page: Page, screenshots: Path) -> None:
        self._page = page
        self._screenshots = screenshots
        self._taken = 0
        self._cells = 0

    def open(self, notebook: str) -> None:
        """Open a notebook from the file browser, and wait for its kernel."""
        self._page.locator(".jp-DirListing-item", has_text=notebook).dblclick()
        self.await_kernel()

    def await_kernel(self) -> None:
        """Wait until the status bar says that the kernel is idle."""
        self._page.get_by_text(re.compile(r"\| Idle")).wait_for()

    def open_sidebar(self) -> None:
        """Click the sidebar's tab."""
        self._page.get_by_role("tab", name="Remote jobs").click()
        self._page.get_by_text("No jobs yet.").wait_for()

    def begin(self, source: str) -> Locator:
        """Type a cell below the others and run it; return where it is."""
        self._page.locator(f"{CELL}.jp-mod-active .cm-content").click()
        self._page.keyboard.insert_text(source)
        self._page.keyboard.press("Shift+Enter")
        cell = self._page.locator(CELL).nth(self._cells)
        self._cells += 1
        return cell

    def await_end(self, cell: Locator) -> None:
        """Wait until a cell has run."""
        prompt = cell.locator(".jp-InputPrompt").element_handle()
        self._page.wait_for_function(HAS_ENDED, arg=prompt)

    def run(self, source: str) -> Locator:
        """Run a cell to its end."""
        cell = self.begin(source)
        self.await_end(cell)
        return cell

    def menu(self, *labels: str) -> None:
        """Choose something from a menu, through its submenus."""
        self._page.get_by_role("menubar").get_by_role("menuitem", name=labels[0], exact=True).click()
        for label in labels[1:]:
            entry = self._page.locator(".lm-Menu-itemLabel").get_by_text(label, exact=True)
            entry.locator("visible=true").click()

    def restart_kernel(self) -> None:
        """Restart it by the menu, and wait until it is back."""
        self.menu("Kernel", "Restart Kernel…")
        with self._page.expect_response("**/api/kernels/*/restart*"):
            self._page.get_by_role("button", name="Confirm Kernel Restart").click()
        self.await_kernel()

    def go_to(self, tab: str) -> None:
        """Click a tab of the main area."""
        self._page.locator("#jp-main-dock-panel").get_by_role("tab", name=tab, exact=True).click()

    def close(self, tab: str) -> None:
        """Close a tab of the main area."""
        found = self._page.locator("#jp-main-dock-panel").get_by_role("tab", name=tab, exact=True)
        found.locator(".lm-TabBar-tabCloseIcon").click()
        found.wait_for(state="detached")

    def show(self, name: str) -> None:
        """Keep what there is to see, in the light theme and in the dark."""
        self._taken += 1
        for theme in reversed(THEMES):
            self.menu("Settings", "Theme", theme)
            self._page.locator(f"body[data-jp-theme-name='{theme}']").wait_for(state="attached")
            self._page.locator("#jupyterlab-splash").wait_for(state="detached")
            self._page.mouse.move(0, 0)
            last = self._page.locator(f"{CELL}.jp-mod-active")
            if last.is_visible():
                last.evaluate("cell => cell.scrollIntoView({ block: 'nearest' })")
            path = self._screenshots / f"{self._taken}-{name}-{theme.split()[1].lower()}.png"
            self._page.screenshot(path=path, animations="disabled")
