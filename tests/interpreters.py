"""Other Pythons of this machine, for what must work between two minors."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import uv

ENVIRON = dict(os.environ)  # as the session found it: its home, which these lie in, is soon another
PYENV = Path(ENVIRON.get("PYENV_ROOT") or Path.home() / ".pyenv")
SAY = "import sys; print(sys.implementation.name, *sys.version_info[:2], sys.executable)"


def python_of(*minors: int) -> tuple[int, Path]:
    """Return the first of these minors that is here, and its executable; skip without one."""
    for minor in minors:
        if found := _find(minor):
            return minor, found
    names = " or ".join(f"3.{minor}" for minor in minors)
    pytest.skip(f"THERE IS NO CPYTHON {names} HERE; install it, with pyenv for instance")


@functools.cache
def _find(minor: int) -> Path | None:
    for path in _candidates(minor):
        if os.access(path, os.X_OK):
            done = subprocess.run([path, "-I", "-c", SAY], capture_output=True, text=True, check=False)
            *version, executable = done.stdout.strip().split(" ", 3) if done.returncode == 0 else ("",)
            if version == ["cpython", "3", str(minor)]:  # pyenv's shims fail, or are of another version
                return Path(executable)
    return None


def _candidates(minor: int) -> Iterator[Path]:
    yield from sorted(PYENV.glob(f"versions/3.{minor}.*/bin/python"))
    for folder in os.get_exec_path(ENVIRON):
        yield Path(folder, f"python3.{minor}")
    command = [uv.find_uv_bin(), "python", "find", "--python-preference", "only-managed", f"3.{minor}"]
    done = subprocess.run(command, env=ENVIRON, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        yield Path(done.stdout.strip())
