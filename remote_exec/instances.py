"""Instance types: names for kinds of machine, as the configuration maps them to backends.

An instance type is a backend, the backend's own settings (a host, a port), and options that hold for calls on
it, its shape among them. ``local`` is always there, and SageMaker's ``ml.*`` need no configuration. No I/O.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, cast

from .model.cost import Price
from .model.errors import ConfigurationError
from .model.pool import Shape
from .model.record import record
from .options import BACKENDS, Door, Kind, Options, Origin, Source, nearest
from .options import container_values as container_kinds
from .options import values as kinds
from .options.group_plan import group_plan

BUILT = ("local", "ssh", "docker")  # backends that are
# what a backend takes besides options; one that does not stand here takes anything and checks it itself
BACKEND_SETTINGS: Mapping[str, Mapping[str, Kind[Any]]] = {
    "local": {},
    "ssh": {
        "host": kinds.string(text="a host, as in the ssh configuration"),
        "hosts": kinds.strings(text="a list of hosts, as in the ssh configuration"),
        "user": kinds.string(text="a user's name"),
        "port": kinds.whole(minimum=1, maximum=65535),
        "identity": kinds.path(),
        "home": kinds.string(
            pattern=r"[^'!\\\n]+", text="a folder on the host, without any of the characters ' ! \\"
        ),
        "group_addresses": kinds.variables(),  # by which hosts reach each other, by host
    },
    "docker": {
        "engine": kinds.string(text="the name of a docker context, or an address such as ssh://box"),
        "dockerfile": kinds.path(),
        "build_context": kinds.path(),
        "build_args": kinds.variables(),
        "build_target": kinds.string(),
        "pull": container_kinds.choice("missing", "always", "never"),
        "platform": kinds.string(pattern=r"[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?", text="such as linux/arm64"),
        "volumes": container_kinds.volumes(),
        "gpu_devices": kinds.strings(text='a list of the engine\'s GPUs, such as ["0", "1"], or ["all"]'),
        "memory_limit": kinds.size(),
        "cpu_limit": kinds.number(above=0),
        "pids_limit": kinds.whole(minimum=16),
        "shm_size": kinds.size(),
        "user": kinds.string(
            pattern=r"[A-Za-z0-9_.-]+(:[A-Za-z0-9_.-]+)?", text='"name", "uid" or "uid:gid"'
        ),
        "network_mode": kinds.string(text='"bridge", "host", "none" or the name of a network'),
        "read_only": kinds.flag(),
        "cap_add": kinds.strings(text="a list of Linux capabilities"),
    },
}
# what an instance type of any backend has besides
PRICE_SETTINGS: Mapping[str, Kind[Any]] = {
    "cost_per_hour": kinds.number(above=0),
    "currency": kinds.string(pattern=r"[^\s\d.,]{1,8}", text="a currency, such as EUR"),
}
# other names of options in an instance type's table
SHORT_NAMES = {"image": "image_uri"}


@record(kw_only=True)
class InstanceType:
    """One kind of machine.

    Attributes:
        name: what ``instance_type`` says.
        backend: what brings it up.
        options: options that its table sets; they rank above the files' general ones.
        settings: the backend's own settings, such as ``host``, in the normal form of their kinds.
        price: what one machine costs, as a call has it; None where the table does not say.
        source: where it is defined.
    """

    name: str
    backend: str
    options: Options = field(default_factory=Options)
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    price: Price | None = None
    source: str = "built in"

    @property
    def shape(self) -> Shape:
        """What one call is given on it unless it asks for something else."""
        return shape_of(self.options)


LOCAL = InstanceType(name="local", backend="local")


def shape_of(options: Options) -> Shape:
    """Return the claims of a call's worker: those of its processes together, more than a GPU in whole ones."""
    plan = group_plan(options)
    processes = plan.processes if plan is not None else 1
    gpus = float(options.gpus or 0) * processes
    return Shape(
        cpus=float(options.cpus or 0) * processes,
        memory_bytes=(options.memory or 0) * processes,
        gpus=gpus if gpus < 1 else float(math.ceil(gpus)),
        gpu_type=options.gpu_type or "",
    )


def parse_instances(tables: object, *, path: Path, key: str) -> dict[str, InstanceType]:
    """Read the tables of instance types of one configuration file.

    Args:
        tables: what stands under `key` in the file.
        path: the file; relative paths in it are relative to its folder.
        key: the tables' common key, such as ``tool.remote_exec.instances``.

    Raises:
        ConfigurationError: a table is wrong; the message names file, key and what is allowed.
    """
    if not isinstance(tables, Mapping):
        raise ConfigurationError(f"{key} in {path} must hold a table for each instance type")
    found: dict[str, InstanceType] = {}
    for name, table in cast("Mapping[str, object]", tables).items():
        if not isinstance(table, Mapping):
            raise ConfigurationError(
                f"{key}.{name} in {path} must be a table",
                hint=_example(name, key=key.removesuffix("instances")),
            )
        found[name] = _parse_instance(
            name, cast("Mapping[str, object]", table), path=path, key=f"{key}.{name}"
        )
    return found


