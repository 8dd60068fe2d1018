"""An exception becomes plain data where it was raised, and an exception again where it is awaited.

`capture` never fails, whatever the exception's own code does. `rebuild` gives the original type where the
class can be had: from the pickled object, else through ``cls.__new__`` without calling ``__init__``
(constructors rarely take what ends up in ``args``), else as a `RemoteError` that carries the data. The remote
frames become the exception's ``__traceback__`` (`tracebacks` says how, and why so), and the whole chain
(cause, context, notes, groups) is kept. `to_json` and `from_json` are for what is stored: bounded, and
checked field by field.

Not here: which bytes may be unpickled (whoever opened the stream has authenticated it), and how to pickle
(passed in). No state is owned here.
"""

from __future__ import annotations

import contextlib
import functools
import linecache
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import IO, Any, cast

from ..model.errors import RemoteError
from ..model.failure import SYNTAX, Failure, Frame
from . import postmortem, tracebacks
from .exception_pickle import Dumps, Loads, construct, find_class, pickled, unpickled
from .failures_json import from_json, to_json

__all__ = [
    "RemoteTraceback",
    "capture",
    "format",
    "from_json",
    "is_machinery",
    "rebuild",
    "stand_in",
    "to_json",
]

MAX_EXCEPTIONS = 64
MAX_DEPTH = 32
MAX_MESSAGE = 64_000
MAX_NOTES = 64
# beyond this a column of a SyntaxError is nonsense, and would be printed as so many blanks
MAX_COLUMN = 10_000
STR_FAILED = "<exception str() failed>"  # Python's own words
LEFT_OUT = Failure(
    module="remote_exec.errors", qualname="RemoteError", message="more exceptions were left out here"
)

Locals = Callable[[Frame], "dict[str, object]"]


def is_machinery(filename: str) -> bool:
    """Return whether a file belongs to this package: what `capture` passes over by default."""
    return filename.startswith(os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep)


# ---------------------------------------------------------------------------------------------------- capture


def capture(
    exc: BaseException,
    *,
    dumps: Dumps,
    keep_locals: bool = True,
    skip: tracebacks.Skip = is_machinery,
) -> Failure:
    """Return an exception, its traceback and its chain as plain data.

    Args:
        exc: what was raised.
        dumps: pickles an object; it may raise.
        keep_locals: keep the frames' locals for `postmortem.post_mortem`.
        skip: how many of the outermost frames are machinery, or a test of file names for it.

    Example:
        >>> import pickle
        >>> try:
        ...     {}["x"]
        ... except KeyError as error:
        ...     capture(error, dumps=pickle.dumps).message
        "'x'"
    """
    with contextlib.suppress(Exception):
        return _Capture(dumps=dumps, keep_locals=keep_locals, skip=skip).run(exc)
    return Failure(module=type(exc).__module__, qualname=type(exc).__qualname__, message=_message(exc))


class _Capture:
    """One exception with all that hangs on it: what was seen, and what may still be kept."""

    def __init__(self, *, dumps: Dumps, keep_locals: bool, skip: tracebacks.Skip) -> None:
        self._dumps = dumps
        self._keep_locals = keep_locals
        self._skip = skip
        self._done: dict[int, Failure | None] = {}
        self._seen_lines: set[tuple[str, int]] = set()
        self._entries: dict[int, list[tuple[TracebackType, int]]] = {}

    def run(self, exc: BaseException) -> Failure:
        failure = self._one(exc, depth=0)
        if self._keep_locals:
            frames = [tb.tb_frame for entries in self._entries.values() for tb, _ in entries]
            with contextlib.suppress(Exception):
                failure = self._with_locals(failure, postmortem.Keeper(frames, dumps=self._dumps))
        return failure

    def _one(self, exc: BaseException, *, depth: int) -> Failure:
        self._done[id(exc)] = None  # being captured: who meets it again is in a cycle
        cls = type(exc)
        skip = self._skip if depth == 0 or not isinstance(self._skip, int) else 0
        entries = tracebacks.kept(exc.__traceback__, skip=skip)
        for name in {tb.tb_frame.f_code.co_filename for tb, _ in entries}:
            linecache.checkcache(name)
        failure = Failure(
            module=str(cls.__module__),
            qualname=cls.__qualname__,
            message=_message(exc),
            frames=tuple(
                tracebacks.describe(tb, left_out=left_out, seen=self._seen_lines) for tb, left_out in entries
            ),
            notes=_notes(exc),
            suppress_context=bool(exc.__suppress_context__),
            syntax=_syntax(exc),
            retryable=_is_retryable(exc),
            pickled=_pickled(exc, self._dumps),
        )
        # in the order in which Python prints, so that what is met twice is shown where Python shows it
        failure = replace(
            failure,
            cause=self._next(exc.__cause__, depth=depth + 1),
            context_is_cause=exc.__cause__ is not None and exc.__cause__ is exc.__context__,
            context=self._next(exc.__context__, depth=depth + 1),
            members=tuple(self._member(member, depth=depth + 1) for member in _members(exc)),
        )
        self._done[id(exc)] = failure
        self._entries[id(failure)] = entries
        return failure

    def _next(self, exc: BaseException | None, *, depth: int) -> Failure | None:
        """Return a cause or context, or None if it was met before: like Python, each is shown once."""
        if exc is None or id(exc) in self._done:
            return None
        if len(self._done) >= MAX_EXCEPTIONS or depth > MAX_DEPTH:
            return LEFT_OUT
        return self._one(exc, depth=depth)

    def _member(self, exc: BaseException, *, depth: int) -> Failure:
        """Return a group's member: never None, since a group keeps its length."""
        known = self._done.get(id(exc))
        if known is not None and not known.members:
            return replace(known, cause=None, context=None)
        return self._next(exc, depth=depth) or LEFT_OUT

    def _with_locals(self, failure: Failure, keeper: postmortem.Keeper) -> Failure:
        """Return the failure with locals: the exception's own frames first, and of these the innermost."""
        frames = list(failure.frames)
        for number, (tb, _) in reversed(list(enumerate(self._entries.get(id(failure), ())))):
            texts, values = keeper.keep(tb.tb_frame)
            frames[number] = replace(frames[number], locals=texts, values=values or None)
        return replace(
            failure,
            frames=tuple(frames),
            members=tuple(self._with_locals(member, keeper) for member in failure.members),
            cause=failure.cause and self._with_locals(failure.cause, keeper),
            context=failure.context and self._with_locals(failure.context, keeper),
        )


