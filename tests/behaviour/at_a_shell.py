"""Somebody at a shell, for tests of the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

from remote_exec.backends.host import Host

SECONDS = 60
Run = subprocess.CompletedProcess[str]

SCRIPT = """
    import sys
    import helper

    class Model:
        def fit(self, rate, *, epochs=1):
            return [rate, epochs]

    def fit(rate, *, epochs=1):
        print(helper.greet(rate))
        return {"rate": rate, "epochs": epochs}

    def count(n):
        yield from range(n)

    def fail(x):
        half, password = x / 2, "hunter2"
        raise ValueError(f"no luck with {x}")

    if __name__ == "__main__":
        print(helper.greet(sys.argv[1]), *sys.argv[2:])
        print("to stderr", file=sys.stderr)
        if sys.argv[1] == "seven":
            sys.exit(7)
        if sys.argv[1] == "fail":
            fail(1)
        if sys.argv[1] == "wait":
            sys.stdout.flush()
            __import__("time").sleep(600)
"""


class User:
    """Somebody at a shell, with a home and a folder of their own.

    Args:
        folder: for both.
        host: where their calls go, as the configuration has it; None for this machine.
    """

    def __init__(self, folder: Path, host: Host | None = None) -> None:
        self.on = () if host is None or host.here else ("--on", host.name)
        self.home, self.work = folder / "home", folder / "work"
        self.work.mkdir()
        self.environ = {
            **os.environ,
            "REMOTE_EXEC_HOME": str(self.home),
            "REMOTE_EXEC_AGENT_IDLE_SECONDS": "30",
            "PYTHONUNBUFFERED": "1",
        }
        self.write("train.py", SCRIPT)
        self.write("helper.py", 'def greet(name):\n    return f"hello {name}"\n')

    def write(self, name: str, text: str) -> None:
        (self.work / name).write_text(textwrap.dedent(text))

    def popen(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "remote_exec.cli", *arguments]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
        return subprocess.Popen(
            command, cwd=self.work, env={**self.environ, **options.pop("env", {})}, **options
        )

    def __call__(self, *arguments: str, code: int = 0, **options: Any) -> Run:
        typed = options.pop("typed", None)
        if typed is not None:
            options["stdin"] = subprocess.PIPE
        with self.popen(*arguments, **options) as process:
            out, err = process.communicate(typed, timeout=SECONDS)
        assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
        return Run(arguments, process.returncode, out, err)

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code).stdout)

    def sees(self, *arguments: str, says: str) -> None:
        """Look until something is said: calls are recorded a moment after they have ended."""
        deadline = time.monotonic() + SECONDS
        while says not in (shown := self(*arguments).stdout):
            assert time.monotonic() < deadline, shown
