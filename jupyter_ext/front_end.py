"""Where the front end shows what is written and displayed: below the cell that it was asked to run by a message."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator
from typing import Any

MIME = "remote_exec"  # in the metadata of displays that are not the user's


def is_kernel(shell: Any) -> bool:
    """Whether a shell is a notebook's, with displays that can be drawn again."""
    return getattr(shell, "kernel", None) is not None


def displays_are_caught(shell: Any) -> bool:
    """Whether what is displayed goes elsewhere than to the front end, as below `%%capture`."""
    return not hasattr(shell.display_pub, "pub_socket")


def clear_output(shell: Any, wait: bool) -> None:
    """Clear the output of the cell that runs, as IPython does by itself."""
    publisher: object = shell.display_pub
    kind: Any = type(publisher)
    kind.clear_output(publisher, wait)


def header_of(shell: Any) -> dict[str, Any]:
    """Return the header of the front end's message that has led to what runs now."""
    return dict(getattr(shell.display_pub, "parent_header", None) or {})


@contextlib.contextmanager
def written_in(shell: Any, header: dict[str, Any]) -> Generator[None, None, None]:
    """Have what this thread prints and displays be a certain cell's, by the header of its message."""
    targets: list[Any] = [shell.display_pub, sys.stdout, sys.stderr]
    with contextlib.ExitStack() as stack:
        for target in targets:
            begin = getattr(target, "set_thread_parent", None)
            if begin is not None and header:
                stack.callback(target.reset_thread_parent, begin({"header": header}))
        yield
