"""The environment that a function asks for, by its options and what it imports. Reads files; never the network."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from pathlib import Path

from ..model.environment import EnvironmentKind, EnvironmentSpec
from ..model.platform import Platform
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
        installed: what was installed here meanwhile; empty where that does not matter.
        notes: what differs from this machine's own environment and should be said once.
    """

    spec: EnvironmentSpec
    wheel_files: Mapping[str, Path] = field(default_factory=dict[str, Path])
    sources: FileStates = ()
    installed: str = ""
    notes: tuple[str, ...] = ()

    def is_current(self) -> bool:
        """Whether what it was made from is as it was: some microseconds, so that each call may ask."""
        if self.sources and any(_time(path) != time for path, time in self.sources):
            return False
        return not self.installed or installed() == self.installed


def asked_environment(
    captured: Captured, options: Options, *, platform: Callable[[], Platform] | None = None
) -> AskedEnvironment:
    """Return the environment that a function asks for.

    Args:
        captured: the function.
        options: its own.
        platform: asks the host for its platform, if that is needed; None for this machine.

    Raises:
        ConfigurationError: `dependencies` or `job_conda_env` is wrong, or names what cannot travel.
        RuntimeEnvironmentError: a ``requires-python`` does not admit this Python.
    """
    scripts = [Path(options.pre_execution_script)] if options.pre_execution_script else []
    if options.dependencies is None and not options.job_conda_env:
        if platform is None:
            own = own_environment()
            return AskedEnvironment(spec=own, sources=_states(scripts), installed=own.installed)
        if not (captured.reach.third_party or captured.requires):  # as below, at a tenth of the price
            python = EnvironmentSpec(kind=EnvironmentKind.INTERPRETER, python=python_version())
            return AskedEnvironment(spec=python, sources=_states(scripts))
    now = installed()
    if options.job_conda_env:
        from .dependencies import conda_environment

        found = conda_environment(options.job_conda_env, python=python_version(), here=platform is None)
    else:
        from .dependencies import resolve

        found = resolve(
            options.dependencies,
            third_party=captured.reach.third_party,
            requires=captured.requires,
            here=platform is None,
            python=python_version(),
            base_folder=Path.cwd(),
            platform=platform,
        )
    return AskedEnvironment(
        spec=found.spec,
        wheel_files=dict(found.wheel_files),
        sources=_states([*found.read, *scripts]),
        installed=now,
        notes=found.notes,
    )


def environment_of(captured: Captured, options: Options, *, here: bool) -> EnvironmentSpec:
    """Return the spec of `asked_environment`; of another host, which is not asked, as if it were like this one.

    Args:
        captured: the function.
        options: its own.
        here: whether it will run on this machine.

    Raises:
        ConfigurationError: as `asked_environment`.
        RuntimeEnvironmentError: as `asked_environment`.
    """
    from ..agent.platforms import this_platform

    return asked_environment(captured, options, platform=None if here else this_platform).spec


def _states(paths: Iterable[Path]) -> FileStates:
    return tuple((path, _time(path)) for path in dict.fromkeys(os.path.abspath(each) for each in paths))


def _time(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return -1
