"""The sidebar in a real JupyterLab in a real browser, beside a real agent with real jobs."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import server_work as work
from browsing import (
    AXE,
    KERNEL_IS_IDLE,
    SAVED,
    SECONDS,
    execute,
    missing,
    press,
    row,
    tab,
)
from server_work import start

from remote_exec import RemoteExecutor

if TYPE_CHECKING:
    from playwright.sync_api import Page
    from servers import Server

SCRIPT = "<script>document.title='taken'</script>"
THEMES = ("Light", "Dark", "Dark High Contrast")
MOST_STOPS = 40
TABS = ("Log", "Metrics", "Timeline", "Traceback", "Code", "Details")
PARTS = (".jp-RemoteExec-jobs", ".jp-RemoteExec-hosts", ".jp-RemoteExec-page", ".jp-RemoteExec-status")

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"missing: {', '.join(missing())}")


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
    page.locator(".jp-RemoteExec-match", has_text="last").wait_for()
    with page.expect_download() as download:
        press(page, "Download the log")
    assert "first words\n" in Path(download.value.path()).read_text()

    deadline = time.monotonic() + SECONDS
    while not page.evaluate(SAVED, "remote-exec-job:local/speaker"):
        assert time.monotonic() < deadline
        page.wait_for_timeout(100)
    page.reload()
    page.get_by_role("log").get_by_text("last words").wait_for()  # the layout is restored, the page with it


def test_what_a_job_costs_grows_while_it_runs_and_is_what_its_future_says(
    page: Page, gate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "remote_exec" / "config.toml"
    file.parent.mkdir()
    file.write_text("[instances.dear]\nbackend = 'local'\ncost_per_hour = 3600\ncurrency = 'EUR'\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with RemoteExecutor(detach=True, name="priced", instance_type="dear") as executor:
        job = executor.submit(work.say_and_wait, "hello", str(gate))
    amount = re.compile(r"[1-9][\d.]* EUR")
    first = row(page, job.job, "running").get_by_text(amount).inner_text()
    row(page, job.job, "running").filter(has_not_text=first).get_by_text(amount).dblclick()
    page.locator(".jp-RemoteExec-header [data-state=running]").wait_for()
    page.locator(".jp-RemoteExec-header").get_by_text(amount).wait_for()
    page.locator("[data-worker=InUse]", has_text="3,600.00 EUR an hour").wait_for()
    gate.touch()
    job.result(SECONDS)
    row(page, job.job, "succeeded").get_by_text(str(job.cost)).wait_for()
    page.locator(".jp-RemoteExec-header").get_by_text(str(job.cost)).wait_for()


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
    page.wait_for_function(KERNEL_IS_IDLE)
    page.locator(".jp-NotebookPanel .jp-Cell.jp-mod-active:focus-within").wait_for()
    page.keyboard.press("Control+Enter")  # the new cell has the keyboard
    page.locator(".jp-OutputArea-output", has_text="0.5").wait_for()  # the picker has loaded the magic
    assert picker.input_value() == "local"
    page.evaluate("window.jupyterapp.serviceManager.sessions.shutdownAll()")


def test_error_in_the_configuration_is_told_beside_the_picker_until_it_is_corrected(
    lab: Server, page: Page
) -> None:
    file = lab.root / "pyproject.toml"
    file.write_text('[tool.remote_exec]\ninstance_typ = "gpu"\n')
    words = re.compile(r"there is no option 'instance_typ'; did you mean 'instance_type'\?.*pyproject\.toml")
    try:
        execute(page, "notebook:create-new", kernelName="python3")
        page.locator(".jp-RemoteExec-panel").get_by_role("alert").get_by_text(words).wait_for()
        toolbar = page.locator(".jp-NotebookPanel-toolbar")
        picker = toolbar.get_by_label("Instance type of remote cells")
        button = toolbar.get_by_role("button", name="Error in the configuration")
        button.wait_for()
        described = picker.get_attribute("aria-describedby")
        assert words.search(page.locator(f"[id='{described}']").inner_text())
        page.wait_for_function(KERNEL_IS_IDLE)  # a notebook that opens takes the keyboard
        picker.focus()
        # the arrow keys lead through a toolbar of Jupyter's, the tab key to what has come later
        for key in ("Tab", *["ArrowRight"] * MOST_STOPS):
            page.keyboard.press(key)
            if button.evaluate("button => button === document.activeElement"):
                break
            picker.focus() if key == "Tab" else None
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog")
        dialog.get_by_text(words).wait_for()
        dialog.get_by_text("Until that file is corrected and saved").wait_for()
        page.keyboard.press("Escape")
        file.write_text('[tool.remote_exec.instances.large]\nbackend = "local"\n')
        button.wait_for(state="detached")
        picker.select_option("large")
    finally:
        file.unlink()
        page.evaluate("window.jupyterapp.serviceManager.sessions.shutdownAll()")


@pytest.mark.parametrize("theme", THEMES)
def test_panel_and_page_are_accessible_in_each_theme(page: Page, gate: Path, theme: str) -> None:
    failed, job = start(work.speak_in_colours), start(work.get_on, 10, str(gate))
    execute(page, "apputils:change-theme", theme=f"JupyterLab {theme}")
    row(page, job.job, "running").dblclick()
    page.get_by_role("progressbar", name="steps 9/10").first.wait_for()
    page.get_by_role("meter", name="Memory").wait_for()
    if not AXE.exists():
        pytest.skip("axe-core is not installed: npm ci in jupyter_ext/labextension")
    page.evaluate(AXE.read_text())
    for part in PARTS:
        assert serious_violations(page, part) == [], part
    row(page, failed.job, "failed").dblclick()
    page.locator(".jp-RemoteExec-header h2", has_text=failed.job).wait_for()
    page.get_by_role("log").get_by_text("colour 15").locator("visible=true").wait_for()
    for name in TABS:
        tab(page, name)
        assert serious_violations(page, ".jp-RemoteExec-page") == [], name


def serious_violations(page: Page, part: str) -> list[tuple[str, str]]:
    """Return what axe finds in the parts of the page that are seen."""
    found = page.evaluate("part => axe.run(part)", part)["violations"]
    return [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
