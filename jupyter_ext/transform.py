"""`# %%remote` as a cell's first line: the magic, written as a comment for editors that do not know it.

An editor takes a cell below an unknown cell magic for no Python: no completion, and its names count as undefined
everywhere else. A comment it leaves alone.
"""

from __future__ import annotations

import re
from typing import Any

MARK = (
    "#  %%remote"  # two spaces: the magic's own line in a cell that runs already, which is to stay a comment
)
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
    return f"{MARK} {line}".rstrip()


def install(shell: Any) -> None:
    """Have a shell know the comment."""
    if magic_of_comment not in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.insert(0, magic_of_comment)


def uninstall(shell: Any) -> None:
    """Have it forget the comment."""
    if magic_of_comment in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.remove(magic_of_comment)
