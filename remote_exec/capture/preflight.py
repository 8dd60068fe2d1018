"""What would travel for a function, and what cannot work, before anything slow starts.

`look` tells all of it, for ``f.preflight()`` and ``remote-exec run --dry-run``. `warnings_of` is the part that every
function's first call asks for: what it costs is some milliseconds. Nothing is sent, built or run here.

An import that nothing provides is a problem to `look`, and only a warning to a call: it may stand on a branch that
the call never takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import FunctionType
from typing import Any

from ..config import Config, load_config, resolve_instance_types
from ..instances import BUILT, InstanceType
from ..model.environment import EnvironmentKind, EnvironmentSpec
from ..model.errors import ConfigurationError, RuntimeEnvironmentError, SerializationError
from ..model.record import record
from ..options import Options, check_readers, check_together
from ..serial import pickling
from .by_value import global_names, travels_by_value
from .environment import environment_of
from .function import Captured, python_version

LARGE_BYTES = 10_000_000  # what a function carries along beyond this is worth a word
MEASURED_VALUES = 1_000  # of one function, at most
SHOWN = 10


@record(kw_only=True)
class Preflight:
    """What would travel for a function, where to, and what cannot work. `str` of it is for people.

    Attributes:
        function: its name.
        instance_type: the first of those wanted that can be had; empty when there is none.
        backend: what brings that up.
        environment: the environment in one line; empty when it cannot be told.
        python: the Python minor, as "3.11".
        size_bytes: of the pickled function with all that it carries.
        parts: the biggest values that it carries, and the arguments: path and size in bytes.
        travels: files of local code: path and size in bytes.
        left_out: what stays at home: path and reason.
        third_party: installed packages that it imports.
        problems: what cannot work, a sentence each.
        warnings: what will work, but hardly as meant.
    """

    function: str
    instance_type: str
    backend: str
    environment: str
    python: str
    size_bytes: int
    parts: tuple[tuple[str, int], ...]
    travels: tuple[tuple[str, int], ...]
    left_out: tuple[tuple[str, str], ...]
    third_party: tuple[str, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is known that cannot work."""
        return not self.problems

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        where = f"{self.instance_type} ({self.backend})" if self.instance_type else "nowhere"
        yield f"{self.function} runs on {where}, in {self.environment or 'no environment'}"
        yield f"pickled: {_size(self.size_bytes)}"
        yield from _listed(self.parts, "  {size:>9}  {what}")
        total = sum(size for _, size in self.travels)
        yield f"local code: {len(self.travels)} files, {_size(total)}" if self.travels else "local code: none"
        yield from _listed(self.travels, "  {size:>9}  {what}")
        if self.left_out:
            yield f"left out: {len(self.left_out)}"
            yield from (f"  {path}: {reason}" for path, reason in self.left_out[:SHOWN])
            if len(self.left_out) > SHOWN:
                yield f"  and {len(self.left_out) - SHOWN} more"
        if self.third_party:
            yield f"imports: {', '.join(self.third_party)}"
        yield from (f"warning: {sentence}" for sentence in self.warnings)
        yield from (f"problem: {sentence}" for sentence in self.problems)
        if self.ok:
            yield "nothing is known that cannot work"


