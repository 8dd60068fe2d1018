"""A wheel that is built where there is no Node.js: it has all but the sidebar, and the server says so."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from servers import served

ROOT = Path(__file__).parents[2]
PARTS = ("pyproject.toml", "README.md", "remote_exec", "jupyter_ext")
NOT_SOURCES = shutil.ignore_patterns("node_modules", "labextension_built", "lib", "__pycache__")
SECONDS = 120.0
WARNING = "The sidebar of remote_exec is not installed"


@pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="missing: hatchling")
def test_wheel_built_without_node_has_no_sidebar_and_the_server_says_so_once(tmp_path: Path) -> None:
    source, made = tmp_path / "source", tmp_path / "made"
    source.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part, ignore=NOT_SOURCES)
        else:
            shutil.copy(ROOT / part, source)
    built = pip("wheel", "--verbose", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(source))
    assert "The JupyterLab sidebar is left out of this build: building it takes node and npm" in built
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith("jupyter_server_config.d/jupyter_ext.json") for name in names)
    assert not any("labextension" in name for name in names)
    pip("install", "--target", str(made), str(wheel))

    # an environment of its own, since this one may have a sidebar
    environment = tmp_path / "environment"
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "found.pth").write_text("\n".join([str(made), *filter(os.path.isdir, sys.path)]) + "\n")
    with served(tmp_path / "without", python=python):
        pass
    assert (tmp_path / "without" / "log").read_text().count(WARNING) == 1
    sidebar = environment / "share" / "jupyter" / "labextensions" / "remote-exec"
    sidebar.mkdir(parents=True)
    (sidebar / "package.json").touch()
    with served(tmp_path / "with", python=python):
        pass
    assert WARNING not in (tmp_path / "with" / "log").read_text()


def pip(*arguments: str) -> str:
    """Run pip, which finds no node and asks no index; return what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", arguments[0], "--no-deps", "--no-index", *arguments[1:]],
        env={**os.environ, "PATH": ""},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr
