"""The notebook that this process is the kernel of, which its calls and jobs are listed under."""

from __future__ import annotations

import os
import sys

from ..options import Options

NOTEBOOK = "notebook"  # the tag


def notebook_path() -> str:
    """Return the notebook's file, as its server or editor says; empty where this is no notebook's kernel."""
    if "ipykernel" not in sys.modules:
        return ""
    main = vars(sys.modules["__main__"])
    return os.environ.get("JPY_SESSION_NAME", "") or str(main.get("__vsc_ipynb_file__", ""))


def of_notebook(name: str) -> str:
    """Return what a function is called in lists of other things than calls: by its notebook, too, if it has one."""
    notebook = os.path.basename(notebook_path())
    return f"{name} ({notebook})" if notebook else name


def tags_of(options: Options) -> list[list[str]]:
    """Return the tags of what is called or submitted here: those that it was given, and its notebook."""
    tags = [list(tag) for tag in options.tags]
    path = notebook_path()
    if path and all(name != NOTEBOOK for name, _ in tags):
        tags.append([NOTEBOOK, path])
    return tags
