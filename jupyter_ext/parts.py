"""What the extension gives a shell beside its magics: completion, the comment form, displays, the status line."""

from __future__ import annotations

from typing import Any

from . import completion, displays, transform
from .cards import Cards
from .front_end import is_kernel
from .reporter import NotebookReporter


class Parts:
    """All of them, for one shell.

    Args:
        shell: an IPython; a terminal's keeps the console's way of telling of calls.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._cards = Cards(shell)
        self._reporter = NotebookReporter(shell) if is_kernel(shell) else None

    def install(self) -> None:
        """Give them."""
        for part in (completion, transform, displays):
            part.install(self._shell)
        self._cards.install()
        if self._reporter is not None:
            self._reporter.install()

    def uninstall(self) -> None:
        """Take them back."""
        for part in (completion, transform, displays):
            part.uninstall(self._shell)
        self._cards.uninstall()
        if self._reporter is not None:
            self._reporter.uninstall()
