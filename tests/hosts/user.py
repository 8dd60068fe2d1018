"""Somebody at a shell, for tests of the command line about other hosts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SECONDS = 60.0

SCRIPT = """
    import os
    def fit(rate: float):
        print("fitting on", os.environ["HOME"], flush=True)
        return {"rate": rate}
    def fail():
        raise ValueError("unlucky")
"""


class User:
    """Somebody at a shell, with a home of their own, a project, and instance types."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="u-", dir=folder))  # short: sockets lie below
        self.work = self.folder / "work"
        self.work.mkdir()
        self.runtime = self.folder / "r"
        self.runtime.mkdir(mode=0o700)
        self.home = self.folder / "h"
        self.environ = {
            **environ,
            "REMOTE_EXEC_HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "PYTHONUNBUFFERED": "1",
        }
        self.write("train.py", SCRIPT)
        self.types: list[str] = []

    def write(self, name: str, text: str) -> None:
        path = self.work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(line.removeprefix("    ") for line in text.strip("\n").split("\n")) + "\n")

    def add(self, name: str, *, backend: str = "ssh", **settings: Any) -> None:
        """Configure an instance type."""
        self.types.append(name)
        with open(self.work / "pyproject.toml", "a") as file:
            file.write(f'[tool.remote_exec.instances.{name}]\nbackend = "{backend}"\n')
            file.writelines(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())

    def popen(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "remote_exec.cli", *arguments],
            cwd=self.work, env=self.environ, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def __call__(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        with self.popen(*arguments) as process:
            out, err = process.communicate(timeout=SECONDS)
        assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code).stdout)

    def host(self, name: str) -> dict[str, Any]:
        """Return what `hosts` tells of a host."""
        (found,) = [one for one in self.json("hosts") if one["host"] == name]
        return dict(found)

    def python(self, program: str) -> str:
        """Run a program of the user's, and return what it prints."""
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=self.work, env=self.environ, capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def sockets(self) -> list[str]:
        """Return the folders of connections to other hosts."""
        return [path.name for path in self.runtime.glob("remote_exec/h????????")]

    def close(self) -> None:
        """Remove what the user has on hosts, and the agent and all else here."""
        for name in self.types:
            with self.popen("hosts", "remove", name) as process:  # some were never reached
                process.communicate(timeout=SECONDS)
        self("hosts", "stop")
        shutil.rmtree(self.folder)
