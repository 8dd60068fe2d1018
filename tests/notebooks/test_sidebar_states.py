"""The sidebar when all is not well, when there is much, and for who uses no mouse; a real JupyterLab and browser."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import server_work as work
from browsing import SAVED, SECONDS, await_lab, execute, lab_environ, missing, opened, row, show_panel
from server_work import start

from jupyter_ext.server.messages import MOST_JOBS
from remote_exec import RemoteExecutor
from remote_exec.client.connections import connections
from remote_exec.model.layout import Layout

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Locator, Page
    from servers import Server

COUNT = 10_000
MANY = MOST_JOBS + 10
MOST_ROWS, MOST_NODES = 60, 1_000
STALE = ".jp-RemoteExec-stale"
NO_ANSWER = "Jupyter's server does not answer."
TYPED = """(input, text) => {
  input.value = text;
  input.dispatchEvent(new Event('input', { bubbles: true }));
}"""
SAVED_SETTING = """async ([plugin, text]) => {
  const { settings } = window.jupyterapp.serviceManager;
  return (await settings.fetch(plugin)).raw.includes(text);
}"""
MOST_STOPS = 40
# the accessible names and roles of the panel, beside a job that runs
READ_OUT = """
- region "Remote jobs":
  - region "side panel content":
    - heading "Jobs Section" [level=3]
    - region "Jobs Section":
      - search "Filter jobs":
        - searchbox "Search jobs"
        - combobox "State"
        - combobox "Group by"
      - toolbar "Selected job":
        - button "Open"
        - button "Cancel"
        - button "Run again"
        - button "Copy its name"
        - button /^Attach in the notebook/
      - listbox "Jobs":
        - option /^waiter, running, .* s, running · wait_for_ever · local/ [selected]
    - heading "Hosts Section" [level=3]
    - region "Hosts Section":
      - region "Host local":
        - heading "This machine connected" [level=3]
        - meter "CPU"
        - meter "Memory"
"""

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"missing: {', '.join(missing())}")


@pytest.fixture
def brief_lab(tmp_path: Path) -> Iterator[Server]:
    """JupyterLab that may be stopped, and an agent."""
    from servers import served

    connections.session()
    with served(tmp_path / "lab", lab_environ(tmp_path / "lab")) as server:
        yield server


@pytest.fixture
def layout(session_home: Path) -> Iterator[Layout]:
    """A state directory of its own, without an agent."""
    home = session_home / "alone"
    yield Layout.of({**os.environ, "REMOTE_EXEC_HOME": str(home)})
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def lonely_lab(layout: Layout, tmp_path: Path) -> Iterator[Server]:
    """JupyterLab where no agent runs."""
    from servers import served

    environ = lab_environ(tmp_path / "lab") | {"REMOTE_EXEC_HOME": str(layout.home)}
    with served(tmp_path / "lab", environ) as server:
        yield server


@pytest.fixture
def page(lab: Server, context: BrowserContext, request: pytest.FixtureRequest) -> Iterator[Page]:
    """JupyterLab in a workspace of the test's own, its panel not open. What goes wrong in it fails the test."""
    from servers import TOKEN

    with opened(context, lab.url, TOKEN, request.node.name) as made:
        yield made


def choose(page: Page, command: str) -> None:
    """Have the palette carry out a command, with the keyboard."""
    palette = page.locator("#modal-command-palette")
    found = palette.locator(".lm-mod-active:not(.lm-mod-disabled)", has_text=command)
    deadline = time.monotonic() + SECONDS
    while not found.is_visible():  # JupyterLab closes it when it gives the keyboard to something else
        assert time.monotonic() < deadline, command
        if not palette.is_visible():
            page.keyboard.press("Control+Shift+C")
        page.wait_for_timeout(100)
        palette.locator("input").evaluate(TYPED, command)
        page.wait_for_timeout(100)
    page.keyboard.press("Enter")
    palette.wait_for(state="hidden")


def toast(page: Page, words: str | re.Pattern[str]) -> Locator:
    """Wait for a notification, and return it."""
    found = page.locator(".Toastify__toast", has_text=words)
    found.wait_for()
    return found


