"""A job's metrics as charts that grow, in a real JupyterLab in a real browser."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import server_work as work
from browsing import AXE, SECONDS, execute, missing, row, tab
from server_work import start

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

LINE = ".jp-RemoteExec-chartLine"

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"missing: {', '.join(missing())}")


def chart(page: Page, name: str) -> Locator:
    """Return the chart of a metric."""
    return page.locator(f'.jp-RemoteExec-chart[data-metric="{name}"]')


def corners(found: Locator) -> int:
    """Return how many points a chart's lines lead through."""
    return (found.locator(LINE).get_attribute("d") or "").count("L")


def test_chart_grows_while_the_job_runs_and_has_a_table(page: Page, gate: Path) -> None:
    job = start(work.descend, 40, str(gate), name="descent")
    row(page, job.job, "running").dblclick()
    tab(page, "Metrics")
    loss = chart(page, "loss")
    loss.locator(LINE).wait_for(state="attached")
    before = corners(loss)
    deadline = time.monotonic() + SECONDS
    while corners(loss) <= before:  # in the browser, without anything being clicked
        assert time.monotonic() < deadline
        page.wait_for_timeout(50)
    chart(page, "system/memory_bytes").get_by_text("MB").first.wait_for()
    gate.touch()
    page.locator(".jp-RemoteExec-header [data-state=succeeded]").wait_for()
    page.locator('.jp-RemoteExec-chart[data-metric="loss"][data-count="41"]').wait_for()
    loss.get_by_role("img", name="loss: NaN at the end of 41 points").wait_for()
    loss.get_by_text("1 of 41 values is not finite").wait_for()
    assert corners(loss) == 39

    loss.get_by_text("Table").click()
    last = loss.get_by_role("row", name="NaN")
    last.wait_for()
    assert last.get_by_role("cell").all_inner_texts()[1:] == ["40", "NaN"]
    page.get_by_label("Draw over").select_option("time")
    loss.locator("svg text", has_text=" s").first.wait_for()


def test_without_metrics_the_page_says_how_they_are_logged(page: Page, gate: Path) -> None:
    job = start(work.say_and_wait, "no numbers", str(gate))
    row(page, job.job, "running").dblclick()
    tab(page, "Metrics")
    page.get_by_text("No metrics logged yet.").wait_for()
    page.get_by_text('log_metrics({"loss": loss, "accuracy": accuracy}, step=epoch)').wait_for()
    chart(page, "system/memory_bytes").wait_for()
    gate.touch()
    page.get_by_text("It has logged no metrics.").wait_for()


@pytest.mark.parametrize("theme", ["Light", "Dark", "Dark High Contrast"])
def test_thirty_charts_of_all_kinds_are_drawn_and_accessible(page: Page, gate: Path, theme: str) -> None:
    job = start(work.log_all_kinds, 30)
    execute(page, "apputils:change-theme", theme=f"JupyterLab {theme}")
    row(page, job.job, "succeeded").dblclick()
    tab(page, "Metrics")
    page.locator(".jp-RemoteExec-chart").nth(29).wait_for()
    chart(page, "flood").get_by_role("img", name="flood: ").wait_for()
    assert 100 < corners(chart(page, "flood")) < 500
    chart(page, "single").locator("circle").wait_for()
    if not AXE.exists():
        pytest.skip("axe-core is not installed: npm ci in jupyter_ext/labextension")
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run('.jp-RemoteExec-metrics')")["violations"]
    assert [
        (one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")
    ] == []
