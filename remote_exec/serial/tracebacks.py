"""Tracebacks as data, and back: real frames in, `Frame`s out; `Frame`s in, traceback objects out.

A rebuilt traceback is a chain of true traceback objects, as jinja2 and tblib make them: for each frame a line
of code is compiled under the remote file's name, function name, line and columns, and run until it raises.
The other way, text in a note or a cause (concurrent.futures'), was not chosen: it prints the error twice and
upside down, debuggers cannot walk it, IPython cannot colour it, pytest cannot cut it, and no tool sees in it
where the error arose. Synthetic frames look local to everything that reads tracebacks.

Source lines come from `linecache`. Where the remote file is not on this machine its lines are put there, and
where another text stands under that name here they are put under ``NAME [remote]``, since showing the wrong
line would be worse than showing none. One reader does not ask `linecache`: the interpreter's own printer of
uncaught exceptions before Python 3.13. `show_uncaught` replaces it, unless the user has set a hook of their
own.

This module owns the `linecache` entries that it made (a bounded number, under a lock), nothing else.
"""

from __future__ import annotations

import functools
import itertools
import linecache
import sys
import threading
import traceback
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from types import CodeType, TracebackType
from typing import Any, TypeAlias

from ..model.failure import Failure, Frame

MAX_FRAMES = 100
# what pdb's `list` and IPython show around a line, and a bit more; the function's beginning where it is near
LINES_BEFORE, LINES_AFTER = 20, 10
MAX_SOURCE = 4_000
MAX_LINE = 1_000
MAX_LINENO = 100_000
MAX_FILES = 256

Skip: TypeAlias = "int | Callable[[str], bool]"


