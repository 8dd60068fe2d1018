"""What a remote cell raised is shown as if it had been raised in the cell: its own frames, and none of what ran it.

IPython shows whatever reaches it with all frames between. So its `showtraceback` is given the frames that count, and
sets them, too, as those that `%debug` opens.
"""

from __future__ import annotations

import contextlib
import linecache
import sys
from collections.abc import Generator
from types import TracebackType
from typing import Any

from remote_exec.session import kept
from remote_exec.session.cell_text import lines_as_written
from remote_exec.session.far_end import without_ours

from .transform import COMMENT, as_typed

_FRAMES = "_remote_exec_frames"


def frames_are(error: BaseException, frames: TracebackType | None) -> BaseException:
    """Have an error shown with these frames alone; with none: its name and its message."""
    BaseException.__setattr__(error, _FRAMES, (frames,))
    return error


def install(shell: Any) -> None:
    """Have this IPython show them so."""
    shown, written, debugger = shell.showtraceback, shell._showtraceback, shell.debugger

    def showtraceback(exc_tuple: Any = None, *args: Any, **keywords: Any) -> None:
        __tracebackhide__ = True
        error: Any = exc_tuple[1] if exc_tuple else sys.exc_info()[1]
        ours: Any = getattr(error, _FRAMES, None)
        if ours is None:
            if error is not None and _is_refusal(error):
                without_ours(error)
            shown(exc_tuple, *args, **keywords)
            return
        BaseException.__setattr__(error, "__traceback__", ours[0])
        told: Any = (type(error), error, ours[0])
        if isinstance(error, SyntaxError) or ours[0] is not None:
            keywords.update(tb_offset=0, running_compiled_code=ours[0] is not None)
            shown(told, *args, **keywords)
        else:
            shell._get_exc_info(told)
            shell._showtraceback(*told[:2], shell.InteractiveTB.get_exception_only(*told[:2]))

    def _showtraceback(cls: Any, error: Any, lines: Any) -> None:
        __tracebackhide__ = True
        written(cls, error, [as_typed(line) for line in lines])

    def open_debugger(*args: Any, **keywords: Any) -> None:
        with _as_typed_in_files():
            debugger(*args, **keywords)

    shell.showtraceback, shell._showtraceback, shell.debugger = showtraceback, _showtraceback, open_debugger


@contextlib.contextmanager
def _as_typed_in_files() -> Generator[None, None, None]:
    """Have cells' sources begin with their magics meanwhile: to whoever analyses them, they would be no Python."""
    before: dict[str, Any] = {}
    for name, entry in list(linecache.cache.items()):
        if len(entry) == 4 and entry[2] and entry[2][0].startswith(f"{COMMENT}%%"):
            before[name] = entry
            linecache.cache[name] = (*entry[:2], lines_as_written(entry[2]), entry[3])
    try:
        yield
    finally:
        linecache.cache.update(before)


def _is_refusal(error: BaseException) -> bool:
    """Whether something was done with what stands for an object elsewhere, which says so."""
    entry = error.__traceback__
    while entry is not None and entry.tb_next is not None:
        entry = entry.tb_next
    return entry is not None and entry.tb_frame.f_code.co_filename == kept.__file__


def uninstall(shell: Any) -> None:
    """Undo `install`."""
    for name in ("showtraceback", "_showtraceback", "debugger"):
        if name in vars(shell):
            delattr(shell, name)
