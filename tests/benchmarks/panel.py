"""The sidebar in a real browser: its first paint beside JupyterLab's Running panel, a burst of jobs, ten thousand.

One page, headless Chromium without a graphics card, beside the Jupyter server and the agent. Times are the page's own
clock: from a panel's activation to the end of the frame in which its content is first drawn.
"""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from remote_exec import RemoteExecutor

from .harness import Bench, Sample, seconds

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from ..notebooks.servers import Server

NEEDED = ("jupyterlab", "playwright")
COUNT = 10_000
BURST = 1_000
LONGEST_TASK_SECONDS = 0.1
USABLE_SECONDS = 1.0
CATEGORIES = ("disabled-by-default-devtools.timeline",)

# Says when what was asked for is there and painted: a frame's callbacks run before it is painted, a message that is
# sent from them arrives afterwards.
WHEN_PAINTED = """const painted = new Promise((resolve, reject) => {
    const begun = performance.now();
    const look = () => {
      if ([...document.querySelectorAll(selector)].some(one => one.checkVisibility())) {
        const channel = new MessageChannel();
        channel.port1.onmessage = () => resolve((performance.now() - begun) / 1000);
        channel.port2.postMessage(null);
      } else if (performance.now() - begun > 30000) {
        reject(new Error(`${selector} was not drawn`));
      } else {
        requestAnimationFrame(look);
      }
    };
    requestAnimationFrame(look);
  });"""
# activates a panel by its command
PAINTED = f"""([command, selector]) => {{
  {WHEN_PAINTED}
  void window.jupyterapp.commands.execute(command);
  return painted;
}}"""
# Scrolls through all of a list, and returns how long each frame took.
SCROLLED = """([selector, frames]) => new Promise(resolve => {
  const list = document.querySelector(selector);
  const step = list.scrollHeight / frames;
  const times = [];
  let before = performance.now();
  const next = () => {
    const now = performance.now();
    times.push((now - before) / 1000);
    before = now;
    if (times.length > frames) {
      resolve(times.slice(1));
    } else {
      list.scrollTop = times.length * step;
      requestAnimationFrame(next);
    }
  };
  requestAnimationFrame(next);
})"""
# Presses the End key in the list, and says when a job is painted.
KEY_PAINTED = f"""selector => {{
  {WHEN_PAINTED}
  const press = new KeyboardEvent('keydown', {{ key: 'End', bubbles: true, cancelable: true }});
  document.activeElement.dispatchEvent(press);
  return painted;
}}"""
# whether that many jobs are in the list
LISTED = "count => parseInt(document.querySelector('.jp-RemoteExec-actions > span').textContent) > count"
OURS = ("remote-exec:show-panel", ".jp-RemoteExec-job[data-job]")
THEIRS = ("running:show-panel", ".jp-RunningSessions-item")
FIRST_JOB = f".jp-RemoteExec-job[data-job=call-{COUNT - 1:05}]"
LAST_JOB = ".jp-RemoteExec-job[data-job=call-00000][aria-selected=true]"
LIST = ".jp-RemoteExec-list"
FRAMES = 100
SETTLE_MILLISECONDS = 1000  # a page that has just started is still busy
IDLE_MILLISECONDS = 3000
STOP_SECONDS = 60.0


