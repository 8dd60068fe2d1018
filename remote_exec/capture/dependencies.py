"""The `dependencies` option: whatever the user gave, as an `EnvironmentSpec`.

On the client, before anything runs: it reads files and installed metadata, never the network, and builds
nothing (hosts do: `remote_exec.agent.environments`). It keeps no state; `installed` caches what is
installed.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import field
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from ..errors import ConfigurationError, RuntimeEnvironmentError
from ..model.environment import EnvironmentKind, EnvironmentSpec
from ..model.platform import Platform
from ..model.record import record
from .installed import closure, local_version, pin, platform_markers, providers, version_pin
from .own_environment import installed_in, own_environment
from .requirements import Requirements, named, wrong
from .wheel_tags import runs_on

Dependencies = str | Path | Sequence[str | Path] | None
AskPlatform = Callable[[], Platform]

AUTO_CAPTURE = "auto_capture"
ACCEPTED = (
    "a requirements.txt, a pyproject.toml or the folder of one, a script with a `# /// script` block, "
    "an environment.yml, a wheel, a list of requirements and wheels, 'auto_capture', or None"
)

_CONDA_PYTHON = re.compile(r"^python\s*([=<>!~].*)?$")
_SCRIPT_BLOCK = re.compile(r"(?m)^# /// script$\s(?P<content>(^#(| .*)$\s)+)^# ///$")  # as PEP 723 has it


@record(kw_only=True)
class ResolvedDependencies:
    """An environment's spec with what must travel to build it.

    Attributes:
        spec: the environment.
        wheel_files: blob digest -> file, for each wheel of the spec.
        read: the files that it was made from, some of which may not be there: when one changes, so may the spec.
        notes: what differs from this machine's own environment and should be said once: a sentence each.
    """

    spec: EnvironmentSpec
    wheel_files: Mapping[str, Path] = field(default_factory=dict[str, Path])
    read: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


def resolve_dependencies(
    dependencies: Dependencies,
    *,
    third_party: Mapping[str, Set[str]],
    here: bool,
    python: str,
    base_folder: Path,
) -> EnvironmentSpec:
    """Return the spec of `resolve`, for whoever has no wheels to send."""
    return resolve(
        dependencies, third_party=third_party, here=here, python=python, base_folder=base_folder
    ).spec


def resolve(
    dependencies: Dependencies,
    *,
    third_party: Mapping[str, Set[str]],
    here: bool,
    python: str,
    base_folder: Path,
    platform: AskPlatform | None = None,
    requires: Sequence[str] = (),
) -> ResolvedDependencies:
    """Turn the `dependencies` option into an environment's spec and the wheels that it needs.

    Args:
        dependencies: what the user gave: see `ACCEPTED`. None: on this machine the caller's own environment
            as it is, elsewhere what the function imports, pinned to the versions here; where it imports
            nothing that is installed here, a Python of the host as it is.
        third_party: top-level imports of the function -> dotted modules imported below each.
        here: whether the function will run on this machine.
        python: the client's version, as "3.11"; the environment will have the same.
        base_folder: what relative paths are relative to.
        platform: asks the host for its platform; called only if a wheel is built for some platforms.
        requires: further imports, pinned to the versions here unless the user has said; a lock or a conda
            environment has them, or has not.

    Raises:
        ConfigurationError: the value is wrong, or names what cannot travel.
        RuntimeEnvironmentError: a ``requires-python`` does not admit the client's Python.

    Example:
        >>> given = ["six>=1.16"]
        >>> resolve(given, third_party={}, here=True, python="3.11", base_folder=Path()).spec.requirements
        ('six>=1.16',)
    """
    if dependencies is None and here:
        return ResolvedDependencies(spec=own_environment())
    gathered = Requirements(here=here)
    notes: tuple[str, ...] = ()
    if dependencies is None or dependencies == AUTO_CAPTURE:
        notes = _add_pins(gathered, third_party, python, platform)
        if dependencies is None and not (gathered.lines or gathered.wheels or requires):
            return ResolvedDependencies(spec=EnvironmentSpec(kind=EnvironmentKind.INTERPRETER, python=python))
    elif isinstance(dependencies, (str, Path)):
        path = _existing(dependencies, base_folder)
        if spec := _from_path(path, gathered, python):
            return ResolvedDependencies(spec=spec, read=tuple(gathered.read))
    else:
        _add_items(gathered, dependencies, base_folder)
    if requires:
        found = providers({name: {name} for name in requires})
        unsaid = {name: {name} for name, names in found.items() if names.isdisjoint(gathered.distributions())}
        notes += _add_pins(gathered, unsaid, python, platform)
    return _from_requirements(gathered, python, platform, notes)


def conda_environment(name: str, *, python: str, here: bool = True) -> ResolvedDependencies:
    """Return what `job_conda_env` means: a conda environment of the host, by name or by prefix.

    Where it is on this machine, what is installed in it is part of its identity.

    Raises:
        ConfigurationError: the name is empty or not a string.
    """
    if not isinstance(name, str) or not name.strip() or name.startswith("-"):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(
            f"job_conda_env: {name!r} is not the name or the prefix of a conda environment",
            option="job_conda_env",
        )
    prefix = _conda_prefix(name) if here else None
    folders = (prefix / "conda-meta", prefix / "lib" / f"python{python}" / "site-packages") if prefix else ()
    installed = installed_in(map(str, folders)) if folders else ""
    spec = EnvironmentSpec(kind=EnvironmentKind.CONDA_NAMED, python=python, name=name, installed=installed)
    return ResolvedDependencies(spec=spec, read=folders)


def missing_requirements(spec: EnvironmentSpec, third_party: Mapping[str, Set[str]]) -> list[str]:
    """Return the imports that nothing in the environment provides, sorted; none of which that is not certain.

    Certain it is when what provides the import is known here, and all that the environment will hold is known
    too: from a lock, or because each requirement is installed here, so that what it needs is on record.
    """
    if spec.kind is EnvironmentKind.PROJECT:
        provided = _locked_names(dict(spec.files).get("uv.lock", ""))
    elif spec.kind is EnvironmentKind.UV:
        requirements, complete = named(spec.requirements)
        for file_name, _ in spec.wheels:
            requirements.append(Requirement(parse_wheel_filename(file_name)[0]))
        provided, known = closure(requirements)
        if not (complete and known):
            return []
    else:
        return []
    return sorted(top for top, names in providers(third_party).items() if not names & provided)


# ── what the user may give ──────────────────────────────────────────────────────────────────────────────────


def _from_path(path: Path, gathered: Requirements, python: str) -> EnvironmentSpec | None:
    """Add what the file asks for, or return the spec that it is."""
    gathered.read.append(path)
    if path.is_dir() or path.name == "uv.lock":
        folder = path if path.is_dir() else path.parent
        path = folder / "pyproject.toml"
        if not path.is_file():
            raise wrong(f"there is no pyproject.toml in {folder}")
    if path.name == "pyproject.toml":
        gathered.read += [path, path.parent / "uv.lock", path.parent / "uv.toml"]
        if (path.parent / "uv.lock").is_file():
            return _from_lock(path.parent, python, here=gathered.here)
        _add_pyproject(gathered, path, python)
    elif path.suffix == ".py":
        _add_script(gathered, path, python)
    elif path.suffix in (".yml", ".yaml"):
        return _from_conda_file(path, python)
    elif path.suffix == ".whl":
        gathered.add_wheel(path, where=str(path))
    elif path.suffix in (".toml", ".lock", ".cfg", ".json"):
        raise wrong(f"{path.name} is of no kind that is understood", hint=f"accepted: {ACCEPTED}")
    else:
        gathered.add_file(path)
    return None


def _add_items(gathered: Requirements, items: Sequence[str | Path], base_folder: Path) -> None:
    if not isinstance(items, (list, tuple)):
        raise wrong(f"a {type(items).__name__} is not accepted", hint=f"accepted: {ACCEPTED}")
    for number, item in enumerate(items, start=1):
        where = f"item {number}"
        if isinstance(item, Path):
            gathered.add_wheel(base_folder / item.expanduser(), where=where)
        elif isinstance(item, str) and item.strip():  # pyright: ignore[reportUnnecessaryIsInstance]
            gathered.add_line(item.strip(), where=where, folder=base_folder)
        else:
            raise wrong(f"{where}: {item!r} is neither a requirement nor a wheel's path")


def _existing(given: str | Path, base_folder: Path) -> Path:
    path = base_folder / Path(given).expanduser()
    if path.exists():
        return path
    text = str(given)
    try:
        Requirement(text)
        is_requirement = not Path(text).suffix[1:].isalpha()
    except InvalidRequirement:
        is_requirement = False
    beside = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
    nearest = difflib.get_close_matches(path.name, [AUTO_CAPTURE, *beside], n=1)
    if nearest:
        hint = f"did you mean {nearest[0]!r}? Accepted: {ACCEPTED}"
    elif is_requirement:
        hint = f"a requirement stands in a list: dependencies=[{text!r}]"
    else:
        hint = f"accepted: {ACCEPTED}"
    raise wrong(f"{text!r} is no file in {base_folder}", hint=hint)


def _add_pins(
    gathered: Requirements, third_party: Mapping[str, Set[str]], python: str, platform: AskPlatform | None
) -> tuple[str, ...]:
    """Pin what is imported to what is installed here; what those need themselves is the resolver's part.

    For elsewhere, pins leave out what only this machine has. Returns what should be said of that.
    """
    names = sorted({name for found in providers(third_party).values() for name in found})
    markers = {} if gathered.here else platform_markers(frozenset(names))
    notes: list[str] = []
    for name in names:
        pinned = pin(name)
        if pinned and not gathered.here and _is_bound(pinned, python, platform):
            pinned = version_pin(name)
        if isinstance(pinned, Path):
            gathered.add_wheel(pinned, where=name)
        elif pinned:
            gathered.lines.append(f"{pinned} ; {markers[name]}" if name in markers else pinned)
            if (local := local_version(name)) and not gathered.here and pinned == version_pin(name):
                notes.append(
                    f"{name} is {local} here; the host gets {pinned.replace('==', ' ')} as its index has it"
                )
    return tuple(notes)


def _is_bound(pinned: str | Path, python: str, platform: AskPlatform | None) -> bool:
    """Whether what a distribution was installed from is of no use on the host."""
    if isinstance(pinned, str) and "+file:" in pinned:
        return True
    file_name = os.path.basename(
        urlsplit(pinned.partition(" @ ")[2]).path if isinstance(pinned, str) else pinned
    )
    return _is_foreign(file_name, python, platform)


def _is_foreign(file_name: str, python: str, platform: AskPlatform | None) -> bool:
    """Whether a wheel is built for another platform than the host's, which is asked only if that matters."""
    if platform is None or not file_name.endswith(".whl") or file_name.endswith("-none-any.whl"):
        return False
    return not runs_on(unquote(file_name), platform(), python=python)


