"""Folders that are this user's alone. Standard library."""

from __future__ import annotations

import os


def make_private_folder(folder: str | os.PathLike[str]) -> None:
    """Make a folder and those above it that are missing, all for this user alone; what is there stays as it is.

    `os.makedirs` and `Path.mkdir` would give their mode to the last one only.

    Raises:
        OSError: it cannot be made, or is no folder.
    """
    try:
        os.mkdir(folder, 0o700)
    except FileNotFoundError:
        above = os.path.dirname(os.path.abspath(folder))
        if os.path.isdir(above):  # the system does not have it
            raise
        make_private_folder(above)
        make_private_folder(folder)
    except OSError:
        if not os.path.isdir(folder):
            raise
