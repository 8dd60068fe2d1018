"""Answers to what clients ask before they have an environment built: what this host is, and what it lacks for that.

Each looks at files and runs programs, so it is answered from a thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..model.errors import RemoteExecError
from ..wire.messages import to_plain
from ..worker.blobs import BlobMissing
from . import interpreters, tools
from .platforms import this_platform
from .provision import in_one_folder

if TYPE_CHECKING:
    from .service import Agent

Send = Callable[..., None]


def tell_platform(agent: Agent, arguments: dict[str, Any], send: Send) -> None:
    """Tell which platform this is; and which Pythons there are, if `pythons` is true."""
    wanted = bool(arguments.get("pythons"))

    def look() -> dict[str, Any]:
        pythons = interpreters.versions(in_one_folder(agent.layout, os.environ)) if wanted else []
        return {"platform": to_plain(this_platform()), "pythons": pythons}

    _in_thread(agent, look, send, {"platform": None, "pythons": []})


def tell_tools(agent: Agent, arguments: dict[str, Any], send: Send) -> None:
    """Tell the platform, where uv lies ("" for nowhere), and whether there is a Python of the version `python`."""
    version = str(arguments.get("python", ""))

    def look() -> dict[str, Any]:
        environ = in_one_folder(agent.layout, os.environ)
        uv = tools.find_uv(agent.layout.tools, environ)
        return {
            "platform": to_plain(this_platform()),
            "uv": str(uv.path) if uv else "",
            "python": bool(version and interpreters.find(version, environ)),
        }

    _in_thread(agent, look, send, {"platform": None, "uv": "", "python": False})


def install_tool(agent: Agent, arguments: dict[str, Any], send: Send) -> None:
    """Keep the uv whose bytes were sent as the blob `digest`; with none, have pip bring it. Tells its path.

    Raises:
        ValueError: it is another tool.
    """
    name, version, digest = (str(arguments[key]) for key in ("name", "version", "digest"))
    if name != "uv":
        raise ValueError(f"this agent takes in no {name}")
    folder = agent.layout.tools

    def link(path: Path) -> None:
        agent.blobs.link_to(digest, path, executable=True)

    def bring() -> dict[str, Any]:
        try:
            if digest:
                return {"path": str(tools.take_in(folder, version, digest, link))}
            return {"path": str(tools.install(folder, os.environ))}
        except RemoteExecError as error:
            return {"path": "", "reason": error.message}
        except (BlobMissing, ValueError, OSError) as error:
            return {"path": "", "reason": str(error)}

    _in_thread(agent, bring, send, {"path": ""})


def _in_thread(agent: Agent, work: Callable[[], Any], send: Send, otherwise: dict[str, Any]) -> None:
    """Send what a thread finds out; where it fails, why."""
    agent.reactor.in_thread(
        work, lambda told, error: send(told if error is None else {**otherwise, "reason": str(error)})
    )
