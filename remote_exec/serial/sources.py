"""Source text of code that travels by value, so that tracebacks and `inspect.getsource` work over there.

A notebook's cells have no file and a script's file lies on another machine, so the text rides in the
pickle, once per file, and is registered in `linecache` on arrival. Text that no longer matches the code is
left out: wrong lines mislead more than none. Owns a small cache of joined texts, by file name; entries are
replaced whole, so threads need no lock.
"""

from __future__ import annotations

import linecache
import os
import re
import time
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

# A file that is larger says little in a traceback that its line numbers do not.
MAX_SOURCE_CHARS = 1_000_000
MAX_SHOWN_CHARS = 64 << 10  # of one function
_MOST_WRAPPERS = 32
_MORE_LINES = 20  # behind the last that runs: an expression, or a text, may go on
_MAX_CACHED_FILES = 64

# Names that many pieces of code share: whichever came last would answer for all.
_AMBIGUOUS = frozenset({"", "<string>", "<stdin>", "<unknown>", "<dynamic-code>", "<console>"})
# What is installed lies on the other side as well, or says nothing of the user's.
_INSTALLED = (os.path.dirname(os.__file__) + os.sep, "site-packages", "dist-packages")

# file name -> (the lines as linecache holds them, their text, the code that they compile to where it must be
# compared because the file was edited while this process ran)
_texts: dict[str, tuple[list[str], str, frozenset[CodeType] | None]] = {}


def _process_start_time() -> float:
    """Wall-clock seconds at which this process began; 0 where the system does not tell."""
    try:
        with open("/proc/self/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        age_seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
        return time.time() - age_seconds
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0


# Read at import, so that children forked later keep their parent's: what they run was loaded by it.
_started = _process_start_time()


def source_of(filename: str, code: CodeType | None = None) -> str | None:
    """The text of a file; None where it cannot be had, or is no longer that from which `code` was compiled.

    Without `code` the file must be as it was when this process began.
    """
    if filename in _AMBIGUOUS or any(part in filename for part in _INSTALLED):
        return None
    linecache.checkcache(filename)
    lines = linecache.getlines(filename)
    if not lines:
        return None
    cached = _texts.get(filename)
    if cached is None or cached[0] is not lines:
        if len(_texts) >= _MAX_CACHED_FILES:
            _texts.clear()
        text = "".join(lines)
        codes = _all_code(text, filename) if _edited_since_start(filename) else None
        cached = _texts[filename] = (lines, text, codes)
    _, text, codes = cached
    return text if len(text) <= MAX_SOURCE_CHARS and (codes is None or code in codes) else None


def register(filename: str, text: str) -> None:
    """Let `linecache` answer for `filename` with `text`, unless it does already."""
    lines = text.splitlines(keepends=True)
    if linecache.getlines(filename) == lines:  # the same file lies here: leave it to follow its edits
        return
    # No modification time: `linecache.checkcache` then never looks for a file, which may be another one here.
    linecache.cache[filename] = (len(text), None, lines, filename)


def text_of(function: object) -> str:
    """Return the source of a function or class, as its file was when it was loaded; empty where it is not to be had.

    Any thread may ask: no code of anybody's runs, and no module is looked at.
    """
    from inspect import getblock
    from tokenize import TokenError

    found = _inner(function)
    try:
        if isinstance(found, type):
            return _class_text(found)
        if not isinstance(found, FunctionType):
            return ""
        lines = linecache.getlines(found.__code__.co_filename)
        text = "".join(getblock(lines[found.__code__.co_firstlineno - 1 :]))
    except (OSError, SyntaxError, ValueError, RecursionError, TokenError):
        return ""
    return text if len(text) <= MAX_SHOWN_CHARS else ""


def lines_of(function: object) -> str:
    """Return, at once, lines in which the source of a function or class lies, from its first on: for `block_of`.

    Any thread may ask, as of `text_of`, which takes milliseconds to find where the source ends.
    """
    found = _inner(function)
    codes = [found.__code__] if isinstance(found, FunctionType) else []
    if isinstance(found, type):
        methods = (_inner(value) for value in vars(found).values())
        codes = [one.__code__ for one in methods if isinstance(one, FunctionType)]
    if not codes:
        return ""
    lines = linecache.getlines(codes[0].co_filename)
    codes = [code for code in codes if code.co_filename == codes[0].co_filename]
    first = min(code.co_firstlineno for code in codes)
    if isinstance(found, type):
        first = _header_above(lines, found.__name__, first)
    return "".join(lines[first - 1 : max(map(_last_line, codes)) + _MORE_LINES]) if first else ""


def block_of(lines: str) -> str:
    """Return the source that some lines begin with; all of them, where it does not end there."""
    from inspect import getblock
    from tokenize import TokenError

    try:
        return "".join(getblock(lines.splitlines(keepends=True)))
    except (SyntaxError, ValueError, TokenError):
        return lines


def _last_line(code: CodeType) -> int:
    own = [line for _, _, line in code.co_lines() if line]
    inner = [_last_line(const) for const in code.co_consts if isinstance(const, CodeType)]
    return max([code.co_firstlineno, *own, *inner])


def _header_above(lines: list[str], name: str, line: int) -> int:
    """Return the number of the line at which a class begins, by that of one within it; 0 where it is not found."""
    header = re.compile(rf"\s*class\s+{re.escape(name)}\b")
    above = range(min(line, len(lines)), 0, -1)
    found = next((number for number in above if header.match(lines[number - 1])), 0)
    while found > 1 and lines[found - 2].lstrip().startswith("@"):
        found -= 1
    return found


def _inner(function: object) -> object:
    """Return what wrappers that say so are about."""
    for _ in range(_MOST_WRAPPERS):
        own: dict[str, Any] = {} if isinstance(function, type) else getattr(function, "__dict__", {})
        if isinstance(function, partial):
            function = function.func
        elif isinstance(function, MethodType):
            function = function.__func__
        elif "__wrapped__" in own:
            function = own["__wrapped__"]
        else:
            break
    return function


def _class_text(cls: type) -> str:
    """Return the source of a class, found by one of its methods."""
    for value in vars(cls).values():
        method = _inner(value)
        if isinstance(method, FunctionType) and method.__qualname__.startswith(f"{cls.__qualname__}."):
            break
    else:
        return ""
    lines = linecache.getlines(method.__code__.co_filename)
    line = method.__code__.co_firstlineno
    import ast

    found = ""
    for node in ast.walk(ast.parse("".join(lines))):
        if isinstance(node, ast.ClassDef) and node.name == cls.__name__:
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            if first <= line <= (node.end_lineno or 0):  # the innermost comes last
                found = "".join(lines[first - 1 : node.end_lineno])
    return found if len(found) <= MAX_SHOWN_CHARS else ""


def _mtime(filename: str) -> float | None:
    entry = linecache.cache.get(filename)
    return entry[1] if entry is not None and len(entry) == 4 else None


def _edited_since_start(filename: str) -> bool:
    mtime = _mtime(filename)
    return mtime is not None and mtime >= _started


def _all_code(text: str, filename: str) -> frozenset[CodeType]:
    """All code in a file; empty where it is not Python now."""
    try:
        pending = [compile(text, filename, "exec", dont_inherit=True)]
    except (SyntaxError, ValueError):
        return frozenset()
    found: set[CodeType] = set()
    while pending:
        code = pending.pop()
        found.add(code)
        pending += [const for const in code.co_consts if isinstance(const, CodeType)]
    return frozenset(found)
