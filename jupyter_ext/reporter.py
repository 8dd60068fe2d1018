"""What a notebook's calls tell, below the cell that made them, and above it one line that says what is waited for.

The line appears once a cell has waited for half a second, is drawn four times a second at the most, and ends as one
short line. So that it is above, what a call tells before that is held back: until the line is there, or the call has
ended without one.
"""

from __future__ import annotations

import bisect
import contextlib
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any

from remote_exec.client.connections import connections
from remote_exec.client.interrupts import shield, unshield
from remote_exec.client.reporter import SHOWN_AFTER_SECONDS, Console, merged
from remote_exec.errors import RemoteExecError

from .front_end import MIME, clear_output, displays_are_caught, header_of, written_in
from .status import CellStatus

if TYPE_CHECKING:
    from remote_exec.client.calls import Call
    from remote_exec.client.jobs import JobFuture
    from remote_exec.client.phases import Span

    Show = Callable[[], object]

DRAWN_SECONDS = 0.25  # between two drawings of a line
LOOK_SECONDS = 1.0  # between two questions to an agent, later on
HELD_SECONDS = 2 * SHOWN_AFTER_SECONDS  # of what nobody waits for
CELLS = 1000  # to which late output still finds its way


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
        self._clears_next = False  # what the cell shows next takes all away that is there, the line too
        self._is_gone = False  # the line is, or will be with what is shown next here
        self._held: deque[Show] = deque()
        self._held_since = 0.0
        self._passes = False  # nothing is held back in this cell any more
        self._talks = 0
        self._wake = threading.Event()
        self._drawer: threading.Thread | None = None
        self.held = ""  # who else may hold what is waited for

    def install(self) -> None:
        """Hear of all calls of this process, and of its cells."""
        self._shell.events.register("pre_run_cell", self._cell_begins)
        self._shell.events.register("post_run_cell", self._cell_ends)
        self._cell_begins()  # it is in a cell that the extension is loaded
        self._shell.display_pub.clear_output = self._cleared_here
        connections.report_to(self)

    def uninstall(self) -> None:
        """Leave that to a console again."""
        connections.report_to(Console())
        with contextlib.suppress(AttributeError):
            del self._shell.display_pub.clear_output
        for event, callback in (("pre_run_cell", self._cell_begins), ("post_run_cell", self._cell_ends)):
            with contextlib.suppress(ValueError):
                self._shell.events.unregister(event, callback)

    # --- cells, in the thread that runs them --------------------------------------------------------------------

    def _cell_begins(self, _info: object = None) -> None:
        with self._lock:
            self._release()
            self.belongs_to(header_of(self._shell))
            self._status, self._drawn = CellStatus(time.monotonic()), False
            self._clears_next = self._is_gone = self._passes = False
            self._talks = 0
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
            self._release()
            status, self._status = self._status, None
            if status is None or not self._drawn:
                return
            now = time.monotonic()
            status.end(now, result and (result.error_before_exec or result.error_in_exec))
            self._draw(status, now)

    # --- what calls do ------------------------------------------------------------------------------------------

    def output(self, call: Call | None, index: int, data: bytes) -> None:
        """Write what the call printed into the cell that made it."""
        self.show(partial(super().output, call, index, data), self._header_for(call))

    def event(self, call: Call | None, event: dict[str, Any]) -> None:
        """Hand log records to this process's logging, in the call's cell; remember progress for the next tick."""
        if "log" in event:
            self.show(partial(self._log, call, event), self._header_for(call))
        else:
            super().event(call, event)

    def _log(self, call: Call | None, event: dict[str, Any]) -> None:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        super().event(call, event)

    def note(self, text: str) -> None:
        """Say it in the running cell, once."""
        self.show(partial(super().note, text), self._header)

    def ended(self, call: Call) -> None:
        """Write what the call had begun to print."""
        self.show(partial(super().ended, call), self._header_for(call), adds=False)
        self._may_release()

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
        self._may_release()

    # --- what a cell tells that runs elsewhere ------------------------------------------------------------------

    @contextlib.contextmanager
    def talk(self) -> Generator[None, None, None]:
        """Listen to a cell until it has ended, whatever is waited for in between."""
        with self._lock:
            self._talks += 1
        try:
            yield
        finally:
            with self._lock:
                self._talks = max(0, self._talks - 1)  # in a subshell, another cell may have begun
            self._may_release()

    def show_rest(self) -> None:
        """The cell has ended: what was held back is shown, line or no line."""
        with self._lock:
            self._release()

    def asks(self, call: Call) -> None:
        """The cell asks the user something, which is not done in half a second: the line comes before the question."""
        with self._lock:
            if (status := self._status) is not None and not self._drawn:
                now = time.monotonic()
                status.tick(call, "run", "", [], now)
                self._draw(status, now)
            self._release()

    def show(self, show: Show, header: dict[str, Any], *, adds: bool = True) -> None:
        """Show something in a cell, below its line if it gets one.

        Args:
            show: does so.
            header: of the cell's message.
            adds: whether there will be more to be seen, so that what waits to be cleared is.
        """
        with self._lock:
            if self._holds(header):
                if not self._held:
                    self._held_since = time.monotonic()
                    self._look()
                self._held.append(partial(self._show_now, show, header, adds))
                return
        self._show_now(show, header, adds)

    def clear(self, header: dict[str, Any], *, wait: bool) -> None:
        """Clear a cell's output but for its line; with `wait`, when there is more."""
        self.show(partial(self._clear_output, wait), header, adds=False)

    def _clear_output(self, wait: bool) -> None:
        clear_output(self._shell, wait)
        with self._lock:
            self._clears_next = wait and self._drawn
            self._is_gone = self._drawn and not wait
            self._draw_again()

    def _cleared_here(self, wait: bool = False) -> None:
        """The notebook's own code clears the output of the cell that runs."""
        clear_output(self._shell, wait)
        with self._lock:
            self._is_gone = self._drawn
            if not wait:
                self._draw_again()

    def _draw_again(self) -> None:
        if self._is_gone and self._status is not None:
            self._draw(self._status, time.monotonic())

    def _show_now(self, show: Show, header: dict[str, Any], adds: bool) -> None:
        own = header == self._header
        if adds and own and self._clears_next:
            with self._lock:
                self._clears_next, self._is_gone = False, True
                self._draw_again()
        if own and threading.current_thread() is threading.main_thread():
            show()
        else:
            with written_in(self._shell, header):
                show()

    def _header_for(self, call: Call | None) -> dict[str, Any]:
        """Return the header of the cell that made a call."""
        if call is None:
            return self._header
        with self._lock:
            place = bisect.bisect_right(self._cells, call.started_at, key=_begun)
            return self._cells[place - 1][1] if place else self._header

    # --- holding back, under the lock ---------------------------------------------------------------------------

    def _holds(self, header: dict[str, Any]) -> bool:
        """Whether the line may still come above what this cell is to show."""
        return (
            self._status is not None
            and not self._drawn
            and not self._passes
            and header == self._header
            and not displays_are_caught(self._shell)
        )

    def _may_release(self) -> None:
        """Show what was held back, unless what has told it goes on."""
        if self._held:
            with self._lock:
                if not self._talks:
                    self._release()

    def _release(self) -> None:
        if not self._held:
            return
        shielded = shield()  # an interrupt loses nothing of it
        try:
            while self._held:
                self._held.popleft()()
        finally:
            if shielded:
                unshield()

    # --- drawing ------------------------------------------------------------------------------------------------

    def _changed(self, status: CellStatus, now: float) -> None:
        """Draw a line that is due for the first time; have later drawings done when it is time. Under the lock."""
        if self._drawn:
            self._wake.set()
        elif status.is_due(now):
            self._draw(status, now)

    def _look(self) -> None:
        """Have a thread see to the line, and to what is held back."""
        if self._drawer is None:
            self._drawer = threading.Thread(target=self._draw_changes, name="remote_exec-status", daemon=True)
            self._drawer.start()
        self._wake.set()

    def _draw_changes(self) -> None:
        while True:
            self._wake.wait()
            time.sleep(DRAWN_SECONDS)
            self._wake.clear()
            with self._lock:
                if self._status is not None and self._draw_change(self._status, time.monotonic()):
                    self._wake.set()

    def _draw_change(self, status: CellStatus, now: float) -> bool:
        """Do what it is time for; return whether there will be more."""
        if self._drawn:
            self._draw(status, now)
            return status.is_live(now)  # it is to be seen when nobody waits any longer
        if self._held and now - self._held_since >= HELD_SECONDS:
            if status.is_due(now) and (self._talks or status.is_live(now)):
                self._draw(status, now)
            self._passes = True
            self._release()
        return bool(self._held)

    def _draw(self, status: CellStatus, now: float) -> None:
        if displays_are_caught(self._shell):
            return
        data = {"text/plain": status.text(now), "text/html": status.html(now)}
        with written_in(self._shell, self._header):
            self._shell.display_pub.publish(
                data,
                {MIME: status.facts(now)},
                transient={"display_id": self._display_id},
                update=self._drawn and not self._is_gone,
            )
        self._is_gone = False
        if not self._drawn:
            self._drawn = True
            self._look()
            self._release()


def notebook_reporter() -> NotebookReporter | None:
    """Return who shows what calls tell, where that is a notebook."""
    reporter = connections.reporter
    return reporter if isinstance(reporter, NotebookReporter) else None


def _begun(cell: tuple[float, dict[str, Any]]) -> float:
    return cell[0]
