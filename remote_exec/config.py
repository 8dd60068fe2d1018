"""Configuration: the files and variables that give options their values, and the instance types there are.

Where a value comes from, highest first (`remote_exec.options.Origin` holds the same order):

1. the call (``f.options(...)``, a flag)
2. the decorator, or ``RemoteExecutor(...)``
3. environment variables, ``REMOTE_EXEC_`` and the option's name in capitals
4. the table ``instances.NAME`` of the instance type that is used: the project file's, else the user file's
5. the project file: the nearest ``pyproject.toml`` upwards that has ``[tool.remote_exec]``
6. the user file: ``$XDG_CONFIG_HOME/remote_exec/config.toml``, by default under ``~/.config``
7. SageMaker's own configuration files (`remote_exec.sagemaker_config`)
8. the option's default

An option is taken whole from the highest that sets it; lists and tables are not merged. Relative paths in a
project or user file are relative to that file's folder. Not here: what an option is (`remote_exec.options`).
The only state is a cache of what was read, by working directory, for the process; any thread may use it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import NamedTuple, cast

from .instances import InstanceType, find_instance_types, parse_instances
from .model.errors import ConfigurationError
from .model.record import record
from .options import Door, Options, Origin, Source, misspelt_variables, options_from_environment
from .options.doors import VARIABLES
from .sagemaker_config import OVERRIDES, read_sagemaker_file, sagemaker_files

PROJECT_FILE = "pyproject.toml"
PROJECT_KEY = "tool.remote_exec"
INSTANCES = "instances"


class Explained(NamedTuple):
    """One option as ``remote-exec config show`` prints it; `value` is masked where it looks secret."""

    option: str
    value: str
    source: str


@record(kw_only=True)
class Config:
    """What the environment and the configuration files say.

    Attributes:
        environment: options that environment variables set.
        file_options: options that the files set, project over user over SageMaker's.
        instances: the configured instance types by name.
        files: the files that were read, highest first.
        notes: sentences to be said once: what was found and is not understood.
    """

    environment: Options = field(default_factory=Options)
    file_options: Options = field(default_factory=Options)
    instances: Mapping[str, InstanceType] = field(default_factory=dict[str, InstanceType])
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    def resolve(self, given: Options, instance: InstanceType | None = None) -> Options:
        """Return the options of one call.

        Args:
            given: the call's options over the decorator's.
            instance: the instance type that is used, once it is known.

        Example:
            >>> Config().resolve(Options.from_keywords(cpus=2)).cpus
            2
        """
        middle = self.environment.over(instance.options) if instance else self.environment
        return given.over(middle.over(self.file_options))

    def explain(self, given: Options | None = None, instance: InstanceType | None = None) -> list[Explained]:
        """Return every option with its value as text and the place that set it, in the table's order."""
        options = self.resolve(given or Options(), instance)
        return [
            Explained(name, row.shown(getattr(options, name)), str(options.source(name)))
            for name, row in Options.rows.items()
        ]


def resolve_instance_types(value: str | Iterable[str], config: Config) -> tuple[InstanceType, ...]:
    """Return the instance types that ``instance_type`` asks for, in order of preference.

    Raises:
        ConfigurationError: there is no such instance type; the message tells how to configure one.

    Example:
        >>> [found.backend for found in resolve_instance_types(["ml.m5.large", "local"], Config())]
        ['sagemaker', 'local']
    """
    return find_instance_types((value,) if isinstance(value, str) else value, config.instances)


_Signature = tuple[int, int, int] | None


@record(frozen=False)
class _Loaded:
    checked_at: float  # monotonic
    variables: Mapping[object, object]
    signatures: tuple[tuple[str, _Signature], ...]
    config: Config


_CACHE_SIZE = 64
_cache: dict[str, _Loaded] = {}

