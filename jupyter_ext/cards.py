"""Displays of futures and jobs that go on updating while the kernel lives.

One thread looks at all that are shown and have not ended, once a second; it begins with the first and ends with the
last. A display is drawn again only where what it says has changed.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from html import escape
from typing import Any, NamedTuple, Protocol

from remote_exec.cli.show import duration
from remote_exec.client.jobs import JobFuture
from remote_exec.client.reporter import Bars, progress_line
from remote_exec.errors import JobNotFound, RemoteExecError
from remote_exec.future import RemoteFuture

from .displays import FONT, MUTED, progress_html, state_html
from .front_end import MIME, is_kernel

LOOK_SECONDS = 1.0
DETACHED = ("jupyter_ext.job", "DetachedCell")  # loaded with the first one


class Card(NamedTuple):
    """What is shown of a future or job.

    Attributes:
        name: of the job; empty before it has been sent.
        function: that it calls.
        state: one of queued, running, succeeded, failed, cancelled.
        instance_type: where.
        seconds: that it has run; None where it has not begun.
        why: what it waits for, or why it failed.
        bars: its progress.
        again: how it is found again from a later kernel.
        cost: until now, where there is a price.
    """

    name: str
    function: str
    state: str
    instance_type: str = ""
    seconds: float | None = None
    why: str = ""
    bars: Bars = []  # noqa: RUF012 - never changed
    again: str = ""
    cost: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing can follow."""
        return self.state not in ("queued", "running")

    def text(self) -> str:
        """Return it in one line."""
        facts = (self.instance_type, self.state, duration(self.seconds), self.cost, self.why)
        parts = [self.name or self.function, *facts]
        return " · ".join([part for part in [*parts, progress_line(self.bars)] if part])

    def html(self) -> str:
        """Return it with its mark and bars."""
        facts = " · ".join(
            escape(part) for part in (self.instance_type, duration(self.seconds), self.cost, self.why) if part
        )
        again = (
            f'<div style="{MUTED}">again from a later kernel: <code>{escape(self.again)}</code></div>'
            if self.again
            else ""
        )
        return (
            f'<div class="remote-exec-job" role="status" style="{FONT}"><strong>{escape(self.name or self.function)}'
            f"</strong> {state_html(self.state)}{' · ' + facts if facts else ''}{progress_html(self.bars)}{again}</div>"
        )

    def facts(self) -> dict[str, Any]:
        """What programs read: the metadata of its display."""
        return {
            "job": self.name,
            "function": self.function,
            "state": self.state,
            "instance_type": self.instance_type,
            "elapsed_seconds": None if self.seconds is None else round(self.seconds, 3),
            "why": self.why,
            "progress": self.bars,
            **({"cost": self.cost} if self.cost else {}),
        }


class Shows(Protocol):
    """What has a card."""

    def card(self) -> Card:
        """Return how it stands now."""
        ...


def card_of(future: RemoteFuture[Any]) -> Card:
    """Return how a future stands now.

    Raises:
        RemoteExecError: its agent cannot be asked.
    """
    if isinstance(future, JobFuture):
        return card_of_job(future.told())
    call, state = future._call, future.status
    if call is None:
        return Card("", "call", state, why="cached" if future.cached else "")
    done = future.done()
    why = "" if done or state == "running" else future.why()
    if state == "failed":
        error = future.exception(0)
        why = f"{type(error).__name__}: {error}".partition("\n")[0]
    seconds = time.monotonic() - call.started_at if state == "running" else None
    cost = future.cost
    facts = (call.captured.instance_type, seconds, why)
    return Card(call.name, call.captured.name, state, *facts, cost="" if cost is None else str(cost))


