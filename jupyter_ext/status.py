"""What a cell waits for, in one line above its output: where its calls are, for how long, and how far.

`CellStatus` is what is known of one cell's calls, and how that reads. `NotebookReporter` hears of calls as any reporter
does, and keeps that line up to date in a display of its own; what calls print goes to the cell that made them. The line
appears once a cell has waited for half a second, is drawn four times a second at the most, and ends as one short line.
"""

from __future__ import annotations

import bisect
import contextlib
import sys
import threading
import time
import uuid
from collections.abc import Generator
from html import escape
from typing import TYPE_CHECKING, Any

from remote_exec.client.connections import connections
from remote_exec.client.reporter import SHOWN_AFTER_SECONDS, Bars, Console, merged, progress_line
from remote_exec.errors import RemoteExecError
from remote_exec.model.cost import bill_of

from .displays import COLOURS, FONT, MARKS, MUTED, progress_html
from .spending import Spending

if TYPE_CHECKING:
    from remote_exec.client.calls import Call
    from remote_exec.client.jobs import JobFuture
    from remote_exec.client.phases import Span

DRAWN_SECONDS = 0.25  # between two drawings of a line
LOOK_SECONDS = 1.0  # between two questions to an agent, later on
LEFT_SECONDS = 0.6  # without a word from whoever waits, a line shows what has been
COLD_SECONDS = 0.05  # a phase that took less is not told
CELLS = 1000  # to which late output still finds its way
MIME = "remote_exec"  # in a display's metadata

WORDS = {
    "queue": "waiting",
    "environment": "making the environment",
    "start": "starting",
    "run": "running",
    "capture": "looking at the code",
    "transfer": "sending",
    "receive": "receiving",
}