_WATCHED = frozenset({*VARIABLES, *OVERRIDES, "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "HOME"})
_WATCHED_KEYS = _WATCHED | frozenset(map(os.fsencode, _WATCHED))


def load_config(
    cwd: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    max_age_seconds: float = 0.0,
) -> Config:
    """Return the configuration that holds in a folder; read again only when a file or variable has changed.

    Args:
        cwd: the folder to look for a project file from, upwards; the working directory by default.
        environ: environment variables; this process's by default.
        max_age_seconds: for how long to trust the last look at the files; variables are always compared. It
            saves a call's hot path a system call for each folder upwards.

    Raises:
        ConfigurationError: a file or a variable is wrong; the message names it, the key, and what is allowed.
    """
    folder = _working_directory() if cwd is None else os.path.abspath(cwd)
    environ = os.environ if environ is None else environ
    variables = _watched_variables(environ)
    now = time.monotonic()
    loaded = _cache.get(folder)
    if loaded is not None and loaded.variables == variables:
        if now - loaded.checked_at < max_age_seconds:
            return loaded.config
        if all(map(_unchanged, loaded.signatures)):
            loaded.checked_at = now
            return loaded.config
    reading = _Reading(environ)
    config = reading.config(folder)
    if len(_cache) >= _CACHE_SIZE:
        _cache.clear()
    _cache[folder] = _Loaded(now, variables, tuple(reading.signatures.items()), config)
    return config


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return os.sep


def _watched_variables(environ: Mapping[str, str]) -> Mapping[object, object]:
    # os.environ decodes each key it is asked for; asking the dictionary beneath takes 3 µs instead of 40
    raw = cast("Mapping[object, object]", getattr(environ, "_data", environ))
    return {key: raw[key] for key in raw.keys() & _WATCHED_KEYS}


def _signature(path: str) -> _Signature:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _unchanged(seen: tuple[str, _Signature]) -> bool:
    path, signature = seen
    # half the price of a failing stat
    return not os.access(path, os.F_OK) if signature is None else _signature(path) == signature


class _Reading:
    """One reading of all files. It notes which paths it looked at, and how they were then."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.signatures: dict[str, _Signature] = {}

    def config(self, folder: str) -> Config:
        project = self.project(folder)
        user = self.user()
        sagemaker, notes = self.sagemaker()
        read = [file for file in (project, user) if file is not None]
        options = Options()
        for file in read:
            options = options.over(file.options)
        instances = {name: found for file in reversed(read) for name, found in file.instances.items()}
        return Config(
            environment=options_from_environment(self.environ),
            file_options=options.over(sagemaker),
            instances=instances,
            files=(*(file.path for file in read), *self.sagemaker_read()),
            notes=(*misspelt_variables(self.environ), *notes),
        )

    @property
    def home(self) -> str:
        return self.environ.get("HOME") or os.path.expanduser("~")

    @property
    def config_home(self) -> str:
        found = self.environ.get("XDG_CONFIG_HOME", "")
        return found if os.path.isabs(found) else os.path.join(self.home, ".config")

    def read(self, path: str) -> bytes | None:
        """The file's bytes, or None where there is none."""
        # the signature comes first: a change while we read must be seen as one
        signature = self.signatures[path] = _signature(path)
        if signature is None:
            return None
        try:
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            if isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError)):
                return None
            raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None

    def project(self, folder: str) -> _File | None:
        while True:
            path = os.path.join(folder, PROJECT_FILE)
            text = self.read(path)
            # most projects have nothing for us: they cost no TOML parser
            if text is not None and (b"remote_exec" in text or b"remote-exec" in text):
                table = _parse_project(text, path)
                if table is not None:
                    return _file(table, path=Path(path), origin=Origin.PROJECT, key=PROJECT_KEY)
            parent = os.path.dirname(folder)
            if parent == folder:
                return None
            folder = parent

    def user(self) -> _File | None:
        path = os.path.join(self.config_home, "remote_exec", "config.toml")
        text = self.read(path)
        if text is None:
            return None
        return _file(_parse_toml(text, path), path=Path(path), origin=Origin.USER, key="")

    def sagemaker_files(self) -> tuple[str, ...]:
        return sagemaker_files(self.environ, home=self.home, config_home=self.config_home)

    def sagemaker_read(self) -> tuple[Path, ...]:
        return tuple(Path(path) for path in self.sagemaker_files() if self.signatures.get(path) is not None)

    def sagemaker(self) -> tuple[Options, tuple[str, ...]]:
        options = Options()
        notes: tuple[str, ...] = ()
        for path in self.sagemaker_files():
            self.signatures[path] = _signature(path)
            found, said = read_sagemaker_file(path, self.environ)
            options, notes = options.over(found), (*notes, *said)
        return options, notes


@record(kw_only=True)
class _File:
    path: Path
    options: Options
    instances: Mapping[str, InstanceType]


def _parse_toml(text: bytes, path: str) -> Mapping[str, object]:
    import tomllib

    try:
        return tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is no TOML: {error}") from None


def _parse_project(text: bytes, path: str) -> Mapping[str, object] | None:
    tools = _parse_toml(text, path).get("tool")
    if not isinstance(tools, Mapping):
        return None
    tables = cast("Mapping[str, object]", tools)
    if "remote-exec" in tables:
        raise ConfigurationError(f"[tool.remote-exec] in {path} is not read; write [{PROJECT_KEY}]")
    table = tables.get("remote_exec")
    if table is not None and not isinstance(table, Mapping):
        raise ConfigurationError(f"{PROJECT_KEY} in {path} must be a table")
    return cast("Mapping[str, object] | None", table)


def _file(table: Mapping[str, object], *, path: Path, origin: Origin, key: str) -> _File:
    prefix = f"{key}." if key else ""
    values = {name: value for name, value in table.items() if name != INSTANCES}
    options = Options.from_values(
        values, door=Door.FILE, source_of=lambda name: Source(origin, f"{path}, {prefix}{name}")
    )
    instances = parse_instances(table.get(INSTANCES, {}), path=path, key=f"{prefix}{INSTANCES}")
    return _File(path=path, options=options.anchored(path.parent), instances=instances)
