"""How a cell is told of where its job is looked at: a line of it, its text as the user has written it, its value."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..model.failure import Failure

CELL = "cell"  # the tag with its execution count
MOST_TITLE = 60
MOST_VALUE = 1000
_MAGIC = re.compile(r"#[ \t]*(?=%%)")


def as_written(source: str) -> str:
    """Return a cell's text with its magics, which stand in comments when it runs.

    Example:
        >>> as_written("#  %%remote gpu\\nfit()")
        '%%remote gpu\\nfit()'
    """
    lines = source.splitlines(keepends=True)
    for number, line in enumerate(lines):
        if not _MAGIC.match(line):
            break
        lines[number] = _MAGIC.sub("", line)
    return "".join(lines).rstrip()


def title_of(source: str, number: int) -> str:
    """Return a cell in one line: its execution count, and its first line that does something.

    Example:
        >>> title_of("#  %%remote gpu\\n\\n# train\\nfit()", 7)
        '[7] fit()'
    """
    lines = [line.strip() for line in source.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    first = lines[0] if lines else ""
    told = next((line for line in lines if not line.startswith(("import ", "from "))), first)
    return f"[{number}] {told if len(told) <= MOST_TITLE else told[: MOST_TITLE - 1] + '…'}".rstrip()


def in_cells(failure: Failure, numbers: Mapping[str, int]) -> Failure:
    """Return a failure whose frames name cells as people do.

    Args:
        failure: how a cell has ended.
        numbers: the files by which code of cells goes -> their execution counts.
    """
    frames = tuple(
        replace(frame, filename=f"Cell In[{numbers[frame.filename]}]") if frame.filename in numbers else frame
        for frame in failure.frames
    )
    return replace(
        failure,
        frames=frames,
        cause=in_cells(failure.cause, numbers) if failure.cause is not None else None,
        context=in_cells(failure.context, numbers) if failure.context is not None else None,
        members=tuple(in_cells(member, numbers) for member in failure.members),
    )


class _Plain(reprlib.Repr):
    """Shows numbers, texts and containers of them; of all else its class, so that no code of anybody's runs."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 4, 200, 100
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxfrozenset = self.maxdeque = 20

    def repr1(self, x: Any, level: int) -> str:
        if type(x) in _SHOWN:
            return super().repr1(x, level)
        return f"<{type(x).__qualname__}>"


_SHOWN = (bool, int, float, complex, str, bytes, type(None), list, tuple, dict, set, frozenset)
_plain = _Plain()


def value_in_words(value: object) -> dict[str, str]:
    """Return a value's type, and its text where it is plain data."""
    kind = type(value)
    text = _plain.repr(value)[:MOST_VALUE] if kind in _SHOWN else ""
    return {"type": f"{kind.__module__}.{kind.__qualname__}", "text": text}