def _from_requirements(
    gathered: Requirements, python: str, platform: AskPlatform | None, notes: tuple[str, ...]
) -> ResolvedDependencies:
    wheels: list[tuple[str, str]] = []
    files: dict[str, Path] = {}
    for name, path in sorted(gathered.wheels.items()):
        try:
            parse_wheel_filename(name)
        except InvalidWheelFilename as error:
            raise wrong(f"{path}: {error}", hint="keep the name that the wheel was built with") from error
        if platform is not None and _is_foreign(name, python, platform):
            raise wrong(
                f"{name} is not built for the host, which is {platform()} with Python {python}",
                hint="give a wheel that is, or name the package alone, so that the host's index gives one",
            )
        with path.open("rb") as file:
            digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        wheels.append((name, digest))
        files[digest] = path
    spec = EnvironmentSpec(
        kind=EnvironmentKind.UV,
        python=python,
        requirements=tuple(gathered.lines),
        constraints=tuple(gathered.constraints),
        wheels=tuple(wheels),
    )
    read = (*gathered.read, *gathered.wheels.values())
    return ResolvedDependencies(spec=spec, wheel_files=files, read=read, notes=notes)


# ── pyproject.toml, uv.lock, scripts ────────────────────────────────────────────────────────────────────────


def _add_pyproject(gathered: Requirements, path: Path, python: str) -> None:
    document = _toml(path.read_text(encoding="utf-8"), path.name)
    project: dict[str, Any] = document.get("project", {})
    if "dependencies" in project.get("dynamic", []):
        raise wrong(
            f"{path.name} computes its dependencies (dynamic), which only a build can tell",
            hint="run `uv lock` beside it, or give a requirements.txt",
        )
    if not project:
        raise wrong(f"{path.name} has no [project] table", hint="give a requirements.txt, or a list")
    _add_table(gathered, project, document, path=path, python=python)


