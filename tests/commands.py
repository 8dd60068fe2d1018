"""``remote-exec`` in a process of its own, which uses the test's own agent."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

SECONDS = 60.0


def run_command(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run it to its end, which is to be a good one."""
    done = subprocess.run(
        [sys.executable, "-m", "remote_exec.cli", *arguments],
        input=stdin, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def command(*arguments: str, stdin: str = "") -> str:
    """Return what it prints."""
    return run_command(*arguments, stdin=stdin).stdout


def told_of(job: str) -> Any:
    """Return everything that it tells of a job."""
    return json.loads(command("jobs", job, "--json"))
