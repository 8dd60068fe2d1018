"""Failures as JSON, for the journal and those who do not unpickle: bounded when written, checked when read.

Fields at their defaults are left out. What is too long is written thinner: first without the values for
post-mortem, then without locals and source, then without frames and the pickled object. No state is owned
here.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable
from typing import Any, cast

from ..model.errors import ProtocolError
from ..model.failure import SYNTAX, Failure, Frame

MAX_CHARS = 8 << 20
# as deep as `json` reads; a chain is cut far below it when it is captured
MAX_DEPTH = 100

Check = Callable[[Any, str], Any]


def to_json(failure: Failure, *, max_chars: int = MAX_CHARS) -> str:
    """Return a failure as one line of JSON, ASCII only, of at most `max_chars` characters.

    Example:
        >>> to_json(Failure(module="builtins", qualname="KeyError", message="'x'"))
        '{"module":"builtins","qualname":"KeyError","message":"\\'x\\'"}'
    """
    text = ""
    for thinner in (_as_it_is, _without_values, _without_source, _headline):
        text = json.dumps(_plain(thinner(failure)), separators=(",", ":"))
        if len(text) <= max_chars:
            break
    return text


def from_json(text: str, *, max_chars: int = MAX_CHARS) -> Failure:
    """Return the failure that `to_json` wrote.

    Raises:
        ProtocolError: it is not what `to_json` writes, or longer than `max_chars` characters.
    """
    if len(text) > max_chars:
        raise ProtocolError(f"a failure of {len(text)} characters; at most {max_chars} are read")
    try:
        return cast("Failure", _FAILURE(json.loads(text), "failure"))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not a failure in JSON: {error}"[:500]) from None


# ---------------------------------------------------------------------------------------------------- writing


def _plain(value: object) -> Any:
    if isinstance(value, (Failure, Frame)):
        return {
            field.name: _plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if getattr(value, field.name) != field.default
        }
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, tuple):
        return [_plain(item) for item in cast("tuple[object, ...]", value)]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in cast("dict[str, object]", value).items()}
    return value


def _as_it_is(failure: Failure) -> Failure:
    return failure


def _everywhere(failure: Failure, change: Callable[[Failure], Failure]) -> Failure:
    return dataclasses.replace(
        change(failure),
        cause=failure.cause and _everywhere(failure.cause, change),
        context=failure.context and _everywhere(failure.context, change),
        members=tuple(_everywhere(member, change) for member in failure.members),
    )


def _frames(failure: Failure, **changes: Any) -> Failure:
    frames = tuple(dataclasses.replace(frame, **changes) for frame in failure.frames)
    return dataclasses.replace(failure, frames=frames)


def _without_values(failure: Failure) -> Failure:
    return _everywhere(failure, lambda each: _frames(each, values=None))


def _without_source(failure: Failure) -> Failure:
    return _everywhere(failure, lambda each: _frames(each, values=None, locals=None, source=""))


def _headline(failure: Failure) -> Failure:
    return Failure(
        module=failure.module, qualname=failure.qualname, message=failure.message, retryable=failure.retryable
    )


# ---------------------------------------------------------------------------------------------------- reading


def _is(kind: type) -> Check:
    def check(value: Any, path: str) -> Any:
        if type(value) is not kind:  # exactly: True is no int here
            raise ProtocolError(f"{path}: expected {kind.__name__}, got {type(value).__name__}")
        return value

    return check


def _optional(check: Check) -> Check:
    return lambda value, path: None if value is None else check(value, path)


def _tuple_of(check: Check, *, length: int | None = None) -> Check:
    def checked(value: Any, path: str) -> Any:
        items = _is(list)(value, path)
        if length is not None and len(items) not in (0, length):
            raise ProtocolError(f"{path}: expected {length} items, got {len(items)}")
        return tuple(check(item, f"{path}[{number}]") for number, item in enumerate(items))

    return checked


def _dict_of(check: Check) -> Check:
    def checked(value: Any, path: str) -> Any:
        return {name: check(item, f"{path}.{name}") for name, item in _is(dict)(value, path).items()}

    return checked


def _bytes(value: Any, path: str) -> bytes:
    try:
        return base64.b64decode(_is(str)(value, path), validate=True)
    except ValueError:
        raise ProtocolError(f"{path}: not base64") from None


def _position(value: Any, path: str) -> Any:
    position = _tuple_of(_is(int), length=3)(value, path)
    if not position:
        raise ProtocolError(f"{path}: empty")
    return position


def _syntax(value: Any, path: str) -> Any:
    fields = _tuple_of(lambda item, _: item, length=len(SYNTAX))(value, path)
    return tuple(_optional(_is(kind))(item, path) for kind, item in zip(SYNTAX, fields, strict=bool(fields)))


def _record(cls: type, fields: dict[str, Check]) -> Check:
    required = [field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING]

    def check(value: Any, path: str) -> Any:
        data = _is(dict)(value, path)
        if path.count(".") > MAX_DEPTH:
            raise ProtocolError("failure: nested too deeply")
        missing = [name for name in required if name not in data]
        unknown = [name for name in data if name not in fields]
        if missing or unknown:
            raise ProtocolError(f"{path}: missing {missing}, unknown {unknown}"[:500])
        return cls(**{name: fields[name](item, f"{path}.{name}") for name, item in data.items()})

    return check


def _failure(value: Any, path: str) -> Any:
    return _FAILURE(value, path)


_FRAME = _record(
    Frame,
    {
        "filename": _is(str),
        "lineno": _is(int),
        "name": _is(str),
        "line": _is(str),
        "first_lineno": _is(int),
        "position": _optional(_position),
        "source": _is(str),
        "source_start": _is(int),
        "left_out": _is(int),
        "locals": _optional(_dict_of(_is(str))),
        "values": _optional(_dict_of(_bytes)),
    },
)
_FAILURE = _record(
    Failure,
    {
        "module": _is(str),
        "qualname": _is(str),
        "message": _is(str),
        "frames": _tuple_of(_FRAME),
        "notes": _tuple_of(_is(str)),
        "cause": _optional(_failure),
        "context": _optional(_failure),
        "context_is_cause": _is(bool),
        "suppress_context": _is(bool),
        "members": _tuple_of(_failure),
        "syntax": _syntax,
        "retryable": _is(bool),
        "pickled": _optional(_bytes),
    },
)
