"""What the tests of environments run in workers: it imports the standard library alone, since nothing else is there."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def apple() -> tuple[str, str, str]:
    """The version of apple that is there, where this runs, and on which Python."""
    import apple as found  # type: ignore[import-not-found]

    return found.VERSION, sys.prefix, "{}.{}".format(*sys.version_info)


def imported(name: str) -> tuple[str, str]:
    """The version of a distribution, and the prefix that it lies in."""
    from importlib import import_module
    from importlib.metadata import version

    import_module(name)
    return version(name), sys.prefix


def installed() -> list[str]:
    """All that is installed in the environment; what travels with local code lies elsewhere."""
    from importlib.metadata import distributions

    inside = [folder for folder in sys.path if folder.startswith(sys.prefix)]
    return sorted(found.metadata["Name"] for found in distributions(path=inside))


def own_cloudpickle(pickled: bytes) -> tuple[str, Any]:
    """The version that the user's `import cloudpickle` gives, and what was pickled with the user's own."""
    cloudpickle = __import__(
        "".join(["cloud", "pickle"])
    )  # the client does not see it, and pins it for nobody
    again = cloudpickle.loads(cloudpickle.dumps({"twice": 2}))
    return cloudpickle.__version__, (again["twice"], pickle.loads(pickled))


def entered() -> dict[str, str]:
    """What a child process finds: the environment's python and what names it."""
    child = subprocess.run(
        ["python", "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True
    )
    names = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "GREETING")
    return {
        "child": child.stdout.strip(),
        "prefix": sys.prefix,
        **{name: os.environ[name] for name in names if name in os.environ},
    }


def bytecode() -> list[str]:
    """What is installed and has been compiled when it was imported."""
    import apple as found

    return sorted(
        path.name.partition(".")[0] for path in Path(found.__file__ or "").parent.glob("__pycache__/*")
    )


def pid() -> int:
    """The worker's process id."""
    return os.getpid()


def captured() -> tuple[str, list[str]]:
    """What was pinned for an import."""
    from importlib.metadata import version

    import iniconfig

    assert (iniconfig.__file__ or "").startswith(sys.prefix)
    return version("iniconfig"), installed()


def wait_for(gate: Path) -> int:
    """Say by a file who runs this; run until another is there."""
    gate.with_suffix(".begun").write_text(str(os.getpid()))
    while not gate.exists():
        time.sleep(0.01)
    return os.getpid()