def _message(exc: BaseException) -> str:
    try:
        text = str(exc)
        text.encode("utf-8", "surrogatepass")  # a str subclass may be odd too
    except BaseException:  # user code: whatever it raises, the capture goes on
        return STR_FAILED
    return str.__str__(text[:MAX_MESSAGE])


def _notes(exc: BaseException) -> tuple[str, ...]:
    texts: list[str] = []
    with contextlib.suppress(BaseException):
        for note in exc.__dict__.get("__notes__", ())[:MAX_NOTES]:
            texts.append(str(note)[:MAX_MESSAGE])
    return tuple(texts)


def _members(exc: BaseException) -> Sequence[BaseException]:
    group = _builtin("BaseExceptionGroup")
    return cast("Any", exc).exceptions if group is not None and isinstance(exc, group) else ()


def _syntax(exc: BaseException) -> tuple[str | int | None, ...]:
    if not isinstance(exc, SyntaxError):
        return ()
    fields = (exc.msg, exc.filename, exc.lineno, exc.offset, exc.text, exc.end_lineno, exc.end_offset)
    return tuple(field if type(field) is kind else None for field, kind in zip(fields, SYNTAX, strict=True))


def _is_retryable(exc: BaseException) -> bool:
    with contextlib.suppress(BaseException):
        return cast("Any", exc).retryable is True
    return False


def _pickled(exc: BaseException, dumps: Dumps) -> bytes | None:
    """Return the exception's bytes, without what an inner call's `rebuild` put on it."""
    whole = [exc, *_members(exc)]
    ours = [(each, each.__dict__.pop("remote")) for each in whole if _is_ours(each)]
    try:
        return pickled(exc, dumps=dumps)
    finally:
        for each, remote in ours:
            each.__dict__["remote"] = remote


def _is_ours(exc: BaseException) -> bool:
    return isinstance(exc.__dict__.get("remote"), RemoteTraceback)


def _builtin(name: str) -> Any:
    """Return a builtin class that old interpreters lack, or None."""
    import builtins

    return getattr(builtins, name, None)


# ---------------------------------------------------------------------------------------------------- rebuild


class RemoteTraceback:
    """What an exception that came back has under ``remote``: where it arose, as data, text, and for pdb."""

    def __init__(self, failure: Failure, *, loads: Loads) -> None:
        self.failure = failure
        self._loads = loads

    @property
    def text(self) -> str:
        """The remote traceback as Python prints it, with the chain."""
        return format(self.failure)

    def post_mortem(self, *, stdin: IO[str] | None = None, stdout: IO[str] | None = None) -> None:
        """Open pdb on the remote frames: see `postmortem.post_mortem`."""
        postmortem.post_mortem(self.failure, loads=self._loads, stdin=stdin, stdout=stdout)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_remote_traceback, (self.failure,))  # `loads` may be a closure

    def __repr__(self) -> str:
        return f"<remote traceback of {self.failure.qualname}, {len(self.failure.frames)} frames>"


def _remote_traceback(failure: Failure) -> RemoteTraceback:
    import pickle

    return RemoteTraceback(failure, loads=pickle.loads)