class CellStatus:
    """One cell's calls, as far as they have lasted. Knows nothing of how it is shown.

    Args:
        now: when the cell began, on the monotonic clock.
    """

    def __init__(self, now: float) -> None:
        self.begun = now
        self.waited_since = 0.0  # 0: for nothing yet
        self.heard_at = 0.0
        self.ended_at = 0.0
        self.ended_as = "done"
        self.name = ""
        self.unnamed = ""  # what its own notebook is called: that tells nothing there
        self.instance_type = ""
        self.phase = ""
        self.why = ""
        self.attempt = ""  # if it is not the first
        self.bars: Bars = []
        self.cold: dict[str, float] = {}
        self.spending = Spending()
        self._leases: set[str] = set()
        self._span: Span | None = None

    # --- what happens -------------------------------------------------------------------------------------------

    def tick(self, call: Call, phase: str, why: str, bars: Bars, now: float) -> None:
        """Some thread of the cell waits for a call."""
        self._heard(min(now, call.started_at), now)
        self.name, self.phase, self.why = self._named(call.captured.name), phase, why
        self.bars = bars if phase == "run" else []
        self.instance_type = call.captured.instance_type or self.instance_type
        channel = call.channel
        granted = channel.granted if channel is not None and call.number == 1 else None
        if granted is not None and granted.lease not in self._leases:
            self._leases.add(granted.lease)
            for one in () if granted.warm else granted.phases:
                self._note(one.name, one.seconds)

    def job(self, told: dict[str, Any], since: float, now: float) -> None:
        """Some thread of the cell waits for a durable job, of which its agent has told."""
        job = told["job"]
        running = job["state"] == "running"
        self._heard(since, now)
        self.spending.job(job["name"], bill_of(job))
        self.name, self.instance_type = job["name"], job["instance_type"]
        self.attempt = f"attempt {job['attempts']}" if job["attempts"] > 1 else ""
        self.phase, self.why = "run" if running else "queue", told["why"]
        self.bars = told["progress"] if running else []
        for attempt in told["attempts"]:
            lease = f"{job['name']}.{attempt['number']}"
            if attempt["phases"] and lease not in self._leases:
                self._leases.add(lease)
                for one in attempt["phases"]:
                    self._note(one["name"], one["seconds"])

    def busy(self, span: Span, now: float) -> None:
        """This process itself is at a phase of a call."""
        self._heard(span.started_at, now)
        self.name, self.phase, self.why, self.bars = self._named(span.of), span.name, span.detail, []
        self._span = span

    def not_busy(self) -> None:
        """That phase is over."""
        if self._span is not None:
            self._note(self._span.name, self._span.seconds)
            self._span = None

    def left(self, now: float) -> None:
        """Who waited goes on."""
        self.spending.stop(time.time())
        if self.waited_since:
            self.heard_at = now

    def end(self, now: float, error: BaseException | None) -> None:
        """The cell has ended, perhaps in an error."""
        self.not_busy()
        self.spending.stop(time.time())
        self.ended_at = now
        if error is not None:
            self.ended_as = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"

    def _heard(self, since: float, now: float) -> None:
        self.heard_at = now
        if not self.waited_since:
            self.waited_since = max(since, self.begun)

    def _named(self, name: str) -> str:
        return "" if name == self.unnamed else name

    def _note(self, phase: str, seconds: float) -> None:
        if seconds >= COLD_SECONDS and phase != "queue":
            self.cold[phase] = self.cold.get(phase, 0.0) + seconds

    # --- how it reads -------------------------------------------------------------------------------------------

    def is_due(self, now: float) -> bool:
        """Whether the cell has waited for long enough to say so."""
        return bool(self.waited_since) and now - self.waited_since >= SHOWN_AFTER_SECONDS

    def is_live(self, now: float) -> bool:
        """Whether somebody waits."""
        return not self.ended_at and now - self.heard_at < LEFT_SECONDS

    def seconds(self, now: float) -> float:
        """How long it has been waited: to the last word of it, where nobody waits any more."""
        return max(0.0, (now if self.is_live(now) else self.heard_at) - self.waited_since)

    def facts(self, now: float) -> dict[str, Any]:
        """What programs read: the metadata of its display."""
        live = self.is_live(now)
        state = self.phase if live else self.ended_as
        return {
            "state": state,
            "instance_type": self.instance_type,
            "function": self.name,
            "elapsed_seconds": round(self.seconds(now), 3),
            "attempt": self.attempt,
            "why": self.why if live and self.phase != "run" else "",
            "progress": self.bars if live else [],
            **({"cost": cost} if (cost := self.spending.text(time.time())) else {}),
            "first_start_seconds": round(sum(self.cold.values()), 3),
            "phases": {name: round(seconds, 3) for name, seconds in self.cold.items()},
        }

    def text(self, now: float) -> str:
        """The line: ``gpu · train · running · 12 s``; at the end ``gpu · 12.3 s · first start 3.1 s``."""
        return " · ".join(part for part in self._parts(now) if part)

    def _parts(self, now: float) -> list[str]:
        seconds, cost = self.seconds(now), self.spending.text(time.time())
        if self.is_live(now):
            why = self.why if self.phase != "run" else progress_line(self.bars)
            state = WORDS.get(self.phase, self.phase)
            return [self.instance_type, self.name, state, self.attempt, f"{seconds:.0f} s", cost, why]
        state = self.ended_as if self.ended_as != "done" else ""
        return [self.instance_type, state, self.attempt, f"{seconds:.1f} s", cost, self._cold()]

    def _cold(self) -> str:
        if not self.cold:
            return ""
        parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.cold.items())
        whole = f"first start {sum(self.cold.values()):.1f} s"
        return f"{whole} ({parts})" if len(self.cold) > 1 else whole

    def html(self, now: float) -> str:
        """The same line, with a mark and bars."""
        live = self.is_live(now)
        state = {"done": "succeeded", "interrupted": "cancelled"}.get(self.ended_as, self.ended_as)
        if live:
            state = "running" if self.phase == "run" else "queued"
        bars = progress_html(self.bars) if live else ""
        parts = self._parts(now)
        if bars:
            parts[-1] = ""  # they are drawn
        text = escape(" · ".join(part for part in parts if part))
        mark = f'<span style="color: {COLOURS[state]}" aria-hidden="true">{MARKS[state]}</span>'
        return (
            f'<div class="remote-exec-status" role="status" style="{MUTED}; {FONT}">{mark} {text}{bars}</div>'
        )


