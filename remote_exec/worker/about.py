"""What is told of a call, in lists and to whoever looks at it, beside how it ended: its function, tags, the code.

Told of all calls of one function, or by a call of itself (`context.describe`). The code is looked up when the agent is
first told of such a call: what is short and silent costs nothing. For a worker that dies before that, the lines in
which it lies are noted once, when the function is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import field, replace
from typing import Any

from ..model.failure import Failure
from ..model.job import Cause
from ..model.record import record
from ..serial import failures_json, sources

SUMMARY_CHARS = 300
KEPT_FAILURE_CHARS = 256 << 10  # of a failure whose caller has all of it, for the journal
NOTED_BYTES = 24 << 10  # of what is found when a worker has died at once


@record(frozen=False)
class About:
    """See the module's docstring.

    Attributes:
        name: the first part of its calls' names.
        function: as lists show it.
        listed: whether its calls are; those that are not are nobody's, and told only where they die.
        tags: theirs.
        source: the function; its code is to be shown.
        code: that ran, once it is known.
        own: it is of one call, which is not summed up with others.
        result: what is told of the value that a call has come to.
        cause: why a call has failed that has returned nevertheless, with what follows.
        summary: in one line.
        failure: as JSON.
    """

    name: str = "function"
    function: str = "function"
    listed: bool = True
    tags: tuple[tuple[str, str], ...] = ()
    source: Callable[..., Any] | None = None
    code: str | None = None
    own: bool = False
    result: dict[str, Any] = field(default_factory=dict[str, Any])
    cause: Cause = Cause.NONE
    summary: str = ""
    failure: str = ""
    _noted: str | None = field(default=None, init=False)

    @classmethod
    def of(cls, told: dict[str, Any]) -> About:
        """Return what a client has told of a function."""
        name: str = told["name"]
        return cls(
            name=name,
            function=name,
            listed=bool(name) and told.get("listed", True),
            tags=tuple((key, value) for key, value in told.get("tags", ())),
            code=told.get("code"),
        )

    def of_loaded(self, source: Callable[..., Any]) -> About:
        """Return what is told of the function, now that it is there."""
        return replace(self, source=source)

    def of_call(self, *, name: str, function: str, code: str, tags: tuple[tuple[str, str], ...]) -> About:
        """Return what is told of one call of it instead."""
        return replace(
            self,
            name=name or self.name,
            function=function,
            code=code,
            tags=(*self.tags, *tags),
            listed=True,
            own=True,
            result={},
        )

    def fails(self, failure: Failure, *, cancelled: bool) -> None:
        """The call has failed, though it will return."""
        self.cause = Cause.CANCELLED if cancelled else Cause.USER_ERROR
        self.summary = summary_of(failure)
        self.failure = kept(failures_json.to_json(failure), failure)

    def told(self) -> str:
        """Return, as JSON, what is told to whoever looks at such a call."""
        if self.code is None:
            self.code = sources.text_of(self.source) if self.source is not None else ""
        return _json({"code": self.code, "result": self.result})

    def noted(self) -> str:
        """Return, as JSON, what is to be known of such a call where its worker dies before anything is told."""
        if self._noted is None:
            facts = {"function": self.function, "tags": self.tags}
            lines = sources.lines_of(self.source) if self.listed and self.code is None else ""
            text = _json({**facts, "code": self.code, "lines": lines})
            self._noted = text if len(text) <= NOTED_BYTES else _json(facts)
        return self._noted


def summary_of(failure: Failure) -> str:
    """Return a failure in one line."""
    return f"{failure.qualname}: {failure.message}"[:SUMMARY_CHARS]


def kept(text: str, failure: Failure) -> str:
    """Return what the journal is to have of a failure whose caller has all of it."""
    if len(text) <= KEPT_FAILURE_CHARS:
        return text
    return failures_json.to_json(failure, max_chars=KEPT_FAILURE_CHARS)


def _json(facts: dict[str, Any]) -> str:
    found = {name: value for name, value in facts.items() if value}
    return json.dumps(found) if found else ""
