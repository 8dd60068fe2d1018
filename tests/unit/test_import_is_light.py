"""`import remote_exec` must cost a script next to nothing: what is heavy is loaded when it is used."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HEAVY = (
    "boto3", "docker", "rich", "IPython", "ray", "numpy", "click", "yaml", "asyncio", "uv", "packaging",
)  # fmt: skip


def modules_after(code: str) -> set[str]:
    """Run the code in a fresh interpreter; return the modules that it then has."""
    told = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sorted(sys.modules))"],
        env={name: value for name, value in os.environ.items() if not name.startswith("COV")},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(told.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import remote_exec",
        "import remote_exec; remote_exec.remote",
        "from remote_exec import remote\n@remote\ndef f(x): return x",
        "from remote_exec import remote, RemoteExecutor, RemoteFuture, progress, current_job, get_future",
    ],
    ids=["import", "remote", "decorate", "all that most scripts name"],
)
def test_nothing_heavy_is_loaded(code: str) -> None:
    bare = modules_after("")  # what this interpreter's own site-packages load
    loaded = {name.partition(".")[0] for name in modules_after(code) - bare}
    assert not loaded & set(HEAVY)


def test_a_bare_import_loads_next_to_nothing() -> None:
    loaded = modules_after("import remote_exec")
    ours = {name for name in loaded if name.partition(".")[0] == "remote_exec"}
    assert ours <= {"remote_exec", "remote_exec.version"}