# --- the reporter -----------------------------------------------------------------------------------------------


class NotebookReporter(Console):
    """A `Reporter` for kernels; see the module's docstring. Any thread may call it.

    Args:
        shell: the kernel's IPython.
    """

    def __init__(self, shell: Any) -> None:
        super().__init__()
        self._shell = shell
        self._cells: list[tuple[float, dict[str, Any]]] = []  # when each began, its message's header
        self._status: CellStatus | None = None
        self._header: dict[str, Any] = {}
        self._display_id = ""
        self._drawn = False
        self._wake = threading.Event()
        self._drawer: threading.Thread | None = None
        self.held = ""  # who else may hold what is waited for

    def install(self) -> None:
        """Hear of all calls of this process, and of its cells."""
        self._shell.events.register("pre_run_cell", self._cell_begins)
        self._shell.events.register("post_run_cell", self._cell_ends)
        self._cell_begins()  # it is in a cell that the extension is loaded
        connections.report_to(self)

    def uninstall(self) -> None:
        """Leave that to a console again."""
        connections.report_to(Console())
        for event, callback in (("pre_run_cell", self._cell_begins), ("post_run_cell", self._cell_ends)):
            with contextlib.suppress(ValueError):
                self._shell.events.unregister(event, callback)

    # --- cells, in the thread that runs them --------------------------------------------------------------------

    def _cell_begins(self, _info: object = None) -> None:
        with self._lock:
            self.belongs_to(header_of(self._shell))
            self._status, self._drawn = CellStatus(time.monotonic()), False
            self._display_id = f"remote-exec-{uuid.uuid4().hex}"

    def belongs_to(self, header: dict[str, Any]) -> None:
        """What calls print that begin now belongs to what this message has led to, though it runs no cell."""
        with self._lock:
            self._header = header
            self._cells.append((time.monotonic(), header))
            del self._cells[:-CELLS]

    def leave_out(self, name: str) -> None:
        """Do not say in the running cell that it is this that is waited for."""
        with self._lock:
            if self._status is not None:
                self._status.unnamed = name

    def _cell_ends(self, result: Any = None) -> None:
        with self._lock:
            status, self._status = self._status, None
            if status is None or not self._drawn:
                return
            now = time.monotonic()
            status.end(now, result and (result.error_before_exec or result.error_in_exec))
            self._draw(status, now)

    # --- what calls do ------------------------------------------------------------------------------------------

    def output(self, call: Call | None, index: int, data: bytes) -> None:
        """Write what the call printed into the cell that made it."""
        with self._in_its_cell(call):
            super().output(call, index, data)

    def event(self, call: Call | None, event: dict[str, Any]) -> None:
        """Hand log records to this process's logging, in the call's cell; remember progress for the next tick."""
        with self._in_its_cell(call):
            if "log" in event:
                _flush(sys.stdout)
            super().event(call, event)

    def tick(self, call: Call, phase: str, why: str, *, waited_for: bool) -> None:
        """Say in the running cell what is waited for, once it has been for a while."""
        with self._lock:
            if (status := self._status) is not None:
                now = time.monotonic()
                status.spending.look(connections.priced(min(status.begun, call.started_at)), now)
                if not waited_for:
                    return
                why = f"{why}; {self.held}" if phase == "queue" and self.held else why
                bars = [b for one, b in self._bars.items() if one is call or one.started_at >= status.begun]
                status.tick(call, phase, why, merged(bars), now)
                self._changed(status, now)

    def phase(self, phase: Span | None) -> None:
        """Say in the running cell what this process is busy with, once that has taken a while."""
        with self._lock:
            if (status := self._status) is None:
                return
            now = time.monotonic()
            if phase is None:
                status.not_busy()
            else:
                status.busy(phase, now)
                self._changed(status, now)

    @contextlib.contextmanager
    def waiting(self, job: JobFuture) -> Generator[None, None, None]:
        """Say in the running cell how a job stands that it waits for."""
        ended = threading.Event()
        watching = threading.Thread(
            target=self._watch, args=(job, time.monotonic(), ended), name="remote_exec-job", daemon=True
        )
        watching.start()
        try:
            yield
        finally:
            ended.set()
            self.left()

    def _watch(self, job: JobFuture, since: float, ended: threading.Event) -> None:
        while not ended.wait(DRAWN_SECONDS if time.monotonic() - since < LOOK_SECONDS else LOOK_SECONDS):
            with contextlib.suppress(RemoteExecError):  # who waits is told
                told = job.told()
                with self._lock:
                    if (status := self._status) is not None and not ended.is_set():
                        now = time.monotonic()
                        status.job(told, since, now)
                        self._changed(status, now)

    def left(self) -> None:
        """Take note of when; the line says so by itself, unless somebody waits again."""
        with self._lock:
            if (status := self._status) is not None:
                now = time.monotonic()
                status.spending.look(connections.priced(status.begun), now)
                status.left(now)

    def ended(self, call: Call) -> None:
        """Write what the call had begun to print."""
        with self._in_its_cell(call):
            super().ended(call)

    # --- drawing ------------------------------------------------------------------------------------------------

    def _changed(self, status: CellStatus, now: float) -> None:
        """Draw a line that is due for the first time; have later drawings done when it is time. Under the lock."""
        if not self._drawn:
            if status.is_due(now):
                self._draw(status, now)
        else:
            self._wake.set()

    def _draw_changes(self) -> None:
        while True:
            self._wake.wait()
            time.sleep(DRAWN_SECONDS)
            self._wake.clear()
            with self._lock:
                status = self._status
                if status is None or not self._drawn:
                    continue
                now = time.monotonic()
                self._draw(status, now)
                if status.is_live(now):  # it is to be seen when nobody waits any longer
                    self._wake.set()

    def _draw(self, status: CellStatus, now: float) -> None:
        publisher = self._shell.display_pub
        if not hasattr(publisher, "pub_socket"):  # the cell's displays are caught: `%%capture`
            return
        if self._drawer is None:
            self._drawer = threading.Thread(target=self._draw_changes, name="remote_exec-status", daemon=True)
            self._drawer.start()
        data = {"text/plain": status.text(now), "text/html": status.html(now)}
        with written_in(self._shell, self._header):
            publisher.publish(
                data,
                {MIME: status.facts(now)},
                transient={"display_id": self._display_id},
                update=self._drawn,
            )
        self._drawn = True

    @contextlib.contextmanager
    def _in_its_cell(self, call: Call | None) -> Generator[None, None, None]:
        here = threading.current_thread() is threading.main_thread()
        header = self._header if call is None else self._header_at(call.started_at)
        if here and header is self._header:
            yield
            return
        with written_in(self._shell, header):
            yield

    def _header_at(self, moment: float) -> dict[str, Any]:
        """Return the header of the cell that ran at a moment."""
        with self._lock:
            place = bisect.bisect_right(self._cells, moment, key=_begun)
            return self._cells[place - 1][1] if place else self._header


def _begun(cell: tuple[float, dict[str, Any]]) -> float:
    return cell[0]


def header_of(shell: Any) -> dict[str, Any]:
    """Return the header of the front end's message that has led to what runs now."""
    return dict(getattr(shell.display_pub, "parent_header", None) or {})


@contextlib.contextmanager
def written_in(shell: Any, header: dict[str, Any]) -> Generator[None, None, None]:
    """Have what this thread prints and displays be a certain cell's, by the header of its message."""
    targets: list[Any] = [shell.display_pub, sys.stdout, sys.stderr]
    with contextlib.ExitStack() as stack:
        for target in targets:
            begin = getattr(target, "set_thread_parent", None)
            if begin is not None and header:
                stack.callback(target.reset_thread_parent, begin({"header": header}))
        yield


def _flush(stream: Any) -> None:
    with contextlib.suppress(Exception):
        stream.flush()


def is_kernel(shell: Any) -> bool:
    """Whether a shell is a notebook's, with displays that can be drawn again."""
    return getattr(shell, "kernel", None) is not None
