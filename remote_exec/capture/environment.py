"""The environment that a function asks for, by its options and what it imports. Reads files; never the network."""

from __future__ import annotations

import sys
from pathlib import Path

from ..model.environment import EnvironmentKind, EnvironmentSpec
from ..options import Options
from .function import Captured, python_version


def environment_of(captured: Captured, options: Options) -> tuple[EnvironmentSpec, dict[str, Path]]:
    """Return the environment that a function asks for, and the wheels that must be on the host for it.

    Raises:
        ConfigurationError: `dependencies` or `job_conda_env` is wrong, or names what cannot travel.
        RuntimeEnvironmentError: a ``requires-python`` does not admit this Python.
    """
    if options.job_conda_env:
        from .dependencies import conda_environment

        return conda_environment(options.job_conda_env, python=python_version()), {}
    if options.dependencies is None:
        return EnvironmentSpec(kind=EnvironmentKind.INTERPRETER, python=sys.executable), {}
    from .dependencies import resolve

    found = resolve(
        options.dependencies,
        third_party=captured.reach.third_party,
        here=True,
        python=python_version(),
        base_folder=Path.cwd(),
    )
    return found.spec, dict(found.wheel_files)
