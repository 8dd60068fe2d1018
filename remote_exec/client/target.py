"""From a function's options to the pool its calls go to: instance type, environment, variables, local code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backends.host import Host
from ..backends.patience import asked_for
from ..backends.variables import meaningful
from ..capture.environment import AskedEnvironment, asked_environment
from ..capture.function import Captured, source_paths
from ..capture.preflight import warnings_of
from ..config import load_config
from ..instances import InstanceType, shape_of
from ..model.cost import Instance
from ..model.digests import digest_of
from ..model.environment import EnvironmentKind, EnvironmentSpec
from ..model.job import Phase
from ..model.platform import Platform
from ..model.pool import PoolSpec
from ..model.record import record
from ..options import Options
from ..options.group_plan import GroupPlan, group_plan
from ..serial.pickling import Pickled
from .connections import connections
from .dispatcher import Dispatcher
from .notebook import of_notebook, tags_of
from .placement import Found, choose

if TYPE_CHECKING:
    from .dispatching import Dispatching
    from .session import Session
    from .spread import Spread

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
    host: Host
    environment: AskedEnvironment
    processors: int  # of the host
    phases: tuple[Phase, ...] = ()  # that led here

    @property
    def max_workers(self) -> int:
        """How many workers one process may use at once."""
        return self.options.max_parallel_jobs or self.options.max_workers or self.processors


@record
class Target:
    """Where the calls of a captured function go.

    Attributes:
        dispatcher: takes them.
        place: the host that they go to; of several, the one that was the least busy when this was found.
        spread: the dispatcher, where there are several.
    """

    dispatcher: Dispatching
    place: Place
    spread: Spread | None = None

    def place_for(self, arguments: Pickled, of: str) -> Place:
        """Return where a job or a group goes that is given now, and bring its arguments' folders there."""
        if self.spread is None:
            return self.place
        place = self.spread.place()
        bring_trees(arguments, place.host, of)
        return place


def find_target(captured: Captured, given: Options) -> Target:
    """Resolve options to the dispatcher that all functions of the same pool and local code share."""
    return target_of(choose(load_config(), given), captured)


def target_of(found: Found, captured: Captured) -> Target:
    """Resolve what was found to a dispatcher; see `find_target`."""
    place = place_on(found, captured)
    if found.host.here or (len(found.hosts) == 1 and not found.alternatives):
        return Target(_dispatcher(place, place.max_workers), place)
    from .loads import loads
    from .spread import Spread, Way

    def way_to(place: Place) -> Way:
        fit = loads.capacity(place.host, place.request["pool"].shape)  # what waits here can go elsewhere
        return Way(place, _dispatcher(place, min(place.max_workers, fit)))

    spread = Spread(
        found.hosts,
        way_to(place),
        lambda host: way_to(place_on(replace(found, host=host), captured)),
        alternatives=found.alternatives,
    )
    return Target(spread, place, spread)


def _dispatcher(place: Place, max_workers: int) -> Dispatcher:
    request = place.request
    parts = (request["bundle"], max_workers, request["log_limit_bytes"], request["instance"])
    key = "/".join([request["pool"].key, *map(str, parts)])
    return connections.dispatcher(place.host, key, request, max_workers=max_workers)


def find_place(captured: Captured, given: Options, *, private: str = "") -> Place:
    """Resolve options to a pool on one host, and bring the local code there.

    Args:
        captured: the function.
        given: the call's options over the decorator's.
        private: makes the pool the caller's own.

    Raises:
        ConfigurationError: an option is wrong, or not read by the backend.
        HostUnavailable: no agent could be reached.
    """
    return place_on(choose(load_config(), given), captured, private=private)


def place_on(found: Found, captured: Captured, *, private: str = "") -> Place:
    """Resolve what was found to a pool on its host, and bring the local code there; see `find_place`."""
    with asked_for(float(found.options.connection_timeout)):
        return _place_on(found, captured, private)


