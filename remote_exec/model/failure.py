"""An exception as plain data: what travels, what is stored, and what is left when its class cannot be had."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One frame of a remote traceback."""

    filename: str
    lineno: int
    name: str
    # the source line, stripped; empty where the source could not be had
    line: str = ""
    # name -> repr, cut to a bound, names that look secret masked; empty unless kept for post-mortem
    locals: dict[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One exception with its chain. `pickled` lets the original object be rebuilt where its class exists."""

    module: str
    qualname: str
    message: str
    frames: tuple[Frame, ...] = ()
    notes: tuple[str, ...] = ()
    cause: Failure | None = None
    context: Failure | None = None
    suppress_context: bool = False
    # the members of an exception group
    members: tuple[Failure, ...] = ()
    retryable: bool = False
    pickled: bytes | None = None