def look(
    captured: Captured,
    options: Options,
    *,
    function: Callable[..., Any] | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Preflight:
    """Find out what would travel and what cannot work; in well under a second, without running anything.

    Args:
        captured: the function as it was captured.
        options: its options, before configuration.
        function: the function itself, to measure what it carries.
        arguments: of a call, by name, to measure them and to see whether they can be pickled.

    Raises:
        ConfigurationError: a configuration file is wrong. What is wrong with the options is among the `problems`.
    """
    problems: list[str] = []
    warnings: list[str] = []
    instance, resolved = _place(load_config(), options, problems, warnings)
    spec: EnvironmentSpec | None = None
    try:
        here = instance is None or instance.backend == "local"
        spec = environment_of(captured, resolved, here=here)
    except (ConfigurationError, RuntimeEnvironmentError) as error:
        problems.append(error.message)
    if spec is not None:
        problems += missing_imports(captured, spec)
    parts = list(_measure(function, arguments or {}, problems)) if function is not None or arguments else []
    parts.sort(key=lambda part: -part[1])
    warnings += _heavy(captured, parts)
    code = captured.local_code
    return Preflight(
        function=captured.name,
        instance_type=instance.name if instance is not None else "",
        backend=instance.backend if instance is not None else "",
        environment=spec.summary if spec is not None else "",
        python=python_version(),
        size_bytes=captured.pickled.size_bytes,
        parts=tuple(parts),
        travels=tuple(sorted(((file.path, file.size) for file in code.bundle.files), key=lambda f: -f[1])),
        left_out=code.left_out,
        third_party=tuple(captured.reach.third_party),
        problems=tuple(problems),
        warnings=tuple(warnings),
    )


def warnings_of(captured: Captured, spec: EnvironmentSpec) -> list[str]:
    """Return what a function's first call should say before it is sent: a sentence each."""
    return [*missing_imports(captured, spec), *_heavy(captured, [])]


def missing_imports(captured: Captured, spec: EnvironmentSpec) -> list[str]:
    """Return a sentence for each import that will surely not be found where the function runs."""
    found: list[str] = []
    if spec.kind in (EnvironmentKind.UV, EnvironmentKind.PROJECT):
        from .dependencies import missing_requirements

        for name in missing_requirements(spec, captured.reach.third_party):
            found.append(
                f"{captured.name} needs the module {name!r}, which no requirement of its environment provides; "
                f"add what provides it to `dependencies`"
            )
    if spec.kind is EnvironmentKind.INTERPRETER and spec.name:
        for name, by in captured.reach.missing.items():
            found.append(
                f"{captured.name} needs the module {name!r}, imported by {by}, which is not installed here, "
                f"where it will run; install it, or name it in `dependencies`"
            )
    return found


def _place(
    config: Config, given: Options, problems: list[str], warnings: list[str]
) -> tuple[InstanceType | None, Options]:
    """The instance type that a call would go to, and the options that hold there."""
    resolved = config.resolve(given)
    refusals: list[str] = []
    for instance in resolve_instance_types(resolved.instance_type, config):
        if instance.backend not in BUILT:
            refusals.append(f"{instance.name}: its backend {instance.backend!r} is not built yet")
            continue
        options = config.resolve(given, instance)
        try:
            check_together(options)
            warnings += check_readers(options, instance.backend)
        except ConfigurationError as error:
            problems.append(error.message)
        warnings += config.notes
        return instance, options
    problems.append("no instance type can be had: " + "; ".join(refusals))
    return None, resolved


def _heavy(captured: Captured, parts: list[tuple[str, int]]) -> list[str]:
    size = captured.pickled.size_bytes
    if size < LARGE_BYTES:
        return []
    own = [part for part in parts if not part[0].startswith("argument ")]
    named = (
        f", most of it {own[0][0]} ({_size(own[0][1])})"
        if own
        else ", see its preflight() for what makes it so"
    )
    return [
        f"{captured.name} carries {_size(size)}{named}; it is sent to each worker, and again when it changes: "
        "pass it as an argument, or load it inside the function"
    ]


# --- sizes by path ------------------------------------------------------------------------------------------------


def _measure(
    function: Callable[..., Any] | None, arguments: Mapping[str, Any], problems: list[str]
) -> Iterator[tuple[str, int]]:
    for name, value in arguments.items():
        try:
            yield f"argument {name!r}", pickling.dump_arguments((), {name: value}).size_bytes
        except SerializationError as error:
            problems.append(error.message)
    seen: set[int] = set()
    for path, value in _carried(function, "", seen) if function is not None else ():
        if len(seen) > MEASURED_VALUES:
            return
        size = _pickled_size(value)
        if size >= 1_000:  # smaller ones only fill lists
            yield path, size


def _carried(function: object, before: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """The values that a function sent by value takes along, and those of the functions that it takes along."""
    for label, value in _bindings(function):
        path = f"{before}{label}"
        if id(value) in seen:
            continue
        seen.add(id(value))
        wrapped = getattr(value, "__wrapped__", value)
        if isinstance(wrapped, (FunctionType, type)):
            if travels_by_value(wrapped):
                yield from _carried(wrapped, f"{wrapped.__name__} → ", seen)
        else:
            yield path, value


def _bindings(code: object) -> Iterator[tuple[str, Any]]:
    if isinstance(code, type):
        yield from ((f"{code.__name__}.{name}", value) for name, value in vars(code).items())
    if not isinstance(code, FunctionType):
        return
    for name in global_names(code.__code__):
        if name in code.__globals__:
            yield f"global {name!r}", code.__globals__[name]
    for name, cell in zip(code.__code__.co_freevars, code.__closure__ or (), strict=True):
        try:
            yield f"closure {name!r}", cell.cell_contents
        except ValueError:  # not bound yet
            continue
    yield from ((f"default {index}", value) for index, value in enumerate(code.__defaults__ or ()))
    yield from ((f"default of {name!r}", value) for name, value in (code.__kwdefaults__ or {}).items())


def _pickled_size(value: object) -> int:
    try:
        return pickling.dump(value).size_bytes
    except SerializationError:  # class attributes that are left out or rebuilt
        return 0


def _listed(rows: tuple[tuple[str, int], ...], line: str) -> Iterator[str]:
    for what, size in rows[:SHOWN]:
        yield line.format(what=what, size=_size(size))
    if len(rows) > SHOWN:
        yield f"  and {len(rows) - SHOWN} smaller"


def _size(size_bytes: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "bytes" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} GB"