def test_disconnected_panel_keeps_what_it_showed_and_goes_on_by_itself(
    context: BrowserContext, brief_lab: Server, gate: Path
) -> None:
    from servers import TOKEN

    with opened(context, brief_lab.url, TOKEN, "disconnected") as page:
        show_panel(page)
        start(work.say_and_wait, "first words", str(gate), name="survivor")
        row(page, "survivor", "running").dblclick()
        log = page.get_by_role("log")
        log.get_by_text("first words").wait_for()
        count = page.locator(".jp-RemoteExec-statusButton")
        brief_lab.stop()
        for part in ("jobs", "hosts", "page"):
            page.locator(f".jp-RemoteExec-{part} {STALE}", has_text=NO_ANSWER).wait_for()
        assert row(page, "survivor", "running").is_visible()
        assert log.get_by_text("first words").is_visible()
        assert count.get_attribute("title") == NO_ANSWER

        gate.touch()
        start(work.divide, 1, 2, name="meanwhile")
        brief_lab.start()
        row(page, "survivor", "succeeded")
        row(page, "meanwhile", "succeeded")
        log.get_by_text("last words").wait_for()
        page.locator(STALE).locator("visible=true").first.wait_for(state="detached")
        assert log.locator(".jp-RemoteExec-line").all_inner_texts() == [
            "first words",
            "to stderr",
            "last words",
        ]
        count.and_(page.get_by_text("0")).wait_for()


def test_panel_says_what_it_waits_for_that_there_is_nothing_and_that_no_agent_answers(
    context: BrowserContext, lonely_lab: Server, layout: Layout
) -> None:
    from servers import TOKEN

    with opened(context, lonely_lab.url, TOKEN, "lonely") as page:
        lonely_lab.signal(signal.SIGSTOP)
        show_panel(page)
        page.get_by_text("Loading hosts…").wait_for()
        lonely_lab.signal(signal.SIGCONT)
        page.get_by_text("No jobs yet.").wait_for()
        page.get_by_text("No agent runs on this machine.").wait_for()
        page.locator("[data-host=local]", has_text="no agent").wait_for()


def test_ten_thousand_jobs_are_reached_with_the_keyboard_and_few_are_drawn(
    context: BrowserContext, layout: Layout, request: pytest.FixtureRequest
) -> None:
    from servers import TOKEN, keep_jobs

    keep_jobs(layout, [f"call-{number:05}" for number in range(COUNT)])
    server: Server = request.getfixturevalue("lonely_lab")
    with opened(context, server.url, TOKEN, "many") as page:
        show_panel(page)
        page.get_by_text(f"{COUNT} jobs").wait_for()
        row(page, "call-09999", "succeeded")
        jobs = page.get_by_role("listbox", name="Jobs")
        for key, at in (("End", COUNT), ("ArrowUp", COUNT - 1), ("Home", 1), ("ArrowDown", 2)):
            jobs.press(key)
            chosen = jobs.locator(f"[aria-selected=true][data-job=call-{COUNT - at:05}]")
            chosen.and_(page.locator(f"[aria-posinset='{at}'][aria-setsize='{COUNT}']")).wait_for()
            assert jobs.get_attribute("aria-activedescendant") == chosen.get_attribute("id")
            assert jobs.get_by_role("option").count() < MOST_ROWS
        jobs.evaluate("list => { list.scrollTop = list.scrollHeight / 2; }")
        jobs.locator("[data-job=call-05000]").wait_for()
        assert page.locator(".jp-RemoteExec-panel *").count() < MOST_NODES

        page.get_by_role("searchbox", name="Search jobs").fill("train call-0424")
        page.get_by_text(re.compile("^10 jobs$")).wait_for()
        page.get_by_label("State").select_option("failed")
        page.get_by_text(re.compile("^1 job$")).wait_for()
        row(page, "call-04240", "failed").dblclick()
        page.get_by_role("heading", name="call-04240").wait_for()
        page.get_by_role("log").get_by_text("It printed nothing.").wait_for()


def test_end_of_a_long_job_is_told_with_the_way_to_it_and_what_is_long_is_a_setting(
    page: Page, gate: Path
) -> None:
    start(work.divide, 1, 2, name="too-short").result()
    execute(page, "settingeditor:open", query="Remote notifications")
    field = page.locator("input[id$='notifications_leastSeconds']")
    field.fill("0")
    field.press("Tab")
    deadline = time.monotonic() + SECONDS
    while not page.evaluate(SAVED_SETTING, ["remote-exec:notifications", '"leastSeconds": 0']):
        assert time.monotonic() < deadline
        page.wait_for_timeout(100)
    count = page.locator(".jp-RemoteExec-statusButton")
    start(work.wait_and_refuse, "no way", str(gate), name="refused")
    start(work.say_and_wait, "well", str(gate), name="well")
    count.and_(page.get_by_text("2")).wait_for()
    gate.touch()
    toast(page, re.compile("well succeeded after"))
    told = toast(page, re.compile("refused failed after .*\\s*ValueError: no way"))
    told.get_by_role("button", name="Open").click()
    page.locator(".jp-RemoteExec-header h2", has_text="refused").wait_for()
    assert page.locator(".Toastify__toast", has_text="too-short").count() == 0


