"""What a remote cell raised is shown as if it had been raised in the cell: its own frames, and none of what ran it.

IPython shows whatever reaches it with all frames between. So its `showtraceback` is given the frames that count, and
sets them, too, as those that `%debug` opens.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from remote_exec.session import kept
from remote_exec.session.far_end import without_ours

_FRAMES = "_remote_exec_frames"


def frames_are(error: BaseException, frames: TracebackType | None) -> BaseException:
    """Have an error shown with these frames alone; with none: its name and its message."""
    BaseException.__setattr__(error, _FRAMES, (frames,))
    return error


def install(shell: Any) -> None:
    """Have this IPython show them so."""
    shown = shell.showtraceback

    def showtraceback(exc_tuple: Any = None, *args: Any, **keywords: Any) -> None:
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
            keywords.update(tb_offset=0, running_compiled_code=False)
            shown(told, *args, **keywords)
        else:
            shell._get_exc_info(told)
            shell._showtraceback(*told[:2], shell.InteractiveTB.get_exception_only(*told[:2]))

    shell.showtraceback = showtraceback


def _is_refusal(error: BaseException) -> bool:
    """Whether something was done with what stands for an object elsewhere, which says so."""
    entry = error.__traceback__
    while entry is not None and entry.tb_next is not None:
        entry = entry.tb_next
    return entry is not None and entry.tb_frame.f_code.co_filename == kept.__file__


def uninstall(shell: Any) -> None:
    """Undo `install`."""
    if "showtraceback" in vars(shell):
        del shell.showtraceback