def kept(tb: TracebackType | None, *, skip: Skip = 0) -> list[tuple[TracebackType, int]]:
    """Return the entries worth keeping, outermost first, each with how many were left out just before it.

    Args:
        tb: where to begin.
        skip: how many outermost entries to pass over, or a test of file names that passes over the leading
            ones.
    """
    entries = _entries(tb)
    if isinstance(skip, int):
        entries = itertools.islice(entries, skip, None)
    else:
        test = skip
        entries = itertools.dropwhile(lambda entry: test(entry.tb_frame.f_code.co_filename), entries)
    first = list(itertools.islice(entries, MAX_FRAMES // 2))
    last: deque[TracebackType] = deque(maxlen=MAX_FRAMES // 2)
    count = 0
    for entry in entries:
        last.append(entry)
        count += 1
    left_out = count - len(last)
    return [(entry, 0) for entry in first] + [
        (entry, 0 if number else left_out) for number, entry in enumerate(last)
    ]


def _entries(tb: TracebackType | None) -> Iterable[TracebackType]:
    while tb is not None:
        yield tb
        tb = tb.tb_next


def describe(tb: TracebackType, *, left_out: int, seen: set[tuple[str, int]]) -> Frame:
    """Return one entry as data, without locals; lines whose source went out before are in `seen`."""
    code = tb.tb_frame.f_code
    filename = code.co_filename
    lineno: int = tb.tb_lineno or code.co_firstlineno  # None for code without lines
    lines = linecache.getlines(filename, tb.tb_frame.f_globals)
    source, start = "", 0
    if (filename, lineno) not in seen:
        seen.add((filename, lineno))
        source, start = _window(lines, lineno, first=code.co_firstlineno)
    return Frame(
        filename=filename,
        lineno=lineno,
        name=getattr(code, "co_qualname", code.co_name),
        line=lines[lineno - 1].strip()[:MAX_LINE] if 0 < lineno <= len(lines) else "",
        first_lineno=code.co_firstlineno,
        position=_position(code, tb.tb_lasti),
        source=source,
        source_start=start,
        left_out=left_out,
    )


def _window(lines: Sequence[str], lineno: int, *, first: int) -> tuple[str, int]:
    """Return the lines around one, and the number of the first of them, within `MAX_SOURCE` characters."""
    if not 0 < lineno <= len(lines):
        return "", 0
    low = max(1, lineno - LINES_BEFORE, first if first <= lineno else 1)
    high = min(len(lines), lineno + LINES_AFTER)
    while low < high and sum(len(line) for line in lines[low - 1 : high]) > MAX_SOURCE:
        low, high = min(low + 1, lineno), max(high - 1, lineno)
    source = "".join(lines[low - 1 : high])
    return (source, low) if len(source) <= MAX_SOURCE else ("", 0)


def _position(code: CodeType, lasti: int) -> tuple[int, int, int] | None:
    if not hasattr(code, "co_positions") or lasti < 0:  # new in 3.11
        return None
    _, end_lineno, start, end = next(itertools.islice(code.co_positions(), lasti // 2, None), (None,) * 4)
    return None if end_lineno is None or start is None or end is None else (end_lineno, start, end)


def build(
    frames: Sequence[Frame],
    *,
    filenames: Mapping[str, str],
    values: Callable[[Frame], dict[str, object]],
) -> TracebackType | None:
    """Return a traceback with these frames, outermost first.

    Args:
        frames: what `describe` returned on the other machine.
        filenames: what `show_sources` answered.
        values: gives the locals of a frame.
    """
    pairs: list[tuple[CodeType, dict[str, object]]] = []
    for frame in reversed(frames):
        pairs.append((_code(filenames.get(frame.filename, frame.filename), frame), values(frame)))
        if frame.left_out:
            marker = Frame(filename=f"<{frame.left_out} frames left out>", lineno=1, name="...")
            pairs.append((_code(marker.filename, marker), {}))
    island: list[object] = []
    generator = _made_on(island, pairs)
    island.append(generator)
    return next(generator)


class _Stop(Exception):  # noqa: N818
    """Ends a synthetic frame."""


def _made_on(
    island: list[object], pairs: list[tuple[CodeType, dict[str, object]]]
) -> Generator[TracebackType | None, None, None]:
    """Yield the traceback of frames that run this code with these locals, innermost first.

    The new frames' `f_back` is this generator's frame. That of a suspended generator is None, so the caller's
    frames, and what their locals hold, do not live as long as the exception does (nor in a cycle with it).
    Hence it stays suspended for as long as the frames live, in their globals, and keeps nothing that leads
    back to them.
    """
    made: list[TracebackType | None] = [None]
    while pairs:
        code, values = pairs.pop(0)
        try:
            exec(  # noqa: S102
                code,
                {"__name__": "remote", "__file__": code.co_filename, "_stop": _Stop, "_island": island},
                values,
            )
        except _Stop as stop:
            own = stop.__traceback__
            if own is not None and own.tb_next is not None:
                tb = own.tb_next
                made.append(TracebackType(made.pop(), tb.tb_frame, tb.tb_lasti, tb.tb_lineno))
    code = values = own = tb = island = None  # type: ignore[assignment]
    yield made.pop()


def _code(filename: str, frame: Frame) -> CodeType:
    lineno = max(frame.lineno, 1)
    first = frame.first_lineno if 0 < frame.first_lineno <= lineno else lineno
    name = frame.name.rpartition(".")[2] or frame.name
    try:
        return _compile(filename, name, frame.name, (first, lineno, frame.position))
    except (ValueError, OverflowError):  # positions that no compiler would make
        return _compile(printable(filename), name, frame.name, (1, min(lineno, MAX_LINENO), None))


@functools.lru_cache(maxsize=1024)
def _compile(
    filename: str,
    name: str,
    qualname: str,
    place: tuple[int, int, tuple[int, int, int] | None],
) -> CodeType:
    """Return code that raises at one place of a function that begins at another, its locals in a dict."""
    import ast  # takes milliseconds, and most processes never need it

    first, lineno, position = place
    end_lineno, start, end = position or (lineno, -1, -1)  # -1: no column, no carets
    tree = ast.parse("def f():\n    raise _stop")
    function: Any = tree.body[0]
    for node in ast.walk(function.body[0]):
        if isinstance(node, (ast.stmt, ast.expr)):
            node.lineno, node.end_lineno = lineno, end_lineno
            node.col_offset, node.end_col_offset = start, end
    function.lineno, function.end_lineno = first, max(lineno, end_lineno)
    module = compile(tree, filename, "exec")
    code: CodeType = next(const for const in module.co_consts if isinstance(const, CodeType))
    # CO_OPTIMIZED and CO_NEWLOCALS: without them the frame's locals are the mapping that we give to `exec`
    changes: dict[str, Any] = {"co_name": name, "co_flags": code.co_flags & ~0x3}
    if hasattr(code, "co_qualname"):  # new in 3.11
        changes["co_qualname"] = qualname
    return code.replace(**changes)


_lock = threading.Lock()
_shown: OrderedDict[str, dict[int, str]] = OrderedDict()


def show_sources(failure: Failure, *, locate: Callable[[str], str] | None = None) -> dict[str, str]:
    """See to it that `linecache` knows the source lines of a failure, its chain and its members.

    Args:
        failure: what carries the lines.
        locate: gives the name that a remote file has here, if it knows one.

    Returns:
        For each remote file name, the name to print.
    """
    known: dict[str, dict[int, str]] = {}
    for each in walk(failure):
        for frame in each.frames:
            lines = known.setdefault(frame.filename, {})
            for number, text in enumerate(frame.source.splitlines(keepends=True), frame.source_start):
                lines[number] = text.rstrip("\r\n") + "\n"
            if frame.line:
                lines.setdefault(frame.lineno, frame.line + "\n")
    with _lock:
        return {
            name: _show(printable(locate(name) if locate else name), lines) for name, lines in known.items()
        }


def printable(name: str) -> str:
    """Return a name without what no file, type or terminal can have in it: lone surrogates and nulls."""
    return name.encode("utf-8", "backslashreplace").decode().replace("\0", "?")


def walk(failure: Failure) -> Iterable[Failure]:
    """Yield a failure and all that hangs on it."""
    yield failure
    for other in (failure.cause, failure.context, *failure.members):
        if other is not None:
            yield from walk(other)


def _show(filename: str, lines: dict[int, str]) -> str:
    lines = {number: text for number, text in lines.items() if 0 < number <= MAX_LINENO}
    if not lines:
        return filename
    for name in (filename, f"{filename} [remote]", *(f"{filename} [remote {n}]" for n in range(2, 10))):
        ours = _shown.get(name)
        if ours is None:
            linecache.checkcache(name)
            here = linecache.getlines(name)
            if here:
                if all(n <= len(here) and here[n - 1].strip() == text.strip() for n, text in lines.items()):
                    return name
                continue
        elif any(ours.get(n, text) != text for n, text in lines.items()):
            continue
        _install(name, {**(ours or {}), **lines})
        break
    else:
        name = filename
    return name


def _install(name: str, lines: dict[int, str]) -> None:
    _shown[name] = lines
    _shown.move_to_end(name)
    text = [lines.get(number, "\n") for number in range(1, max(lines) + 1)]
    # a modification time of None: `linecache.checkcache` leaves the entry alone
    linecache.cache[name] = (sum(map(len, text)), None, text, name)
    while len(_shown) > MAX_FILES:
        old, _ = _shown.popitem(last=False)
        linecache.cache.pop(old, None)
    show_uncaught()


def show_uncaught() -> None:
    """Have uncaught exceptions printed with lines from `linecache`, where the interpreter does not."""
    if sys.version_info < (3, 13) and sys.excepthook is sys.__excepthook__:
        sys.excepthook = _print_uncaught


def _print_uncaught(cls: type[BaseException], exc: BaseException, tb: TracebackType | None) -> None:
    traceback.print_exception(cls, exc, tb)
