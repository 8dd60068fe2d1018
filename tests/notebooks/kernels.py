"""Real kernels, spoken with as a notebook's front end does; cells are texts."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CELL_SECONDS = 60.0
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class CellRun:
    """What came of a cell, as its output area shows it at the end.

    Attributes:
        outputs: as nbformat has them, streams that follow each other in one.
        messages: all of the kernel's messages of this cell, as they came.
        reply: to its execution.
        seconds: from sending to the reply.
    """

    outputs: list[dict[str, Any]] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    reply: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    _clear_next: bool = False

    @property
    def stdout(self) -> str:
        return "".join(one["text"] for one in self.outputs if one.get("name") == "stdout")

    @property
    def stderr(self) -> str:
        return "".join(one["text"] for one in self.outputs if one.get("name") == "stderr")

    @property
    def lines(self) -> str:
        """All that the status line has ever said."""
        return "\n".join(
            message["content"]["data"]["text/plain"]
            for message in self.messages
            if "remote_exec" in message["content"].get("metadata", {})
        )

    @property
    def user_outputs(self) -> list[dict[str, Any]]:
        """Outputs but for the status line."""
        return [one for one in self.outputs if "remote_exec" not in one.get("metadata", {})]

    @property
    def displays(self) -> list[dict[str, Any]]:
        """MIME bundles of what was displayed, but for the status line."""
        return [one["data"] for one in self.user_outputs if one["output_type"] == "display_data"]

    @property
    def value(self) -> dict[str, Any]:
        """The last expression's MIME bundle."""
        found = [one["data"] for one in self.outputs if one["output_type"] == "execute_result"]
        assert len(found) <= 1
        return found[0] if found else {}

    def comms(self, kind: str) -> list[dict[str, Any]]:
        """Contents of messages of comms: "open", "msg" or "close"."""
        return [one["content"] for one in self.messages if one["header"]["msg_type"] == f"comm_{kind}"]

    @property
    def errors(self) -> list[dict[str, Any]]:
        return [one for one in self.outputs if one["output_type"] == "error"]

    @property
    def ename(self) -> str:
        return str(self.errors[0]["ename"]) if self.errors else ""

    @property
    def traceback(self) -> str:
        """The errors' tracebacks, without colours."""
        return _COLOURS.sub("", "\n".join(line for one in self.errors for line in one["traceback"]))

    def take(self, message: dict[str, Any], by_display_id: dict[str, list[dict[str, Any]]]) -> None:
        """Take in what the kernel publishes, as a front end does."""
        self.messages.append(message)
        kind, content = message["header"]["msg_type"], message["content"]
        if kind == "clear_output":
            self._clear_next = True
            if not content.get("wait"):
                self._clear()
            return
        if kind == "update_display_data":
            for shown in by_display_id.get(content["transient"]["display_id"], ()):
                shown.update(data=content["data"], metadata=content["metadata"])
            return
        if kind not in ("stream", "display_data", "execute_result", "error"):
            return
        self._clear()
        last = self.outputs[-1] if self.outputs else {}
        if kind == "stream" and last.get("name") == content["name"]:
            last["text"] += content["text"]
            return
        self.outputs.append({"output_type": kind, **content})
        if (display_id := content.get("transient", {}).get("display_id")) is not None:
            by_display_id.setdefault(display_id, []).append(self.outputs[-1])

    def _clear(self) -> None:
        if self._clear_next:
            self.outputs.clear()
            self._clear_next = False


