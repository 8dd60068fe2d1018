"""What a page says that it looks at; see `messages`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .messages import MOST_JOBS, State


@dataclass(frozen=True)
class LookAtJobs:
    """Which jobs, and how: a filter and a window."""

    states: list[State] = field(default_factory=list["State"])  # none: all
    search: str = (
        ""  # all its words: in names, functions, instance types, summaries and tags, whatever the case
    )
    host: str = ""
    notebook: str = ""
    group: Literal["", "host", "notebook"] = ""
    first: int = 0
    count: int = MOST_JOBS


@dataclass(frozen=True)
class LookAtJob:
    """One job."""

    name: str
    host: str = ""


@dataclass(frozen=True)
class LookAtLogs:
    """One job's log; in JSON the offset is called ``from``."""

    name: str
    host: str = ""
    start: str = ""


@dataclass(frozen=True)
class LookAtMetrics:
    """One job's metrics."""

    name: str
    host: str = ""
