"""What somebody has who has installed the wheel: an environment, and a home of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from homes import FOLDERS

ROOT = Path(__file__).parents[2]
WHEEL = os.environ.get("TESTS_WHEEL", "")  # one that has been built already, as `.ci/run` has
SIDEBAR = "share/jupyter/labextensions/remote-exec/package.json"
UV = (sys.executable, "-m", "uv")
INSTALL_SECONDS = 300.0


def wheel(folder: Path) -> Path:
    """Return this project's wheel, with the sidebar in it.

    Args:
        folder: for the wheel, where it is built.
    """
    if WHEEL:
        return Path(WHEEL)
    done = _run(*UV, "build", "--wheel", "--out-dir", str(folder), str(ROOT))
    (built,) = folder.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        if not any(name.endswith(SIDEBAR) for name in archive.namelist()):
            pytest.skip(f"the sidebar cannot be built here: {done}")
    return built


def environment(folder: Path, requirements: Sequence[str]) -> Path:
    """Make an environment, install into it, and return its Python."""
    python = folder / "bin" / "python"
    _run(*UV, "venv", "--quiet", "--python", sys.executable, str(folder))
    _run(*UV, "pip", "install", "--quiet", "--python", str(python), *requirements)
    return python


def home(folder: Path, python: Path) -> Mapping[str, str]:
    """Make a home, and return the environment variables of a login with the environment activated."""
    variables = {**FOLDERS, "REMOTE_EXEC_HOME": "jobs"}
    for name in variables.values():
        (folder / name).mkdir(mode=0o700)
    given = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "PYTHON"))}
    places = {variable: str(folder / name) for variable, name in variables.items()}
    return {**given, **places, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr
