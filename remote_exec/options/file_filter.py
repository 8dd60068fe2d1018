"""Names to leave out of the working directory, as SageMaker's class of that name has them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import field

from ..model.record import record


@record(kw_only=True)
class CustomFileFilter:
    """Names to leave out of the working directory: shell patterns for the names of files and folders.

    Args:
        ignore_name_patterns: shell patterns such as ``"*.csv"``.
        workdir: the folder to take instead of the current one.

    Example:
        >>> CustomFileFilter(ignore_name_patterns=["*.csv"])("/project", ["a.py", "b.csv"])
        {'b.csv'}
    """

    ignore_name_patterns: Sequence[str] = ()
    workdir: str | os.PathLike[str] = field(default_factory=os.getcwd)

    def __call__(self, folder: str, names: list[str]) -> set[str]:
        """The ignored ones among `names`, as ``shutil.copytree`` asks it."""
        import fnmatch

        return {name for pattern in self.ignore_name_patterns for name in fnmatch.filter(names, pattern)}
