"""`# %%remote` as a cell's first line: the magic, written as a comment for editors that do not know it.

An editor takes a cell below an unknown cell magic for no Python: no completion, and its names count as undefined
everywhere else. A comment it leaves alone.
"""

from __future__ import annotations

import re
from typing import Any

COMMENT = "#  "  # two spaces: a magic's own line in a cell that runs already, which is to stay a comment
_SHOWN = re.compile(rf"^((?:\x1b\[[\d;]*m|[-> ])*\d+(?:\x1b\[[\d;]*m| )*){COMMENT}(?=%%)", re.MULTILINE)
_AS_COMMENT = re.compile(r"#[ \t]?%%remote(?![\w.])(?P<line>.*)")


def magic_of_comment(lines: list[str]) -> list[str]:
    """Turn a cell whose first line is the comment into one that begins with the magic; leave others as they are.

    An input transformer of IPython's, before all its own.

    Example:
        >>> magic_of_comment(["# %%remote gpu\\n", "x = 1\\n"])
        ['%%remote gpu\\n', 'x = 1\\n']
    """
    first = next((number for number, line in enumerate(lines) if line.strip()), None)
    if first is None:
        return lines
    found = _AS_COMMENT.match(lines[first])
    if found is None:
        return lines
    return [f"%%remote{found['line']}\n", *lines[first + 1 :]]


def as_comment(line: str) -> str:
    """Return the magic's line as a comment that stays one."""
    return f"{COMMENT}%%remote {line}".rstrip()


def as_typed(shown: str) -> str:
    """Return lines of a cell as they are shown, numbered and perhaps coloured, with such comments as the magics.

    Example:
        >>> as_typed("      1 #  %%remote gpu\\n----> 2 1 / 0")
        '      1 %%remote gpu\\n----> 2 1 / 0'
    """
    return _SHOWN.sub(r"\1", shown)


def install(shell: Any) -> None:
    """Have a shell know the comment."""
    if magic_of_comment not in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.insert(0, magic_of_comment)


def uninstall(shell: Any) -> None:
    """Have it forget the comment."""
    if magic_of_comment in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.remove(magic_of_comment)
