"""From a function's options to the pool its calls go to: instance type, environment, variables, local code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..capture.environment import AskedEnvironment, asked_environment
from ..capture.environment import environment_of as environment_of
from ..capture.function import Captured, source_paths
from ..capture.preflight import warnings_of
from ..config import Config, load_config, resolve_instance_types
from ..instances import InstanceType, shape_of
from ..model.environment import EnvironmentKind, EnvironmentSpec
from ..model.errors import ConfigurationError
from ..model.job import Phase
from ..model.layout import Layout
from ..model.pool import PoolSpec
from ..model.record import record
from ..options import Options, check_readers, check_together
from .connections import connections
from .dispatcher import Dispatcher
from .variables import meaningful

if TYPE_CHECKING:
    from .session import Session

OF_ANOTHER_ENVIRONMENT = frozenset(
    {
        "VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT", "PYTHONPATH", "PYTHONHOME", "CONDA_PREFIX", "CONDA_DEFAULT_ENV",
        "CONDA_PROMPT_MODIFIER", "CONDA_SHLVL",
        # about files that nobody else has: it would make every start in an environment of ours a slow one
        "PYTHONDONTWRITEBYTECODE",
    }
)  # fmt: skip


@record
class Place:
    """Where calls of a captured function could go, before there is a dispatcher."""

    instance: InstanceType
    options: Options
    request: dict[str, Any]
    layout: Layout
    environment: AskedEnvironment
    phases: tuple[Phase, ...] = ()  # that led here

    @property
    def max_workers(self) -> int:
        """How many workers one process may use at once."""
        return self.options.max_parallel_jobs or self.options.max_workers or cpu_count()


@record
class Target:
    """Where the calls of a captured function go."""

    dispatcher: Dispatcher
    place: Place


def find_target(captured: Captured, given: Options) -> Target:
    """Resolve options to the dispatcher that all functions of the same pool and local code share."""
    place = find_place(captured, given)
    request = place.request
    key = f"{request['pool'].key}/{request['bundle']}/{place.max_workers}/{request['log_limit_bytes']}"
    dispatcher = connections.dispatcher(place.layout, key, request, max_workers=place.max_workers)
    return Target(dispatcher, place)


def find_place(captured: Captured, given: Options, *, private: str = "") -> Place:
    """Resolve options to a pool, and bring the local code to its host.

    Args:
        captured: the function.
        given: the call's options over the decorator's.
        private: makes the pool the caller's own.

    Raises:
        ConfigurationError: an option is wrong, or not read by the backend.
        HostUnavailable: no agent could be reached.
    """
    instance, options = choose(load_config(), given)
    layout = Layout.of(os.environ)
    asked = asked_environment(captured, options)
    environment, wheels = asked.spec, asked.wheel_files
    for sentence in warnings_of(captured, environment):
        connections.reporter.note(sentence)
    spec = PoolSpec(
        environment=environment,
        variables=variables_of(options, environment),
        inherit=False,
        shape=shape_of(options),
        private=private + _prepared(options),
    )
    bundle = captured.local_code.bundle
    transfer = connections.watch("transfer", captured.name)
    if bundle.digest or wheels:

        def upload(session: Session) -> None:
            if bundle.digest:
                from .home_files import remember

                remember(captured.local_code)
                session.upload(bundle, source_paths(captured.local_code.sources), transfer)
            for wheel, path in wheels.items():
                session.upload_blob(wheel, path, transfer)

        with transfer:
            connections.with_agent(layout, upload)
    request = {
        "pool": spec,
        "bundle": bundle.digest,
        "import_roots": bundle.import_roots,
        "preload": captured.preload,
        "keep_alive_seconds": float(options.keep_alive_period_in_seconds),
        "max_workers": options.max_workers or max(cpu_count(), options.max_parallel_jobs or 0),
        "log_limit_bytes": options.log_size_limit,
        "uv": find_uv() if environment.kind in (EnvironmentKind.UV, EnvironmentKind.PROJECT) else "",
    }
    phases = (
        Phase(name="capture", seconds=captured.seconds),
        Phase(name="transfer", seconds=transfer.seconds),
    )
    return Place(instance, options, request, layout, asked, phases)


def choose(config: Config, given: Options) -> tuple[InstanceType, Options]:
    """Return the first instance type that can be had, and the options that hold on it.

    Raises:
        ConfigurationError: none can be had here.
    """
    wanted = config.resolve(given).instance_type
    refusals: list[str] = []
    for instance in resolve_instance_types(wanted, config):
        if instance.backend != "local":
            refusals.append(f"{instance.name}: its backend {instance.backend!r} is not built yet")
            continue
        options = config.resolve(given, instance)
        check_together(options)
        for sentence in check_readers(options, instance.backend):
            connections.reporter.note(sentence)
        for sentence in config.notes:
            connections.reporter.note(sentence)
        return instance, options
    raise ConfigurationError(
        "no instance type can be had: " + "; ".join(refusals), option="instance_type", hint='use "local"'
    )


def variables_of(options: Options, environment: EnvironmentSpec) -> dict[str, str]:
    """Return the worker's environment variables: this process's, without what means nothing there, and its own."""
    variables = meaningful(os.environ)
    if environment.kind is not EnvironmentKind.INTERPRETER:
        for name in OF_ANOTHER_ENVIRONMENT:
            variables.pop(name, None)
    if options.gpus == 0:  # asked for none, unlike who does not say: that one sees what its caller sees
        variables["CUDA_VISIBLE_DEVICES"] = ""
    variables.update(options.environment_variables)
    return variables


def pre_execution_of(options: Options) -> tuple[str, ...]:
    """Return the commands that run before each attempt."""
    if options.pre_execution_script:
        return (Path(options.pre_execution_script).read_text(encoding="utf-8"),)
    return tuple(options.pre_execution_commands)


def _prepared(options: Options) -> str:
    """What parts workers in which other commands have run: they may have left something. A digest, for secrets."""
    commands = pre_execution_of(options)
    return sha256("\0".join(commands).encode()).hexdigest()[:16] if commands else ""


def cpu_count() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_uv() -> str:
    """Return where the uv of this installation lies."""
    from uv import find_uv_bin

    return str(find_uv_bin())


def told_of(name: str, options: Options) -> dict[str, Any]:
    """Return what a worker is told of a function beside its bytes."""
    told: dict[str, Any] = {"name": name}
    if options.max_runtime_in_seconds:
        told["max_runtime_seconds"] = float(options.max_runtime_in_seconds)
    if commands := pre_execution_of(options):
        told["pre_execution"] = commands
    return told


def same_variables(before: Mapping[Any, Any]) -> bool:
    """Whether this process's environment variables are still those; `before` is a copy of ``os.environ._data``."""
    return bool(os.environ._data == before)  # type: ignore[attr-defined]
