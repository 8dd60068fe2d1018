"""The notebook side: `%%remote` on a cell (``%load_ext jupyter_ext``), and the JupyterLab sidebar."""

from __future__ import annotations

import atexit
from typing import Any


def load_ipython_extension(shell: Any) -> None:
    """Called by ``%load_ext jupyter_ext``."""
    from . import tracebacks
    from .magics import RemoteMagics
    from .parts import Parts

    if shell.find_cell_magic("remote") is None:
        magics = RemoteMagics(shell)
        shell.register_magics(magics)
        shell.events.register("post_run_cell", magics.cell_ended)
        tracebacks.install(shell)
        magics.parts = Parts(shell)
        magics.parts.install()
        atexit.register(magics.close)


def unload_ipython_extension(shell: Any) -> None:
    """Called by ``%unload_ext jupyter_ext``."""
    from . import tracebacks

    magics = shell.magics_manager.registry.get("RemoteMagics")
    if magics is not None:
        magics.close()
        atexit.unregister(magics.close)
        shell.events.unregister("post_run_cell", magics.cell_ended)
        tracebacks.uninstall(shell)
        magics.parts.uninstall()
        for kind in ("cell", "line"):
            shell.magics_manager.magics[kind].pop("remote", None)


def _jupyter_server_extension_points() -> list[dict[str, Any]]:  # pyright: ignore[reportUnusedFunction]
    """Called by Jupyter servers, which have this enabled by ``jupyter-config/server-config``."""
    from .server.app import RemoteExecExtension

    return [{"module": "jupyter_ext", "app": RemoteExecExtension}]
