"""Source text of code that travels by value, so that tracebacks and `inspect.getsource` work over there.

A notebook's cells have no file and a script's file lies on another machine, so the text rides in the
pickle, once per file, and is registered in `linecache` on arrival. Text that no longer matches the code is
left out: wrong lines mislead more than none. Owns a small cache of joined texts, by file name; entries are
replaced whole, so threads need no lock.
"""

from __future__ import annotations

import linecache
import os
import time
from types import CodeType

# A file that is larger says little in a traceback that its line numbers do not.
MAX_SOURCE_CHARS = 1_000_000
_MAX_CACHED_FILES = 64

# Names that many pieces of code share: whichever came last would answer for all.
_AMBIGUOUS = frozenset({"", "<string>", "<stdin>", "<unknown>", "<dynamic-code>", "<console>"})
# What is installed lies on the other side as well, or says nothing of the user's.
_INSTALLED = (os.path.dirname(os.__file__) + os.sep, "site-packages", "dist-packages")

# file name -> (the lines as linecache holds them, their text, whether a file may have changed since it was
# loaded)
_texts: dict[str, tuple[list[str], str, bool]] = {}


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


def source_of(code: CodeType) -> str | None:
    """The text of the file `code` was compiled from; None where it cannot be had or no longer matches."""
    filename = code.co_filename
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
        cached = _texts[filename] = (lines, "".join(lines), _edited_since_start(filename))
    _, text, doubtful = cached
    if len(text) > MAX_SOURCE_CHARS or (doubtful and not _compiles_to(text, code)):
        return None
    return text


def register(filename: str, text: str) -> None:
    """Let `linecache` answer for `filename` with `text`, unless it does already."""
    lines = text.splitlines(keepends=True)
    if linecache.getlines(filename) == lines:  # the same file lies here: leave it to follow its edits
        return
    # No modification time: `linecache.checkcache` then never looks for a file, which may be another one here.
    linecache.cache[filename] = (len(text), None, lines, filename)


def _mtime(filename: str) -> float | None:
    entry = linecache.cache.get(filename)
    return entry[1] if entry is not None and len(entry) == 4 else None


def _edited_since_start(filename: str) -> bool:
    mtime = _mtime(filename)
    return mtime is not None and mtime >= _started


def _compiles_to(text: str, wanted: CodeType) -> bool:
    """Whether `text` still holds the very code: the slow check, for files edited while this process ran."""
    try:
        found = [compile(text, wanted.co_filename, "exec", dont_inherit=True)]
    except (SyntaxError, ValueError):
        return False
    while found:
        code = found.pop()
        if code == wanted:
            return True
        found += [const for const in code.co_consts if isinstance(const, CodeType)]
    return False