def rebuild(
    failure: Failure,
    *,
    loads: Loads,
    locate: Callable[[str], str] | None = None,
    values: bool = False,
) -> BaseException:
    """Return the exception that a failure tells of, to be raised here.

    Args:
        failure: what `capture` returned on the other side.
        loads: unpickles bytes of a peer that has been authenticated.
        locate: gives the name that a remote file has on this machine, where it knows one.
        values: give the frames the locals' own values, where they were kept.

    Returns:
        An exception of the original class, or a `RemoteError`. Its traceback is the remote one, to which
        ``raise`` adds the local frames; ``remote`` is a `RemoteTraceback`, unless the exception has something
        else there.
    """
    dress = _Dress(
        filenames=tracebacks.show_sources(failure, locate=locate),
        values=functools.partial(postmortem.values, loads=loads) if values else postmortem.placeholders,
        remote=functools.partial(RemoteTraceback, loads=loads),
        make=functools.partial(_make, loads=loads),
    )
    return dress.exception(failure)


class _Dress:
    """Makes exceptions out of failures and hangs traceback, chain, notes and members on them."""

    def __init__(
        self,
        *,
        filenames: Mapping[str, str],
        values: Locals,
        make: Callable[[Failure, Callable[[], list[BaseException]]], BaseException],
        remote: Callable[[Failure], RemoteTraceback] | None,
    ) -> None:
        self._filenames = filenames
        self._values = values
        self._make = make
        self._remote = remote

    def exception(self, failure: Failure) -> BaseException:
        exc = self._make(failure, lambda: [self.exception(member) for member in failure.members])
        self._hang(exc, failure)
        return exc

    def _hang(self, exc: BaseException, failure: Failure) -> None:
        # BaseException's own methods: user classes may override these or forbid attributes
        put = functools.partial(BaseException.__setattr__, exc)
        put("__traceback__", tracebacks.build(failure.frames, filenames=self._filenames, values=self._values))
        put("__cause__", failure.cause and self.exception(failure.cause))
        context = failure.context and self.exception(failure.context)
        put("__context__", exc.__cause__ if failure.context_is_cause else context)
        put("__suppress_context__", failure.suppress_context)
        if failure.notes:
            put("__notes__", list(failure.notes))
        if self._remote is not None and ("remote" not in exc.__dict__ or _is_ours(exc)):
            with contextlib.suppress(AttributeError):  # the class has a property of this name
                put("remote", self._remote(failure))
        members = _members(exc)
        if len(members) == len(failure.members):
            for member, of in zip(members, failure.members, strict=True):
                if member.__traceback__ is None:  # it came inside the pickled group
                    self._hang(member, of)


def _make(failure: Failure, members: Callable[[], list[BaseException]], *, loads: Loads) -> BaseException:
    if failure.pickled is not None:
        with contextlib.suppress(Exception):
            return _printable(unpickled(failure, loads=loads), failure)
    with contextlib.suppress(Exception):
        cls = find_class(failure)
        if failure.members:
            return _printable(construct(cls, (failure.message.rpartition(" (")[0], members())), failure)
        return _printable(construct(cls, (failure.message,)), failure)
    name = failure.qualname if failure.module == "builtins" else f"{failure.module}.{failure.qualname}"
    return RemoteError(f"{name}: {failure.message}", failure=failure)


def _printable(exc: BaseException, failure: Failure) -> BaseException:
    """Return the exception if it can say what it is: a half-made one fails here, not where it is printed."""
    if failure.message != STR_FAILED:
        str(exc)
    return exc


# ---------------------------------------------------------------------------------------------------- text


def format(failure: Failure) -> str:  # noqa: A001
    """Return the text that Python would print for the exception, with its chain and its members.

    No class of the user is needed: Python itself prints a stand-in.
    """
    exc = stand_in(failure)
    return "".join(traceback.format_exception(type(exc), exc, exc.__traceback__))


def stand_in(failure: Failure, *, values: Locals = postmortem.placeholders) -> BaseException:
    """Return an exception that prints and debugs like the original, of a class made for the purpose.

    Args:
        failure: the original.
        values: gives the locals of a frame.
    """
    dress = _Dress(filenames=tracebacks.show_sources(failure), values=values, make=_pretend, remote=None)
    return dress.exception(failure)


def _pretend(failure: Failure, members: Callable[[], list[BaseException]]) -> BaseException:
    group = _builtin("BaseExceptionGroup")
    grouped = bool(failure.members) and group is not None
    base: Any = group if grouped else SyntaxError if failure.syntax else BaseException

    def say(_: object) -> str:
        return failure.message

    name = tracebacks.printable(failure.qualname)
    cls: Any = type(name, (base,), {"__module__": failure.module, "__qualname__": name, "__str__": say})
    if grouped:
        return cast("BaseException", cls(failure.message, members()))
    exc: BaseException = cls(failure.message)
    fields = ("msg", "filename", "lineno", "offset", "text", "end_lineno", "end_offset")
    for field, value in zip(fields, failure.syntax, strict=bool(failure.syntax)):
        nonsense = field.endswith("offset") and isinstance(value, int) and not 0 <= value <= MAX_COLUMN
        setattr(exc, field, None if nonsense else value)
    return exc
