"""The environment that a function asks for, by its options and what it imports. Reads files; never the network."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path

from ..model.environment import EnvironmentSpec
from ..model.record import record
from ..options import Options
from .function import Captured, python_version
from .own_environment import installed, own_environment

FileStates = tuple[tuple[str, int], ...]  # path, modification time in ns; -1: it is not there


@record(kw_only=True)
class AskedEnvironment:
    """An environment, and what it was made from.

    Attributes:
        spec: the environment.
        wheel_files: blob digest -> file of the wheels that must be on the host for it.
        sources: the files that were read for it.
        installed: what was installed here meanwhile.
    """

    spec: EnvironmentSpec
    wheel_files: Mapping[str, Path] = field(default_factory=dict[str, Path])
    sources: FileStates = ()
    installed: str = ""

    def is_current(self) -> bool:
        """Whether what it was made from is as it was: some microseconds, so that each call may ask."""
        if self.sources and any(_time(path) != time for path, time in self.sources):
            return False
        return installed() == self.installed


def asked_environment(captured: Captured, options: Options) -> AskedEnvironment:
    """Return the environment that a function asks for.

    Raises:
        ConfigurationError: `dependencies` or `job_conda_env` is wrong, or names what cannot travel.
        RuntimeEnvironmentError: a ``requires-python`` does not admit this Python.
    """
    now = installed()
    scripts = [Path(options.pre_execution_script)] if options.pre_execution_script else []
    if options.job_conda_env:
        from .dependencies import conda_environment

        found = conda_environment(options.job_conda_env, python=python_version())
    elif options.dependencies is None:
        return AskedEnvironment(spec=own_environment(), sources=_states(scripts), installed=now)
    else:
        from .dependencies import resolve

        found = resolve(
            options.dependencies,
            third_party=captured.reach.third_party,
            here=True,
            python=python_version(),
            base_folder=Path.cwd(),
        )
    return AskedEnvironment(
        spec=found.spec,
        wheel_files=dict(found.wheel_files),
        sources=_states([*found.read, *scripts]),
        installed=now,
    )


def environment_of(captured: Captured, options: Options) -> tuple[EnvironmentSpec, dict[str, Path]]:
    """Return the spec and the wheels of `asked_environment`."""
    asked = asked_environment(captured, options)
    return asked.spec, dict(asked.wheel_files)


def _states(paths: Iterable[Path]) -> FileStates:
    return tuple((path, _time(path)) for path in dict.fromkeys(os.path.abspath(each) for each in paths))


def _time(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return -1
