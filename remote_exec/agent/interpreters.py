"""The Pythons of this host: which are there, of which version, and do they run.

For whoever needs an interpreter of a given version. It installs nothing; that is the builder's part. What a
probe found is remembered for this process, by the interpreter's path and the state of its file; any thread
may ask.
"""

from __future__ import annotations

import glob
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..model.record import record

_CONDA = ("conda", "miniconda3", "miniforge3", "anaconda3")

PROBE_SECONDS = 20.0  # a cold network disk; a healthy local one answers in 0.02

_SCRIPT = "import sys, json; print(json.dumps(['%d.%d' % sys.version_info[:2], sys.base_prefix]))"

FileState = tuple[int, int, int]  # inode, size, modification time in ns

_probed: dict[tuple[str, FileState], Interpreter] = {}  # only those that ran: what failed may work next time


@record(kw_only=True)
class Interpreter:
    """A Python that ran when it was last asked.

    Attributes:
        path: the executable, as it was asked for: links are not resolved, since a virtual environment is one.
        version: "3.11".
        base_prefix: where its standard library lies.
    """

    path: Path
    version: str
    base_prefix: str


def state_of(path: Path) -> FileState | None:
    """Return what changes when the file behind `path` is replaced; None when there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_ino, status.st_size, status.st_mtime_ns)


def probe(path: Path) -> Interpreter | str:
    """Return the interpreter at `path`, or the reason why it is none."""
    state = state_of(path)
    if state is None:
        return f"there is no file {path}"
    key = (str(path), state)
    if known := _probed.get(key):
        return known
    found = _run(path)
    if isinstance(found, Interpreter):
        _probed[key] = found
    return found


def _run(path: Path) -> Interpreter | str:
    try:
        done = subprocess.run(
            [str(path), "-I", "-S", "-c", _SCRIPT],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except OSError as error:
        return f"{path} cannot be run: {error.strerror or error}"
    except subprocess.TimeoutExpired:
        return f"{path} did not answer within {PROBE_SECONDS:.0f} s"
    try:
        version, base_prefix = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it said nothing"]
        return f"{path} is not a working Python (exit status {done.returncode}): {last[0]}"
    return Interpreter(path=path, version=str(version), base_prefix=str(base_prefix))


def find(version: str, environ: Mapping[str, str], known: Sequence[Path] = ()) -> Interpreter | None:
    """Return an interpreter of this version ("3.11"), or None.

    Args:
        version: the minor.
        environ: PATH, HOME and the like tell where to look.
        known: interpreters that may be of this version, to be asked after the one that runs this code.
    """
    if version == f"{sys.version_info[0]}.{sys.version_info[1]}" and sys.executable:
        return Interpreter(path=Path(sys.executable), version=version, base_prefix=sys.base_prefix)
    for path in itertools.chain(known, candidates(version, environ)):
        found = probe(path)
        if isinstance(found, Interpreter) and found.version == version:
            return found
    return None


def versions(environ: Mapping[str, str], known: Sequence[Path] = ()) -> list[str]:
    """Return the versions that `find` would find, oldest first: what an error message lists."""
    wanted = [f"3.{minor}" for minor in range(8, 20)]
    return [version for version in wanted if find(version, environ, known)]


def candidates(version: str, environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield where a Python of this version usually lies; pyenv's shims on PATH may well not run."""
    name = f"python{version}"
    for folder in environ.get("PATH", os.defpath).split(os.pathsep):
        if found := shutil.which(name, path=folder):
            yield Path(found)
    home = environ.get("HOME") or os.path.expanduser("~")
    data = environ.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share")
    managed = environ.get("UV_PYTHON_INSTALL_DIR") or os.path.join(data, "uv", "python")
    pyenv = environ.get("PYENV_ROOT") or os.path.join(home, ".pyenv")
    for pattern in (
        os.path.join(glob.escape(managed), f"cpython-{version}.*", "bin", name),
        os.path.join(glob.escape(pyenv), "versions", f"{version}.*", "bin", name),
        f"/usr/local/bin/{name}",
        f"/usr/bin/{name}",
        f"/opt/python/{version}*/bin/{name}",
        f"/opt/python{version}/bin/{name}",
        f"/opt/homebrew/bin/{name}",
        *(f"{base}/{conda}/bin/{name}" for base in (glob.escape(home), "/opt") for conda in _CONDA),
    ):
        for match in sorted(glob.glob(pattern), reverse=True):
            yield Path(match)