def _add_script(gathered: Requirements, path: Path, python: str) -> None:
    blocks = list(_SCRIPT_BLOCK.finditer(path.read_text(encoding="utf-8").replace("\r\n", "\n") + "\n"))
    if len(blocks) != 1:
        count = "no" if not blocks else "more than one"
        raise wrong(
            f"{path.name} has {count} `# /// script` block",
            hint="add one (`uv add --script FILE NAME` does): see PEP 723",
        )
    content = "\n".join(line[2:] for line in blocks[0]["content"].splitlines())
    table = _toml(content, f"{path.name}, its script block")
    _add_table(gathered, table, table, path=path, python=python)


def _add_table(
    gathered: Requirements, table: Mapping[str, Any], document: Mapping[str, Any], *, path: Path, python: str
) -> None:
    """Add the `dependencies` of a table, with the indexes and sources of the ``[tool.uv]`` beside it."""
    _check_python(str(table.get("requires-python", "")), python=python, where=path.name)
    uv: dict[str, Any] = document.get("tool", {}).get("uv", {})
    for index in cast("list[dict[str, Any]]", uv.get("index", [])):
        if not index.get("explicit"):
            option = "--index-url" if index.get("default") else "--extra-index-url"
            gathered.add_line(f"{option} {index['url']}", where=path.name, folder=path.parent)
    sources = {canonicalize_name(name): source for name, source in uv.get("sources", {}).items()}
    for number, line in enumerate(cast("list[str]", table.get("dependencies", [])), start=1):
        where = f"{path.name}, dependency {number}"
        try:
            name = canonicalize_name(Requirement(line).name)
        except InvalidRequirement:
            name = canonicalize_name("")  # `add_line` tells what is wrong with it
        if name in sources:
            line = _from_source(line, sources[name], where)
        gathered.add_line(line, where=where, folder=path.parent)