def panel(bench: Bench) -> None:
    """The panel's first paint, a burst of 1,000 jobs, and 10,000 in the list."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        bench.missing.update(missing)
        return
    from ..notebooks import browsing

    if lacking := browsing.missing():
        bench.missing.update(lacking)
        return
    with browsing.chromium() as browser:
        with _lab(bench, "few") as server:
            _jobs(10)
            _first_paint(bench, browser, server)
            _burst(bench, browser, server)
        with _kept(bench), _lab(bench, "many") as server:
            _many(bench, browser, server)


@contextmanager
def _lab(bench: Bench, name: str) -> Generator[Server]:
    from ..notebooks.browsing import lab_environ
    from ..notebooks.servers import served

    folder = bench.folder / name
    with served(folder, lab_environ(folder)) as server:
        yield server


@contextmanager
def _page(browser: Browser, server: Server, name: str) -> Generator[Page]:
    from ..notebooks.browsing import opened
    from ..notebooks.servers import TOKEN

    with (
        browser.new_context(viewport={"width": 1280, "height": 800}) as context,
        opened(context, server.url, TOKEN, name) as page,
    ):
        page.wait_for_timeout(SETTLE_MILLISECONDS)
        yield page


@contextmanager
def _kept(bench: Bench) -> Generator[None]:
    """Have a state directory that is full of jobs be the one, and an agent beside it."""
    from remote_exec.backends import local
    from remote_exec.client.session import open_session
    from remote_exec.model.layout import Layout

    from ..notebooks.servers import keep_jobs

    before = os.environ["REMOTE_EXEC_HOME"]
    os.environ["REMOTE_EXEC_HOME"] = str(bench.folder / "kept")
    keep_jobs(Layout.of(os.environ), [f"call-{number:05}" for number in range(COUNT)])
    agent = open_session(local.here())
    try:
        yield
    finally:
        agent.start("stop").result(STOP_SECONDS)
        agent.close()
        os.environ["REMOTE_EXEC_HOME"] = before


def _jobs(count: int) -> None:
    """Run durable jobs, and return when they have ended."""
    with RemoteExecutor(detach=True) as executor:
        for future in [executor.submit(divmod, number, 7) for number in range(count)]:
            future.result()


def _first_paint(bench: Bench, browser: Browser, server: Server) -> None:
    first: dict[str, list[float]] = {"ours": [], "theirs": []}
    again: dict[str, list[float]] = {"ours": [], "theirs": []}
    sides = {"ours": OURS, "theirs": THEIRS}
    for number in range(bench.rounds(9)):
        with _page(browser, server, f"first-{number}") as page:
            for side in sides if number % 2 else reversed(sides):
                first[side].append(page.evaluate(PAINTED, sides[side]))
    with _page(browser, server, "again") as page:
        for number in range(bench.rounds(60) + 1):
            for side in sides:
                took = page.evaluate(PAINTED, sides[side])
                if number:
                    again[side].append(took)
    for what, found in (("in a new page", first), ("again, in one page", again)):
        bench.at_most(
            f"the panel opened {what}: until its jobs are painted",
            Sample.of(found["ours"]),
            Sample.of(found["theirs"]),
            limit=1.2,
            name="JupyterLab's Running panel",
        )


def _burst(bench: Bench, browser: Browser, server: Server) -> None:
    from ..notebooks.browsing import show_panel

    count = BURST // 5 if bench.quick else BURST
    with _page(browser, server, "burst") as page:
        show_panel(page)
        page.wait_for_timeout(SETTLE_MILLISECONDS)
        idle = _longest_task(browser, page, lambda: page.wait_for_timeout(IDLE_MILLISECONDS))
        started = time.perf_counter()

        def burst() -> None:
            _jobs(count)
            page.wait_for_function(LISTED, arg=count)

        longest = _longest_task(browser, page, burst)
        took = time.perf_counter() - started
    bench.within(
        f"{count:,} jobs begin and end: the page's longest task",
        longest,
        limit=LONGEST_TASK_SECONDS,
        note=f"within {seconds(took)}; {seconds(idle)} while nothing happens",
    )


def _longest_task(browser: Browser, page: Page, action: Callable[[], object]) -> float:
    """Return how long the page's main thread was busy at the longest meanwhile, by the browser's own trace."""
    browser.start_tracing(page=page, categories=CATEGORIES)
    try:
        action()
    finally:
        events: list[dict[str, Any]] = json.loads(browser.stop_tracing())["traceEvents"]
    tasks: dict[tuple[int, int], list[float]] = {}
    for event in events:
        if event["name"] == "RunTask" and "dur" in event:
            tasks.setdefault((event["pid"], event["tid"]), []).append(event["dur"] / 1e6)
    threads = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    return max(max(tasks[thread]) for thread in threads & tasks.keys())


def _many(bench: Bench, browser: Browser, server: Server) -> None:
    listed: list[float] = []
    ended: list[float] = []
    frames: list[float] = []
    for number in range(bench.rounds(5)):
        with _page(browser, server, f"many-{number}") as page:
            listed.append(page.evaluate(PAINTED, [OURS[0], FIRST_JOB]))
            page.get_by_role("listbox", name="Jobs").focus()
            ended.append(page.evaluate(KEY_PAINTED, LAST_JOB))
            frames += page.evaluate(SCROLLED, [LIST, FRAMES])
            still = page.evaluate(SCROLLED, [".jp-Launcher-body", FRAMES])
    bench.within(
        f"{COUNT:,} jobs: from the panel's opening to the last of them, selected by the End key",
        Sample.of([one + two for one, two in zip(listed, ended, strict=True)]).worst,
        limit=USABLE_SECONDS,
        note=f"the list painted {Sample.of(listed)}, the last job {Sample.of(ended)}",
    )
    bench.figure(
        f"{COUNT:,} jobs: a frame while all of them are scrolled through in {FRAMES} steps",
        str(Sample.of(frames)),
        peer=f"nothing drawn {Sample.of(still)}",
        ratio=Sample.of(frames).median / Sample.of(still).median,
    )
