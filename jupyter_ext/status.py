"""What a cell waits for, in one line: where its calls are, for how long, and how far."""

from __future__ import annotations

import time
from html import escape
from typing import TYPE_CHECKING, Any

from remote_exec.client.reporter import SHOWN_AFTER_SECONDS, Bars, progress_line
from remote_exec.model.cost import bill_of

from .displays import COLOURS, FONT, MARKS, MUTED, progress_html
from .spending import Spending

if TYPE_CHECKING:
    from remote_exec.client.calls import Call
    from remote_exec.client.phases import Span

LEFT_SECONDS = 0.6  # without a word from whoever waits, a line shows what has been
COLD_SECONDS = 0.05  # a phase that took less is not told

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
    """One cell's calls, as far as they have lasted.

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