def _from_source(line: str, source: Any, where: str) -> str:
    """Write a ``[tool.uv.sources]`` entry as the requirement that it stands for."""
    requirement = Requirement(line)
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    marker = f" ; {requirement.marker}" if requirement.marker else ""
    match source:
        case {"git": str(url), **rest} if set(rest) <= {"rev", "tag", "branch", "subdirectory"}:
            at = next((f"@{rest[key]}" for key in ("rev", "tag", "branch") if key in rest), "")
            below = f"#subdirectory={rest['subdirectory']}" if "subdirectory" in rest else ""
            return f"{requirement.name}{extras} @ git+{url}{at}{below}{marker}"
        case {"url": str(url), **rest} if not rest:
            return f"{requirement.name}{extras} @ {url}{marker}"
        case {"path": str(path), **rest} if path.endswith(".whl") and not rest:
            return path
        case _:
            raise wrong(
                f"{where}: the source of {requirement.name!r} in [tool.uv.sources] means nothing elsewhere",
                hint="run `uv lock` beside it, so that the lock travels; local code travels by itself",
            )


def _from_lock(folder: Path, python: str, *, here: bool) -> EnvironmentSpec:
    names = [name for name in ("pyproject.toml", "uv.lock", "uv.toml") if (folder / name).is_file()]
    files = tuple((name, (folder / name).read_text(encoding="utf-8")) for name in names)
    project = _toml(files[0][1], "pyproject.toml").get("project", {})
    lock = _toml(files[1][1], "uv.lock")
    for where, table in (("pyproject.toml", project), ("uv.lock", lock)):
        _check_python(str(table.get("requires-python", "")), python=python, where=where)
    if local := _local_packages(lock, here=here):
        raise wrong(
            f"uv.lock takes {', '.join(local)} from a folder or file of this machine",
            hint="local modules that the function imports travel by themselves: take the package out of the "
            "dependencies, or give a requirements.txt (`uv export --no-emit-local`) and its wheel",
        )
    return EnvironmentSpec(kind=EnvironmentKind.PROJECT, python=python, files=files)