def _parse_instance(name: str, table: Mapping[str, object], *, path: Path, key: str) -> InstanceType:
    backend = _backend(name, table, path=path, key=key)
    kinds_of_backend = BACKEND_SETTINGS.get(backend)
    given: dict[str, object] = {}
    settings: dict[str, Any] = {}
    prices: dict[str, Any] = {}
    for word, value in table.items():
        option = SHORT_NAMES.get(word, word)
        if word == "backend":
            continue
        if word in PRICE_SETTINGS:
            prices[word] = _setting(
                PRICE_SETTINGS[word], value, place=f"{key}.{word} in {path}", folder=path.parent
            )
        elif kinds_of_backend is not None and word in kinds_of_backend:
            settings[word] = _setting(
                kinds_of_backend[word], value, place=f"{key}.{word} in {path}", folder=path.parent
            )
        elif option in Options.rows and option != "instance_type":
            given[option] = value
        elif kinds_of_backend is None:
            settings[word] = value
        else:
            raise _unknown_key(word, backend, place=f"{key}.{word} in {path}")
    if backend == "ssh" and not (settings.get("host") or settings.get("hosts")):
        raise ConfigurationError(
            f"{key} in {path} names no host", hint='add host = "…" or hosts = ["…", "…"]'
        )
    others = settings.get("group_addresses", {}).keys() - {*settings.get("hosts", ()), settings.get("host")}
    if backend == "ssh" and others:
        raise ConfigurationError(
            f"{key}.group_addresses in {path} names {min(others)!r}, which is none of its hosts"
        )
    if backend == "docker" and "dockerfile" in settings and "image_uri" in given:
        raise ConfigurationError(
            f"{key} in {path} names both an image and a Dockerfile", hint="keep image_uri or dockerfile"
        )
    options = Options.from_values(
        given,
        door=Door.FILE,
        source_of=lambda option: Source(Origin.INSTANCE, f"{name} in {path}, {key}.{option}"),
    )
    return InstanceType(
        name=name,
        backend=backend,
        options=options.anchored(path.parent),
        settings=settings,
        price=_price(prices, path=path, key=key),
        source=f"{path}, {key}",
    )


def _backend(name: str, table: Mapping[str, object], *, path: Path, key: str) -> str:
    backend = table.get("backend", "local" if name == "local" else None)
    known = ", ".join(BACKENDS)
    if backend is None:
        raise ConfigurationError(f"{key} in {path} names no backend; it is one of {known}")
    if backend not in BACKENDS:
        near = nearest(backend, BACKENDS) if isinstance(backend, str) else ""
        raise ConfigurationError(
            f"{key}.backend in {path} must be one of {known}, not {backend!r}"
            f"{near and f'; did you mean {near!r}?'}"
        )
    if name == "local" and backend != "local":
        raise ConfigurationError(
            f"{key} in {path}: the instance type 'local' is this machine; choose another name"
        )
    return str(backend)


def _setting(kind: Kind[Any], value: object, *, place: str, folder: Path) -> Any:
    try:
        return kind.anchor(kind.check(value), folder)
    except (ValueError, TypeError):
        raise ConfigurationError(f"{place} must be {kind.text}, not {value!r}") from None


def _price(told: Mapping[str, Any], *, path: Path, key: str) -> Price | None:
    if not told:
        return None
    if "cost_per_hour" not in told:
        raise ConfigurationError(
            f"{key}.currency in {path} is of no use without cost_per_hour",
            option="currency",
            hint="add cost_per_hour = 2.50, or whatever one machine costs",
        )
    return Price(per_hour=float(told["cost_per_hour"]), currency=told.get("currency", ""))


def _unknown_key(word: str, backend: str, *, place: str) -> ConfigurationError:
    settings = BACKEND_SETTINGS[backend]
    near = nearest(word, ("backend", *settings, *PRICE_SETTINGS, *SHORT_NAMES)) or Options.nearest(word)
    own = f": {', '.join(settings)}" if settings else " of which it has none"
    return ConfigurationError(
        f"{place} is neither an option nor a setting of the backend {backend!r}"
        f"{near and f'; did you mean {near!r}?'}",
        option=word,
        hint=f"allowed are backend, cost_per_hour, currency, every option, and the backend's own settings{own}",
    )


def find_instance_types(names: Iterable[str], known: Mapping[str, InstanceType]) -> tuple[InstanceType, ...]:
    """Return the instance types of these names, in their order.

    Raises:
        ConfigurationError: there is no such instance type; the message tells which there are, and how to
            configure one.
    """
    return tuple(_find(name, known) for name in dict.fromkeys(names))


def _find(name: str, known: Mapping[str, InstanceType]) -> InstanceType:
    if name in known:
        return known[name]
    if name == LOCAL.name:
        return LOCAL
    if name.startswith("ml."):
        return InstanceType(
            name=name, backend="sagemaker", settings={"instance_type": name}, source="a name of SageMaker's"
        )
    names = sorted({*known, LOCAL.name})
    near = nearest(name, names)
    raise ConfigurationError(
        f"there is no instance type {name!r}{f'; did you mean {near!r}?' if near else '.'} "
        f"Known are {', '.join(names)}",
        option="instance_type",
        hint=_example(name, key="tool.remote_exec."),
    )


def _example(name: str, *, key: str) -> str:
    quoted = name if name.replace("-", "").replace("_", "").isalnum() else f'"{name}"'
    return (
        f"configure it in pyproject.toml:\n    [{key}instances.{quoted}]\n"
        '    backend = "ssh"\n    host = "…"  # as in your ssh configuration'
    )
