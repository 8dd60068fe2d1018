"""The server extension: what it adds to a Jupyter server, and its settings."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jupyter_core.paths import jupyter_path
from jupyter_server.extension.application import ExtensionApp
from traitlets import Float

from . import handlers
from .agents import Agents
from .answers import Answers
from .page import Pulse

THREADS = 16  # that wait for agents
PART = r"([^/]+)"
SIDEBAR = "remote-exec/package.json"
NO_SIDEBAR = (
    "The sidebar of remote_exec is not installed: this copy was built without Node.js. %%remote works without it. "
    "To have it, install a released wheel, or build again with Node.js 20.19 or newer and npm on the PATH: "
    "pip install --force-reinstall --no-deps FOLDER"
)


class RemoteExecExtension(ExtensionApp):
    """Shows the jobs, hosts and pools of the user's agents to the panel."""

    name = "jupyter_ext"
    description = "The jobs, hosts and pools of remote_exec."
    extension_url = "/jupyter_ext/status"
    load_other_extensions = True

    keep_seconds = Float(3600.0, help='How long "keep warm" keeps workers, in seconds.').tag(config=True)

    def initialize_settings(self) -> None:
        """Say so if only this part is there: a build without Node.js leaves the sidebar out."""
        if not any(Path(path, SIDEBAR).is_file() for path in jupyter_path("labextensions")):
            self.log.warning(NO_SIDEBAR)

    def initialize_handlers(self) -> None:
        """Add what the panel asks for."""
        self.pulse = Pulse()
        self.executor = ThreadPoolExecutor(THREADS, thread_name_prefix="jupyter_ext")
        self.agents = Agents(self.pulse.beat)
        answers = Answers(self.agents)
        given: dict[str, Any] = {
            "answers": answers,
            "threads": self._in_thread,
            "keep_seconds": self.keep_seconds,
        }
        paths: list[tuple[str, type[handlers.Handler]]] = [
            ("jobs", handlers.JobsHandler),
            (f"jobs/{PART}", handlers.JobHandler),
            (f"jobs/{PART}/logs", handlers.LogsHandler),
            (f"jobs/{PART}/cancel", handlers.CancelHandler),
            ("cancel-all", handlers.CancelAllHandler),
            (f"jobs/{PART}/rerun", handlers.RerunHandler),
            (f"jobs/{PART}/shell", handlers.ShellHandler),
            ("hosts", handlers.HostsHandler),
            (f"pools/{PART}/keep", handlers.KeepHandler),
            (f"pools/{PART}/release", handlers.ReleaseHandler),
            ("instance-types", handlers.InstanceTypesHandler),
            ("status", handlers.StatusHandler),
        ]
        self.handlers.extend((f"/jupyter_ext/{path}", handler, given) for path, handler in paths)
        listens = {"answers": answers, "threads": self._in_thread, "pulse": self.pulse}
        self.handlers.append(("/jupyter_ext/changes", handlers.ChangesHandler, listens))

    async def _in_thread(self, work: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.executor, work, *arguments)

    async def stop_extension(self) -> None:
        """The server ends."""
        await self._in_thread(self.agents.close)
        self.executor.shutdown(wait=False, cancel_futures=True)
