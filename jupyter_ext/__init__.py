"""The notebook side: `%%remote` on a cell (``%load_ext jupyter_ext``), and the JupyterLab sidebar."""

from __future__ import annotations

import atexit
from typing import Any


def load_ipython_extension(shell: Any) -> None:
    """Called by ``%load_ext jupyter_ext``."""
    from .magics import RemoteMagics

    if shell.find_cell_magic("remote") is None:
        magics = RemoteMagics(shell)
        shell.register_magics(magics)
        atexit.register(magics.close)


def unload_ipython_extension(shell: Any) -> None:
    """Called by ``%unload_ext jupyter_ext``."""
    magics = shell.magics_manager.registry.get("RemoteMagics")
    if magics is not None:
        magics.close()
        shell.magics_manager.magics["cell"].pop("remote", None)
