"""All of it, as somebody meets it: the wheel in a fresh environment, JupyterLab, a notebook and the sidebar.

Screenshots go to the folder that the variable TESTS_SCREENSHOTS names, else to `.ci/artifacts`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from browsing import SECONDS, missing, press, row, tab
from installed import ROOT, environment, home, wheel
from person import Person

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SCREENSHOTS = Path(os.environ.get("TESTS_SCREENSHOTS") or ROOT / ".ci" / "artifacts")
STOP_SECONDS = 60.0

NOTEBOOK = {
    "metadata": {
        "kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    },
    "nbformat": 4,
    "nbformat_minor": 5,
    "cells": [],
}
# a module beside the notebook; its 24th epoch of 30 waits for a file, so that there is time to look
MODULE = '''
import time
from pathlib import Path

import numpy as np

epochs = 0


def shuffled(x, y):
    """One epoch's examples, in an order of its own."""
    global epochs
    epochs += 1
    while epochs % 30 == 24 and not Path("go").exists():
        time.sleep(0.05)
    order = np.random.default_rng(epochs).permutation(len(x))
    return x[order], y[order]
'''
DATA = """
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from remote_exec import log_metrics, progress
from data import shuffled

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
scores = []
"""
TRAIN = """
%%remote
import matplotlib.pyplot as plt
from sklearn.neural_network import MLPClassifier

model = MLPClassifier(64, random_state=0)
for epoch in progress(range(30), desc="epochs"):
    model.partial_fit(*shuffled(X_train, y_train), classes=range(10))
    scores.append(model.score(X_test, y_test))
print(f"accuracy {scores[-1]:.3f}")

plt.figure(figsize=(6, 2.2))
plt.plot(scores)
plt.xlabel("epoch");
"""
FAIL = """
%%remote
def mean(values):
    return sum(values) / len(values)

mean(scores), mean([])
"""
DETACHED = """
%%remote --detach --name fit
model = MLPClassifier(128, random_state=0)
for epoch in progress(range(30), desc="epochs"):
    model.partial_fit(*shuffled(X_train, y_train), classes=range(10))
    accuracy = model.score(X_test, y_test)
    log_metrics({"loss": model.loss_, "accuracy": accuracy}, step=epoch)
    print(f"epoch {epoch}: accuracy {accuracy:.3f}")
accuracy
"""
ENDLESS = """
%%remote --detach --name search
import time
while True:
    time.sleep(1)
"""

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"missing: {', '.join(missing())}")


class Desk(NamedTuple):
    """A browser with JupyterLab in it, and the folder of the notebooks."""

    page: Page
    person: Person
    folder: Path


@pytest.fixture
def desk(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Desk]:
    """What somebody has who has installed the wheel and started JupyterLab; what was seen at a failure is kept."""
    from servers import TOKEN, Server

    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="lab-") as name:
        folder = Path(name)
        found = f"{wheel(folder / 'wheel')}[jupyter]"
        python = environment(folder / "venv", [found, "scikit-learn", "matplotlib"])
        variables = home(folder, python)
        # else JupyterLab asks whether it may fetch its news
        settings = (
            folder / "home" / ".jupyter" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
        )
        settings.mkdir(parents=True)
        (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')
        (folder / "root").mkdir()
        (folder / "root" / "digits.ipynb").write_text(json.dumps(NOTEBOOK))
        (folder / "root" / "data.py").write_text(MODULE.lstrip())
        server = Server(folder, variables, (), command=(str(python), "-m", "jupyterlab"))
        errors: list[str] = []
        try:
            server.start()
            with browser.new_context(viewport={"width": 1280, "height": 930}) as context:
                page = context.new_page()
                page.set_default_timeout(1000 * SECONDS)
                page.on("pageerror", lambda error: errors.append(str(error)))
                page.goto(f"{server.url}/lab?token={TOKEN}")
                failed = request.session.testsfailed
                yield Desk(page, Person(page, SCREENSHOTS), server.root)
                if request.session.testsfailed > failed:
                    page.screenshot(path=SCREENSHOTS / "failed.png")
        finally:
            server.stop()
            shutil.copy(folder / "log", SCREENSHOTS / "jupyterlab.log")
            stop = [str(python.with_name("remote-exec")), "hosts", "stop"]
            subprocess.run(stop, env=variables, check=True, capture_output=True, timeout=STOP_SECONDS)
        assert errors == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_somebody_trains_looks_on_fails_cancels_restarts_and_reattaches(desk: Desk) -> None:
    page, person, folder = desk
    go = folder / "go"
    person.open("digits.ipynb")
    person.close("Launcher")
    person.open_sidebar()
    person.run("%load_ext jupyter_ext")
    person.run(DATA.strip())

    training = person.begin(TRAIN.strip())
    training.get_by_text("23/30").wait_for()
    page.locator(".jp-RemoteExec-job[data-state=running]", has_text="epochs 23/30").wait_for()
    page.get_by_role("meter", name="Memory").wait_for()
    person.show("training")
    go.touch()
    person.await_end(training)
    training.get_by_text("accuracy 0.9").wait_for()
    training.locator(".jp-RenderedImage img").wait_for()
    page.locator(".jp-RemoteExec-statusButton", has_text="0").wait_for()
    person.show("plot")
    go.unlink()
    here = person.run("len(scores), model.score(X_test, y_test) == scores[-1]")
    here.get_by_text("(30, True)").wait_for()

    failing = person.run(FAIL.strip())
    traceback = failing.locator(
        ".jp-RenderedText", has_text="ZeroDivisionError: division by zero"
    ).inner_text()
    assert "return sum(values) / len(values)" in traceback
    assert "site-packages" not in traceback
    person.show("exception")
    page.locator(".jp-RemoteExec-job[data-state=failed]", has_text="ZeroDivisionError").dblclick()
    tab(page, "Traceback")
    page.get_by_role("heading", name="ZeroDivisionError: division by zero").wait_for()
    page.locator(".jp-RemoteExec-facts", has_text="values").get_by_text("[]").wait_for()
    person.show("traceback")
    person.close("digits.ipynb [5]")

    fit = person.run(DETACHED.strip())
    search = person.run(ENDLESS.strip())
    row(page, "search", "running").click()
    row(page, "fit", "running").get_by_text("epochs 23/30").wait_for()
    press(page, "Cancel")
    row(page, "search", "cancelled")
    search.get_by_text("cancelled").wait_for()
    fit.get_by_text("23/30").wait_for()
    person.show("cancelled")

    row(page, "fit", "running").dblclick()
    page.get_by_role("log").get_by_text("epoch 22: accuracy 0.").wait_for()
    page.locator(".jp-RemoteExec-header").get_by_role("progressbar", name="epochs 23/30").wait_for()
    person.show("log")
    tab(page, "Metrics")
    page.locator(".jp-RemoteExec-chart", has_text="accuracy").wait_for()
    page.locator(".jp-RemoteExec-chart", has_text="loss").wait_for()
    person.show("metrics")

    person.go_to("digits.ipynb")
    person.restart_kernel()
    person.run("%load_ext jupyter_ext")
    again = person.run("fit = %remote attach fit\nfit")
    again.get_by_text("23/30").wait_for()
    go.touch()
    again.get_by_text("succeeded").wait_for()
    row(page, "fit", "succeeded")
    person.run("fit.result()").get_by_text("0.9").wait_for()
    person.run("fit.apply(), model.hidden_layer_sizes").get_by_text(
        "(('accuracy', 'epoch', 'model'), 128)"
    ).wait_for()
    person.show("attached")
    person.go_to("fit")
    page.locator(".jp-RemoteExec-header [data-state=succeeded]").wait_for()
    tab(page, "Timeline")
    page.get_by_role("rowheader", name="run").wait_for()
    person.show("timeline")