def _local_packages(lock: Mapping[str, Any], *, here: bool) -> list[str]:
    """Return the locked packages, but for the project itself, that lie on this machine, out of the host's reach."""
    found: list[str] = []
    for package in cast("list[dict[str, Any]]", lock.get("package", [])):
        source: dict[str, str] = package.get("source", {})
        places = [source[kind] for kind in ("editable", "directory", "virtual", "path") if kind in source]
        index = source.get("registry") or source.get("url") or "https://"
        if "://" not in index or (index.startswith("file:") and not here):
            places.append(index)
        if any(place != "." for place in places):
            found.append(str(package.get("name")))
    return found


def _locked_names(text: str) -> set[str]:
    packages = cast("list[dict[str, Any]]", _toml(text, "uv.lock").get("package", []))
    return {canonicalize_name(str(package["name"])) for package in packages}


def _check_python(requires: str, *, python: str, where: str) -> None:
    try:
        wanted = SpecifierSet(requires)
    except InvalidSpecifier as error:
        raise wrong(f"{where}: requires-python {requires!r} is not a version specifier") from error
    if not any(wanted.contains(f"{python}.{patch}", prereleases=True) for patch in range(50)):
        raise RuntimeEnvironmentError(
            f"{where} requires Python {requires}, but the caller runs {python}, and a pickled function runs "
            "on its own minor version only",
            hint=f"start the caller with a Python that it admits: uv run --python '{requires}' …",
        )


def _toml(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise wrong(f"{where} is not valid TOML: {error}") from error


# ── conda ───────────────────────────────────────────────────────────────────────────────────────────────────


def _from_conda_file(path: Path, python: str) -> EnvironmentSpec:
    """Return the spec of an environment.yml: the same, with the client's Python and no file beside it."""
    import yaml

    try:
        document: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise wrong(f"{path.name} is not valid YAML: {error}") from error
    if not isinstance(document, dict) or not isinstance(
        cast("dict[str, Any]", document).get("dependencies"), list
    ):
        raise wrong(f"{path.name} has no list of `dependencies`, so it is no conda environment")
    content = cast("dict[str, Any]", document)
    entries = cast("list[Any]", content["dependencies"])
    others: list[Any] = []
    for entry in entries:
        if asked := _CONDA_PYTHON.match(str(entry)):
            _check_python(_as_specifier(asked[1] or ""), python=python, where=path.name)
        else:
            others.append(entry)
    pinned = [f"python={python}", *others]
    content["dependencies"] = [_with_pip_lines(entry, path) for entry in pinned]
    kept = {key: value for key, value in content.items() if key not in ("name", "prefix")}
    text: str = cast("Any", yaml).safe_dump(kept, sort_keys=False, allow_unicode=True)
    return EnvironmentSpec(kind=EnvironmentKind.CONDA, python=python, files=(("environment.yml", text),))


def _conda_prefix(name: str) -> Path | None:
    """Return where an environment lies, if conda has written that down where it does by default."""
    if os.sep in name:
        return Path(name).expanduser()
    try:
        known = Path("~/.conda/environments.txt").expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, RuntimeError):
        return None
    return next((Path(line) for line in known if os.path.basename(line.strip()) == name), None)


def _as_specifier(version: str) -> str:
    """Turn conda's ``=3.11`` and ``==3.11`` into what `packaging` reads."""
    if match := re.match(r"^=+\s*([0-9.]+)(=.*|\.\*)?$", version.strip()):
        return f"=={match[1].rstrip('.')}.*" if match[1].count(".") < 2 else f"=={match[1]}"
    return version.replace(" ", "")


def _with_pip_lines(entry: Any, path: Path) -> Any:
    """Inline the files that a ``pip:`` list names; what is local is refused, as everywhere."""
    if not isinstance(entry, dict) or "pip" not in entry:
        return cast("Any", entry)
    gathered = Requirements(here=False)
    for line in cast("list[str]", entry["pip"]):
        if match := re.match(r"^(?:-r|--requirement)[ =]*(\S+)$", str(line)):
            gathered.add_file(path.parent / match[1])
        else:
            gathered.add_line(str(line), where=f"{path.name}, pip", folder=path.parent)
    if gathered.wheels or gathered.constraints:
        raise wrong(
            f"{path.name}: its pip list names a wheel or a constraints file of this machine",
            hint="give versions in the list itself",
        )
    return {"pip": gathered.lines}
