"""How a cell is told of where its job is looked at: a line of it, its text as the user has written it, its value."""

from __future__ import annotations

import itertools
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..model.failure import Failure, Frame

CELL = "cell"  # the tag with its execution count
CELL_NAME = "cell_name"  # the tag with the name that it was given
MOST_TITLE = 60
MOST_VALUE = 1000
_MAGIC = re.compile(r"#[ \t]*(?=%%)")
_OF_IPYTHON = re.compile(r"[/\\]IPython[/\\]")


def as_written(source: str) -> str:
    """Return a cell's text with its magics, which stand in comments when it runs.

    Example:
        >>> as_written("#  %%remote gpu\\nfit()")
        '%%remote gpu\\nfit()'
    """
    return "".join(lines_as_written(source.splitlines(keepends=True))).rstrip()


def lines_as_written(lines: Sequence[str]) -> list[str]:
    """Return a cell's first lines, or all, with its magics as magics."""
    magics = itertools.takewhile(_MAGIC.match, lines)
    written = [_MAGIC.sub("", line) for line in magics]
    return [*written, *lines[len(written) :]]


def tags_of(number: int, name: str) -> tuple[tuple[str, str], ...]:
    """Return the tags of a cell, by its execution count and the name that it was given, if any."""
    return ((CELL, str(number)), *(((CELL_NAME, name),) if name else ()))


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

    def named(frame: Frame) -> Frame:
        number = numbers.get(frame.filename)
        return frame if number is None else _in_cell(frame, number)

    return _with_frames(failure, lambda frames: tuple(map(named, frames)))


def outside_of_ipython(failure: Failure) -> Failure:
    """Return a failure without the frames of IPython's own, which it shows of no error."""
    return _with_frames(
        failure, lambda frames: tuple(frame for frame in frames if not _OF_IPYTHON.search(frame.filename))
    )


def _with_frames(failure: Failure, change: Callable[[tuple[Frame, ...]], tuple[Frame, ...]]) -> Failure:
    return replace(
        failure,
        frames=change(failure.frames),
        cause=_with_frames(failure.cause, change) if failure.cause is not None else None,
        context=_with_frames(failure.context, change) if failure.context is not None else None,
        members=tuple(_with_frames(member, change) for member in failure.members),
    )


def _in_cell(frame: Frame, number: int) -> Frame:
    source = frame.source
    if frame.source_start == 1:
        source = "".join(lines_as_written(source.splitlines(keepends=True)))
    return replace(frame, filename=f"Cell In[{number}]", source=source)


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
