"""Names in texts that IPython reads: the lines of shells, and magics with their bodies.

Some magics run Python, some hand their body to another program, a few go through the whole namespace. Of one that is
not known, all that could be a name counts as read.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from .names import OPAQUE, Names, words

_PYTHON = frozenset({
    "time", "timeit", "prun", "capture", "debug", "memit", "mprun", "lprun", "snakeviz", "pyinstrument", "scalene",
})  # fmt: skip
_OTHER_PROGRAM = frozenset({
    "bash", "sh", "script", "cmd", "perl", "ruby", "python", "python2", "python3", "pypy", "writefile", "file",
    "html", "HTML", "js", "javascript", "latex", "markdown", "svg", "SVG",
})  # fmt: skip
_WHOLE_NAMESPACE = frozenset({
    "who", "who_ls", "whos", "psearch", "reset", "reset_selective", "rerun", "macro", "edit", "ed", "paste", "cpaste",
})  # fmt: skip
_DOLLAR = re.compile(r"\$([^\W\d]\w*)")

AsCode = Callable[[str], "Names | None"]


def names_in_shell_line(text: str) -> Names:
    """Return the names that IPython puts into a shell's line: ``{expression}`` and ``$name``."""
    inside = text[text.find("{") : text.rfind("}")] if "{" in text else ""
    return Names(reads=words(inside).union(_DOLLAR.findall(text)))


def names_in_magic(name: str, line: str, body: str | None, as_code: AsCode) -> Names:
    """Return the names that a magic touches.

    Args:
        name: the magic's, without percent signs.
        line: what is written behind it.
        body: the lines below, of a cell's magic.
        as_code: tells the names of a text that is Python, or None if it is not.
    """
    if name in _WHOLE_NAMESPACE or (name == "run" and "-i" in line.split()):
        return OPAQUE
    said = Names(reads=words(line))
    if name in ("run", "pylab"):
        return said | Names(star=True)
    if name in _PYTHON and body is None:
        return _python_line(line, as_code)
    if body is None or name in _OTHER_PROGRAM:
        return said | Names(binds=words(line))  # as in `%%bash --out text`
    code = as_code(body) if name in _PYTHON else None
    return said | Names(binds=words(line)) | (code or Names(reads=words(body)))


def _python_line(line: str, as_code: AsCode) -> Names:
    """Return the names of code behind options: what looks like one is taken off until code is left."""
    left, options = line.strip(), ""
    while left:
        if (options or not left.startswith("-")) and (code := as_code(left)) is not None:
            return code | Names(reads=words(options))
        option, _, left = left.partition(" ")
        left = left.lstrip()
        options += f" {option}"
    return Names(reads=words(options))
