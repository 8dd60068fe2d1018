"""A notebook's kernel for the tests, with a session of its own that has begun.

A kernel's session with its worker begins in its fixture, so that it is there before a test and after it. A test that
ends the worker, or interrupts what may not heed, takes `fresh_notebook`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browsing import chromium, lab_environ, show_panel
from browsing import opened as opened_page
from kernels import Notebook, opened

from remote_exec.client.connections import connections

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page
    from servers import Server

NEEDED = ("ipykernel", "jupyter_client", "ipywidgets", "matplotlib", "tqdm")
_missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
if _missing and os.environ.get("CI") == "true":
    raise pytest.UsageError(f"notebooks cannot be tested: {', '.join(_missing)} missing")
collect_ignore_glob = ["test_*.py"] if _missing else []


def pytest_report_header() -> list[str]:
    """Say what keeps the notebooks from being tested."""
    return [f"no notebooks are tested: {', '.join(_missing)} missing"] if _missing else []


@pytest.fixture(scope="module")
def clients_loop() -> Iterator[None]:
    """The event loop that clients of kernels run in this thread."""
    from jupyter_core.utils import ensure_event_loop

    loop = ensure_event_loop()
    yield
    loop.close()
    asyncio.set_event_loop(None)


@pytest.fixture(scope="module")
def notebook(clients_loop: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """A module's notebook, its remote session begun."""
    with opened(tmp_path_factory.mktemp("notebook")) as made:
        yield made


@pytest.fixture
def fresh_notebook(clients_loop: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """A notebook of the test's own, its remote session begun."""
    with opened(tmp_path_factory.mktemp("notebook")) as made:
        yield made


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A file that jobs wait for."""
    path = tmp_path / "gate"
    yield path
    path.touch()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The browser."""
    with chromium() as launched:
        yield launched


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """JupyterLab with the sidebar that was built here, and an agent."""
    from servers import served

    connections.session()
    folder = tmp_path_factory.mktemp("lab")
    with served(folder, lab_environ(folder)) as server:
        yield server


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A user of the browser."""
    with browser.new_context(viewport={"width": 1280, "height": 800}) as made:
        made.grant_permissions(["clipboard-read", "clipboard-write"])
        yield made


@pytest.fixture
def page(lab: Server, context: BrowserContext, request: pytest.FixtureRequest) -> Iterator[Page]:
    """JupyterLab in a workspace of the test's own, its panel open. What goes wrong in it fails the test."""
    from servers import TOKEN

    with opened_page(context, lab.url, TOKEN, request.node.name) as made:
        show_panel(made)
        yield made