def card_of_job(told: dict[str, Any]) -> Card:
    """Return how a job stands, of which its agent has told."""
    from remote_exec.cli.jobs import cost_text, elapsed

    job = told["job"]
    state: str = job["state"]
    bars: Bars = told["progress"] if state == "running" else []
    why = told["why"] if state == "queued" else _reason(job) if state == "failed" else ""
    if job["attempts"] > 1:
        why = " · ".join(part for part in (f"attempt {job['attempts']}", why) if part)
    durable = job["kind"] == "job"
    again = f"%remote result {job['name']}" if durable else ""
    now = time.time()
    facts = (job["instance_type"], elapsed(job, now), why, bars, again, cost_text(job, now))
    return Card(job["name"], job["function"], state, *facts)


def _reason(job: dict[str, Any]) -> str:
    return str(job["summary"]).partition("\n")[0].removesuffix(": ")


class _OfFuture:
    def __init__(self, future: RemoteFuture[Any]) -> None:
        self.future = future

    def card(self) -> Card:
        return card_of(self.future)


class _Shown:
    """One display: what it shows, and what it says now."""

    def __init__(self, of: Shows) -> None:
        self.of = of
        self.display_id = f"remote-exec-{uuid.uuid4().hex}"
        self.said = ""


class Cards:
    """See the module's docstring.

    Args:
        shell: the kernel's IPython.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._lock = threading.Lock()
        self._open: list[_Shown] = []
        self._stop = threading.Event()

    def install(self) -> None:
        """Have futures and detached cells show themselves so; in a terminal, as a line of text."""
        formatters: Any = self._shell.display_formatter
        plain, live = formatters.formatters["text/plain"], formatters.ipython_display_formatter
        plain.for_type(RemoteFuture, _print_future)
        plain.for_type_by_name(*DETACHED, _print_card)
        if is_kernel(self._shell):
            live.for_type(RemoteFuture, self._show_future)
            live.for_type_by_name(*DETACHED, self.show)

    def uninstall(self) -> None:
        """Leave the displays as they are."""
        self._stop.set()
        formatters = self._shell.display_formatter
        for formatter in (formatters.formatters["text/plain"], formatters.ipython_display_formatter):
            for cls in (RemoteFuture, ".".join(DETACHED)):
                formatter.pop(cls, None)

    def show(self, of: Shows) -> None:
        """Display how it stands, and go on doing so until it has ended."""
        publisher = self._shell.display_pub
        shown = _Shown(of)
        if self._draw(shown, update=False) or not hasattr(publisher, "pub_socket"):
            return
        with self._lock:
            self._open.append(shown)
            if len(self._open) == 1:
                threading.Thread(target=self._follow, name="remote_exec-cards", daemon=True).start()

    def _show_future(self, future: RemoteFuture[Any]) -> None:
        self.show(_OfFuture(future))

    def _follow(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            ended = [shown for shown in list(self._open) if self._draw(shown, update=True)]
            with self._lock:
                self._open = [shown for shown in self._open if shown not in ended]
                if not self._open:
                    return

    def _draw(self, shown: _Shown, *, update: bool) -> bool:
        """Draw it if it says something new; return whether it has said its last."""
        try:
            card = shown.of.card()
            ended = card.ended
        except JobNotFound as error:
            card, ended = Card("", "", "failed", why=error.message), True
        except RemoteExecError as error:
            card, ended = Card("", "", "queued", why=error.message), False
        except Exception as error:  # whatever it is, other displays go on
            card, ended = Card("", "", "failed", why=f"{type(error).__name__}: {error}"), True
        data = {"text/plain": card.text(), "text/html": card.html()}
        if data["text/html"] != shown.said:
            shown.said = data["text/html"]
            with contextlib.suppress(
                Exception
            ):  # of the cell that runs now, if one does: all readers hear that
                self._shell.display_pub.publish(
                    data, {MIME: card.facts()}, transient={"display_id": shown.display_id}, update=update
                )
        return ended


def _print_future(future: RemoteFuture[Any], printer: Any, cycle: bool) -> None:
    _print_card(_OfFuture(future), printer, cycle)


def _print_card(of: Shows, printer: Any, _cycle: bool) -> None:
    try:
        text = of.card().text()
    except RemoteExecError as error:
        text = f"<{error.message}>"
    printer.text(text)