def test_running_panel_of_jupyterlab_lists_jobs_opens_and_ends_them(page: Page) -> None:
    show_panel(page)
    for name in ("first", "second", "third"):
        start(work.wait_for_ever, name=name)
    page.locator(".jp-RemoteExec-statusButton", has_text="2 + 1").wait_for()
    execute(page, "running:show-panel")
    jobs = page.get_by_role("region", name="Remote jobs Section")
    jobs.get_by_role("treeitem", name=re.compile("^third queued")).wait_for()
    first = jobs.get_by_role("treeitem", name=re.compile("^first running"))
    first.get_by_text("first").click()
    page.get_by_role("heading", name="first").wait_for()
    first.hover()
    first.get_by_title("Cancel").click()
    page.locator(".jp-RemoteExec-header [data-state=cancelled]").wait_for()
    jobs.get_by_role("treeitem", name=re.compile("^third running")).wait_for()
    assert jobs.get_by_role("treeitem").count() == 2
    page.get_by_role("button", name="Cancel All").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel All").click()
    page.locator(".jp-RemoteExec-statusButton", has_text="0").wait_for()
    jobs.get_by_role("treeitem").first.wait_for(state="detached")


def test_running_panel_stands_for_all_jobs_and_ends_them_all(page: Page) -> None:
    with RemoteExecutor(detach=True) as executor:
        jobs = [executor.submit(work.wait_for_ever) for _ in range(MANY)]
    page.locator(".jp-RemoteExec-statusButton", has_text=f"2 + {MANY - 2}").wait_for()
    execute(page, "running:show-panel")
    section = page.get_by_role("region", name="Remote jobs Section")
    section.get_by_role("treeitem", name=f"{MANY - MOST_JOBS} more").wait_for()
    page.get_by_role("button", name="Cancel All").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text(f"Cancel all {MANY} jobs that run or wait").wait_for()
    dialog.get_by_role("button", name="Cancel All").click()
    page.locator(".jp-RemoteExec-statusButton").and_(page.get_by_text("0", exact=True)).wait_for()
    for job in (jobs[0], jobs[-1]):
        with pytest.raises(CancelledError):
            job.result(SECONDS)


def test_commands_of_the_palette_do_what_they_say(page: Page) -> None:
    start(work.divide, 1, 2, name="quotient").result()
    show_panel(page)
    row(page, "quotient", "succeeded").click()
    choose(page, "Copy the Job's Name")
    page.wait_for_function("navigator.clipboard.readText().then(text => text === 'quotient')")
    with page.expect_download() as download:
        choose(page, "Download the Job's Log")
    assert download.value.suggested_filename == "quotient.log"
    choose(page, "Run the Job Again")
    page.locator(".jp-RemoteExec-header h2", has_text=re.compile("^quotient-")).wait_for()
    start(work.wait_for_ever, name="endless")
    row(page, "endless", "running").click()
    choose(page, "Cancel the Job")
    row(page, "endless", "cancelled")


def test_all_is_reached_by_keyboard_read_out_and_there_again_after_a_reload(page: Page) -> None:
    from playwright.sync_api import expect

    start(work.wait_for_ever, name="waiter")
    choose(page, "Show Remote Jobs")
    row(page, "waiter", "running")
    page.wait_for_function("document.activeElement?.getAttribute('aria-label') === 'Search jobs'")
    page.keyboard.press("ArrowDown")  # from the field to the list
    page.keyboard.press("ArrowDown")
    page.locator("[data-job=waiter][aria-selected=true]").wait_for()
    page.keyboard.press("Delete")  # cancels it, once one is sure
    page.get_by_role("dialog").get_by_role("button", name="Keep It").press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")
    expect(page.locator(".jp-RemoteExec-panel")).to_match_aria_snapshot(READ_OUT)
    page.keyboard.press("Enter")
    page.get_by_role("log").get_by_text("I wait").wait_for()
    tab_to(page, ".jp-RemoteExec-tabs [aria-selected=true]")
    page.keyboard.press("End")
    page.get_by_role("tab", name="Details", selected=True).wait_for()
    while not page.evaluate(SAVED, "remote-exec-job:local/waiter"):
        page.wait_for_timeout(100)
    page.reload()
    await_lab(page)
    page.get_by_role("log").get_by_text("I wait").wait_for()
    row(page, "waiter", "running")
    page.locator(".jp-RemoteExec-header h2").click()
    tab_to(page, ".jp-RemoteExec-header button[aria-label=Cancel]")
    page.keyboard.press("Enter")
    row(page, "waiter", "cancelled")


def tab_to(page: Page, selector: str) -> None:
    """Press the tab key until an element has the keyboard."""
    for _ in range(MOST_STOPS):
        if page.evaluate("selector => document.activeElement?.matches(selector)", selector):
            return
        page.keyboard.press("Tab")
    pytest.fail(f"the tab key does not lead to {selector}")
