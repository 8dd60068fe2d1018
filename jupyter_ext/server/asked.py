"""What the panel asks, as it comes over HTTP and the websocket, checked field by field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from remote_exec.errors import ConfigurationError

from .board import STATES
from .looks import LookAtJob, LookAtJobs, LookAtLogs, LookAtMetrics
from .messages import MOST_JOBS, At

MOST_TEXT = 64 << 10
AT: tuple[At, ...] = get_args(At)
GROUPS: Mapping[str, Literal["", "host", "notebook"]] = {"": "", "host": "host", "notebook": "notebook"}

Looked = LookAtJobs | LookAtJob | LookAtLogs | LookAtMetrics | None


@dataclass(frozen=True)
class Look:
    """The client looks at something, or at something else under a number that it has used before."""

    id: int
    at: At
    what: Looked  # None: there is nothing to say of it


@dataclass(frozen=True)
class Leave:
    """The client looks no longer."""

    id: int


def message_of(text: str | bytes) -> Look | Leave:
    """Return what a client has said over the websocket.

    Raises:
        ConfigurationError: it is none of what can be said.
    """
    if len(text) > MOST_TEXT:
        raise ConfigurationError("the message is too long")
    try:
        told = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"the message is no JSON: {error}") from None
    if not isinstance(told, dict) or not _is_whole(cast("Any", told).get("id")):
        raise ConfigurationError("a message is an object with a whole number as its id")
    fields = cast("dict[str, Any]", told)
    kind = fields.get("type")
    if kind == "leave":
        return Leave(fields["id"])
    if kind != "look":
        raise ConfigurationError(f"the message's type must be look or leave, not {str(kind)[:40]!r}")
    at = fields.get("at")
    if at not in AT:
        raise ConfigurationError(f"at must be one of {', '.join(AT)}, not {str(at)[:40]!r}")
    return Look(fields["id"], at, _looked(at, fields))


def _looked(at: At, fields: Mapping[str, Any]) -> Looked:
    if at == "jobs":
        return look_at_jobs(fields)
    if at == "job":
        return LookAtJob(_name(fields), _text(fields, "host"))
    if at == "logs":
        return LookAtLogs(_name(fields), _text(fields, "host"), _text(fields, "from"))
    if at == "metrics":
        return LookAtMetrics(_name(fields), _text(fields, "host"))
    return None


def look_at_jobs(fields: Mapping[str, Any]) -> LookAtJobs:
    """Return which jobs are looked at.

    Args:
        fields: those of `LookAtJobs`; all may be missing. Numbers may be texts, and `states` one, with commas.

    Raises:
        ConfigurationError: one of them is wrong.
    """
    told: Any = fields.get("states") or []
    if not isinstance(told, (str, list)):
        raise ConfigurationError("states must be a list")
    states: list[Any] = told.split(",") if isinstance(told, str) else list(cast("Any", told))
    if not all(state in STATES for state in states):
        raise ConfigurationError(f"states must be of {', '.join(STATES)}")
    group = GROUPS.get(_text(fields, "group"))
    if group is None:
        raise ConfigurationError("group must be host or notebook")
    return LookAtJobs(
        states=states,
        search=_text(fields, "search"),
        host=_text(fields, "host"),
        notebook=_text(fields, "notebook"),
        group=group,
        first=_number(fields, "first", 0),
        count=min(_number(fields, "count", MOST_JOBS), MOST_JOBS),
    )


def seconds_of(body: str | bytes, default: float) -> float:
    """Return for how long a pool is to be kept warm, as the body of a request says.

    Raises:
        ConfigurationError: it is no number of seconds.
    """
    try:
        told: Any = json.loads(body) if body else {}
        seconds = float(told.get("seconds", default))
    except (ValueError, TypeError, AttributeError):
        raise ConfigurationError('the body must be an object such as {"seconds": 3600}') from None
    if not 0.0 < seconds <= 30 * 86400.0:
        raise ConfigurationError("seconds must be above 0, and at most those of thirty days")
    return seconds


def _name(fields: Mapping[str, Any]) -> str:
    name = _text(fields, "name")
    if not name:
        raise ConfigurationError("name must name a job")
    return name


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} must be a text")
    return value


def _number(fields: Mapping[str, Any], name: str, default: int) -> int:
    value = fields.get(name, default)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        value = int(value)
    if not _is_whole(value):
        raise ConfigurationError(f"{name} must be a whole number, 0 or more")
    return cast("int", value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53