def _place_on(found: Found, captured: Captured, private: str) -> Place:
    instance, options, host = found.instance, found.options, found.host
    plan = group_plan(options)
    workers = plan.workers if plan is not None else 1
    asked = asked_environment(captured, options, platform=None if host.here else lambda: _platform(host))
    environment, wheels = asked.spec, asked.wheel_files
    for sentence in (*asked.notes, *warnings_of(captured, environment)):
        connections.reporter.note(sentence)
    spec = PoolSpec(
        environment=environment,
        variables=variables_of(options, environment) if host.here else far_variables_of(options),
        inherit=not host.here,
        shape=shape_of(options),
        private=private + _prepared(options),
    )
    processors = cpu_count() if host.here else far_cpu_count(host)
    bundle = captured.local_code.bundle
    transfer = connections.watch("transfer", captured.name)
    bring_trees(captured.pickled, host, captured.name)
    if bundle.digest or wheels:

        def upload(session: Session) -> None:
            if bundle.digest:
                from .home_files import remember

                remember(captured.local_code)
                session.upload(bundle, source_paths(captured.local_code.sources), transfer)
            for wheel, path in wheels.items():
                session.upload_blob(wheel, path, transfer)

        with transfer:
            connections.with_agent(host, upload)
    request: dict[str, Any] = {
        "pool": spec,
        "bundle": bundle.digest,
        "import_roots": bundle.import_roots,
        # what a launcher starts imports for itself
        "preload": () if plan is not None and plan.launcher else captured.preload,
        # the workers of a pool that is one executor's, or one instance's, are of no use once it gives them back
        "keep_alive_seconds": 0.0 if private else float(options.keep_alive_period_in_seconds),
        "max_workers": options.max_workers or max(processors, (options.max_parallel_jobs or 0) * workers),
        "log_limit_bytes": options.log_size_limit,
        "uv": _uv_for(host, environment),
        "instance": _instance(instance, plan),
        "asked_by": of_notebook(captured.name),
    }
    if not host.here:
        request["linger_seconds"] = float(options.connection_timeout)
    phases = (
        Phase(name="capture", seconds=captured.seconds),
        Phase(name="transfer", seconds=transfer.seconds),
    )
    return Place(instance, options, request, host, asked, processors, phases)


def _instance(instance: InstanceType, plan: GroupPlan | None) -> Instance:
    """Return as what each worker is asked for; of a group it has several machines, or a part of one."""
    price = instance.price
    if price is not None and plan is not None:
        price = price.times(plan.nodes / plan.workers)
    return Instance(type=instance.name, price=price)


def bring_trees(pickled: Pickled, host: Host, of: str) -> None:
    """Bring the folders of data that a pickle names to a host, if it names any; see `trees.bring`."""
    if pickled.trees:
        from .trees import bring

        bring(pickled, host, of)


def _platform(host: Host) -> Platform:
    from .host_tools import platform_of

    return connections.with_agent(host, platform_of)


def _uv_for(host: Host, environment: EnvironmentSpec) -> str:
    """Return where the host has a uv, if one is needed to build this environment; one is brought there if need be."""
    if host.here:
        return find_uv() if environment.kind in (EnvironmentKind.UV, EnvironmentKind.PROJECT) else ""
    some_python = environment.kind is EnvironmentKind.INTERPRETER and not environment.name
    if some_python and connections.session(host).welcome.python == environment.python:
        return ""
    from .host_tools import ensure_uv

    with connections.watch("transfer", "uv") as span:
        return connections.with_agent(host, lambda session: ensure_uv(session, environment, span))


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


def far_variables_of(options: Options) -> dict[str, str]:
    """Return what a worker elsewhere gets beside its host's own variables: those of this machine mean nothing there."""
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if options.gpus == 0 else {}
    return {**hidden, **options.environment_variables}


def pre_execution_of(options: Options) -> tuple[str, ...]:
    """Return the commands that run before each attempt."""
    if options.pre_execution_script:
        return (Path(options.pre_execution_script).read_text(encoding="utf-8"),)
    return tuple(options.pre_execution_commands)


def _prepared(options: Options) -> str:
    """What parts workers in which other commands have run: they may have left something. A digest, for secrets."""
    commands = pre_execution_of(options)
    return digest_of("\0".join(commands))[:16] if commands else ""


def cpu_count() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def far_cpu_count(host: Host) -> int:
    """Return how many CPUs another host has."""
    return max(1, int(connections.session(host).welcome.cpus))


def find_uv() -> str:
    """Return where the uv of this installation lies."""
    from ..backends.uv import own_uv

    return str(own_uv())


def told_of(name: str, options: Options) -> dict[str, Any]:
    """Return what a worker is told of a function beside its bytes."""
    told: dict[str, Any] = {"name": name}
    if options.max_runtime_in_seconds:
        told["max_runtime_seconds"] = float(options.max_runtime_in_seconds)
    if commands := pre_execution_of(options):
        told["pre_execution"] = commands
    if (plan := group_plan(options)) is not None:
        told |= plan.told()  # of the one worker; those of several are told their places when they are there
    if tags := tags_of(options):
        told["tags"] = tags
    return told


def same_variables(before: Mapping[Any, Any]) -> bool:
    """Whether this process's environment variables are still those; `before` is a copy of ``os.environ._data``."""
    return bool(os.environ._data == before)  # type: ignore[attr-defined]
