"""One notebook, run by whatever runs notebooks: its remote cells give the same everywhere."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kernels import Notebook

SECONDS = 120.0
TOKEN = "a-token-of-the-tests"  # noqa: S105
CELLS = (
    "n = 3",
    "%load_ext jupyter_ext\nimport beside\nseen = [n]",
    "# %%remote\nimport os\nthere = os.getpid()\nseen.append(beside.double(n))\nprint('printed there')\nsum(seen)",
    "import os\nprint('seen', seen, there != os.getpid())",
    "%%remote\ndisplay({'text/plain': 'displayed there'}, raw=True)\nseen * 1000;",
    "%%remote\n1 / 0",
)


def terminal(folder: Path) -> str:
    """IPython in a terminal."""
    return ran(folder, "ipython", "--no-banner", "--colors=NoColor", "it.ipynb")


def nbconvert(folder: Path) -> str:
    """What makes pages and papers of notebooks."""
    return ran(
        folder, "jupyter-nbconvert", "--execute", "--allow-errors", "--to=markdown", "--stdout", "it.ipynb"
    )


def papermill(folder: Path) -> str:
    """What runs notebooks with parameters."""
    return ran(folder, "papermill", "--log-output", "--no-progress-bar", "it.ipynb", "-")


def notebook7(folder: Path) -> str:
    """The kernel of a notebook that is open in Jupyter Notebook, spoken with as its page does."""
    program = found("jupyter-notebook")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [
                program, "--no-browser", "--allow-root", f"--ServerApp.port={port}", "--ServerApp.ip=127.0.0.1",
                "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}",
            ],
            cwd=folder,
            env=environ(folder),
            stdout=log,
            stderr=log,
        )  # fmt: skip
    try:
        return opened_in_a_page(f"127.0.0.1:{port}", server)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(SECONDS)


def opened_in_a_page(address: str, server: subprocess.Popen[bytes]) -> str:
    """Open the notebook, run its cells, and return what the kernel has published."""
    import websocket

    deadline = time.monotonic() + SECONDS
    while not answers(f"http://{address}/api/status"):
        assert server.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    session = asked(
        f"http://{address}/api/sessions",
        {"path": "it.ipynb", "name": "it.ipynb", "type": "notebook", "kernel": {"name": "python3"}},
    )
    channels = f"ws://{address}/api/kernels/{session['kernel']['id']}/channels?token={TOKEN}"
    page = websocket.create_connection(channels, timeout=SECONDS)
    told: list[Any] = []
    try:
        for cell in CELLS:
            number = uuid.uuid4().hex
            header = {
                "msg_id": number,
                "msg_type": "execute_request",
                "username": "",
                "session": "page",
                "version": "5.3",
            }
            page.send(
                json.dumps(
                    {
                        "header": header,
                        "parent_header": {},
                        "metadata": {},
                        "content": {"code": cell, "silent": False, "stop_on_error": False},
                        "channel": "shell",
                    }
                )
            )
            ended = False
            while not ended:
                message = json.loads(page.recv())
                ours = message["parent_header"].get("msg_id") == number
                if ours and message["channel"] == "iopub":
                    told.append(message["content"])
                    ended = message["content"].get("execution_state") == "idle"
    finally:
        page.close()
    return json.dumps(told)


# What VS Code's Jupyter extension has a kernel run, silently, before the first cell and behind each one.
AT_FIRST = """
%cd {folder}
__vsc_ipynb_file__ = {notebook!r}
import os as _VSCODE_os, sys as _VSCODE_sys, builtins as _VSCODE_builtins
%config InlineBackend.figure_formats = {{'svg', 'png'}}
"""
BEHIND = """
def _VSCODE_getVariables():
    return [(name, type(value).__name__) for name, value in globals().items() if not name.startswith('_')]
print(_VSCODE_getVariables())
del _VSCODE_getVariables
"""


def vs_code(folder: Path) -> str:
    """The kernel of a notebook that is open in VS Code, spoken with as its Jupyter extension does."""
    notebook = Notebook(folder, {**environ(folder), "JPY_SESSION_NAME": ""})
    told: list[Any] = []

    def run(code: str, **how: bool) -> None:
        notebook.client.execute_interactive(
            code,
            timeout=SECONDS,
            stop_on_error=False,
            output_hook=lambda one: told.append(one["content"]),
            **how,
        )

    try:
        run(
            AT_FIRST.format(folder=folder, notebook=str(folder / "it.ipynb")),
            silent=True,
            store_history=False,
        )
        for cell in CELLS:
            run(cell)
            run(BEHIND, silent=True, store_history=False)
        run("%remote jobs")
        assert "it-" in json.dumps(told[-3:]), "its jobs are called by the notebook that VS Code has told of"
    finally:
        notebook.close()
    return json.dumps(told)


def answers(url: str) -> bool:
    """Whether a server does."""
    try:
        asked(url)
    except OSError:
        return False
    return True


def asked(url: str, body: object = None) -> Any:
    """Ask a server."""
    request = urllib.request.Request(
        url,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"token {TOKEN}"},
    )
    with urllib.request.urlopen(request, timeout=SECONDS) as reply:
        return json.loads(reply.read())


def ran(folder: Path, program: str, *words: str) -> str:
    """Run a program on the notebook; return all that it says."""
    done = subprocess.run(
        [found(program), *words],
        cwd=folder,
        env=environ(folder),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return done.stdout + done.stderr


def found(program: str) -> Path:
    """Return where a program is."""
    path = Path(sys.executable).with_name(program)
    if not path.exists():
        pytest.skip(f"NOT TO BE HAD HERE: {program}")
    return path


def environ(folder: Path) -> dict[str, str]:
    """Return variables by which programs find this package, and write nothing outside of the folder."""
    written = {
        "IPYTHONDIR": "i",
        "JUPYTER_DATA_DIR": "d",
        "JUPYTER_CONFIG_DIR": "c",
        "JUPYTER_RUNTIME_DIR": "r",
    }
    return {
        **os.environ,
        **{name: str(folder / place) for name, place in written.items()},
        "PYTHONPATH": os.pathsep.join(sys.path[1:]),
    }


@pytest.mark.parametrize(
    "run",
    [
        terminal,
        nbconvert,
        papermill,
        vs_code,
        pytest.param(
            notebook7,
            marks=pytest.mark.skipif(
                importlib.util.find_spec("websocket") is None, reason="NOT TO BE HAD HERE: websocket-client"
            ),
        ),
    ],
    ids=lambda one: one.__name__,
)
def test_a_notebook_runs_in(run: Callable[[Path], str], clients_loop: None, tmp_path: Path) -> None:
    (tmp_path / "it.ipynb").write_text(json.dumps(notebook_of(CELLS)))
    (tmp_path / "beside.py").write_text("def double(n): return 2 * n\n")
    told = run(tmp_path)
    assert "seen [3, 6] True" in told, told
    assert "printed there" in told
    assert "displayed there" in told
    assert "ZeroDivisionError" in told
    assert "jupyter_ext/" not in told
    assert "[3, 6, 3" not in told


def notebook_of(cells: tuple[str, ...]) -> dict[str, object]:
    """Return a notebook's file."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {
        "cells": [
            {
                "cell_type": "code",
                "id": f"cell-{number}",
                "execution_count": None,
                "metadata": {"tags": ["parameters"]} if not number else {},
                "outputs": [],
                "source": source,
            }
            for number, source in enumerate(cells)
        ],
        "metadata": {"kernelspec": kernel},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
