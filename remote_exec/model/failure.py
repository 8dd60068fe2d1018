"""An exception as plain data: what travels, what is stored, and what is left when its class cannot be had."""

from __future__ import annotations

from .record import record


@record(kw_only=True)
class Frame:
    """One frame of a remote traceback."""

    filename: str
    lineno: int
    # the qualified name where the interpreter knows it (3.11), else the bare one
    name: str
    # the source line, stripped; empty where the source could not be had
    line: str = ""
    # where the function begins; 0 where unknown
    first_lineno: int = 0
    # end line, first and last column (UTF-8 bytes) of the expression that failed, for the carets
    position: tuple[int, int, int] | None = None
    # the lines around `lineno`, as they stand in the file, from line `source_start` on. Frames of one failure
    # that stand at the same line carry it once.
    source: str = ""
    source_start: int = 0
    # how many frames of a deep recursion were left out just before this one
    left_out: int = 0
    # name -> repr, cut to a bound, names that look secret masked; None unless kept for post-mortem
    locals: dict[str, str] | None = None
    # name -> pickled value, for those small enough; never of a name that looks secret
    values: dict[str, bytes] | None = None


# what stands in `Failure.syntax`, or None: message, file name, line, column, text, end line, end column
SYNTAX = (str, str, int, int, str, int, int)


@record(kw_only=True)
class Failure:
    """One exception with its chain. `pickled` lets the original object be rebuilt where its class exists."""

    module: str
    qualname: str
    message: str
    frames: tuple[Frame, ...] = ()
    notes: tuple[str, ...] = ()
    cause: Failure | None = None
    # None too where it is the cause: see `context_is_cause`
    context: Failure | None = None
    context_is_cause: bool = False
    suppress_context: bool = False
    # the members of an exception group
    members: tuple[Failure, ...] = ()
    # of a SyntaxError: see `SYNTAX`; empty else
    syntax: tuple[str | int | None, ...] = ()
    retryable: bool = False
    # the exception, or `(class or None, arguments, state)` where its constructor cannot be trusted with its
    # arguments
    pickled: bytes | None = None