class Notebook:
    """One kernel. Cells run one after the other; what is asked on stdin is answered from a list."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        import zmq
        from jupyter_client.kernelspec import KernelSpecManager
        from jupyter_client.manager import KernelManager

        self._context: Any = zmq.Context()
        specs = KernelSpecManager(ensure_native_kernel=True, kernel_dirs=[])
        self.manager = KernelManager(
            kernel_name="python3", kernel_spec_manager=specs, context=self._context, transport="ipc"
        )
        self.manager.ip = str(folder / "k")  # where its sockets are
        self.manager.connection_file = str(folder / "kernel.json")
        self.manager.start_kernel(cwd=str(folder), env={**os.environ, **environ})
        self.client: Any = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=CELL_SECONDS)
        self._displays: dict[str, list[dict[str, Any]]] = {}

    def run(
        self,
        source: str,
        *,
        answers: tuple[str | Callable[[], object], ...] = (),
        at: str = "",
        do: Callable[[], object] | None = None,
        fails: bool = False,
    ) -> CellRun:
        """Run a cell to its end.

        Args:
            source: of the cell.
            answers: to what it asks for by `input`, in order; what is called instead of answering.
            at: when the cell, or its status line, has said this, `do` is called, once.
            do: interrupts the kernel unless given.
            fails: whether it is to end in an error.
        """
        ran = CellRun()
        todo = [do or self.interrupt] if at else []
        waiting = list(answers)

        def publish(message: dict[str, Any]) -> None:
            ran.take(message, self._displays)
            if todo and at in ran.stdout + ran.stderr + ran.lines:
                todo.pop()()

        begun = time.monotonic()
        ran.reply = self.client.execute_interactive(
            source,
            timeout=CELL_SECONDS,
            allow_stdin=True,
            output_hook=publish,
            stdin_hook=lambda message: self._answer(message, ran, waiting),
        )["content"]
        ran.seconds = time.monotonic() - begun
        assert not waiting, f"nobody asked for {waiting}"
        assert (ran.reply["status"] != "ok") == fails, ran.traceback or ran.outputs
        return ran

    def _answer(self, message: dict[str, Any], ran: CellRun, waiting: list[Any]) -> None:
        ran.messages.append(message)
        answer = waiting.pop(0)
        if isinstance(answer, str):
            self.client.input(answer)
        else:
            answer()

    def value(self, expression: str) -> Any:
        """Return what an expression of literals comes to in the notebook."""
        reply = self.client.execute_interactive(
            "", silent=True, user_expressions={"it": f"repr(({expression}))"}, timeout=CELL_SECONDS
        )
        told = reply["content"]["user_expressions"]["it"]
        assert told["status"] == "ok", told
        return ast.literal_eval(ast.literal_eval(told["data"]["text/plain"]))

    def say(self, comm: str, data: dict[str, Any]) -> CellRun:
        """Say to a comm what a widget in the page would; return what the kernel publishes of it."""
        (ran,) = self.heard(self.send("comm_msg", {"comm_id": comm, "data": data}))
        return ran

    def send(self, kind: str, content: dict[str, Any], *, subshell: str = "") -> str:
        """Send a message to the kernel, or to a subshell of it; return its id."""
        message = self.client.session.msg(kind, content)
        if subshell:
            message["header"]["subshell_id"] = subshell
        self.client.shell_channel.send(message)
        return str(message["header"]["msg_id"])

    def execute(self, source: str, *, subshell: str = "") -> str:
        """Have a cell run, and do not wait for it; return its message's id."""
        content = {"code": source, "silent": False, "store_history": False, "allow_stdin": False}
        return self.send("execute_request", content, subshell=subshell)

    def heard(self, *messages: str, until: Callable[[CellRun], bool] | None = None) -> list[CellRun]:
        """Return what the kernel publishes of messages.

        Args:
            messages: their ids.
            until: has come of the first; else until the kernel is done with all.
        """
        runs = {message: CellRun() for message in messages}
        busy = set(messages)
        while busy:
            told = self.client.get_iopub_msg(timeout=CELL_SECONDS)
            message = told["parent_header"].get("msg_id")
            if message in runs:
                runs[message].take(told, self._displays)
                if told["content"].get("execution_state") == "idle":
                    busy.discard(message)
                if until is not None and until(runs[messages[0]]):
                    break
        return list(runs.values())

    def subshell(self) -> str:
        """Begin a subshell of the kernel; return its id."""
        self.client.control_channel.send(self.client.session.msg("create_subshell_request", {}))
        reply = self.client.control_channel.get_msg(timeout=CELL_SECONDS)
        return str(reply["content"]["subshell_id"])

    def interrupt(self) -> None:
        """Press the stop button. By the manager, that would leave an event loop in a thread."""
        self.manager.provisioner.process.send_signal(signal.SIGINT)

    def restart(self) -> None:
        """Restart the kernel."""
        self.manager.restart_kernel(now=False)
        self.client.wait_for_ready(timeout=CELL_SECONDS)

    def close(self) -> None:
        """Shut the kernel down."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=False)
        self.manager.cleanup_resources()
        self._context.term()


@contextlib.contextmanager
def opened(folder: Path, *, started: bool = True) -> Iterator[Notebook]:
    """Start a kernel with the extension loaded.

    Args:
        folder: its own.
        started: whether its remote session has begun.
    """
    notebook = Notebook(
        folder, {"IPYTHONDIR": str(folder / "ipython"), "PYTHONPATH": os.pathsep.join(sys.path[1:])}
    )
    try:
        notebook.run("%load_ext jupyter_ext")
        if started:
            notebook.run("%%remote\npass")
        yield notebook
    finally:
        notebook.close()
