"""Requirement lines: pip's file format read, checked and flattened; nothing in it points to this machine.

For `dependencies`, which knows where such lines come from. Nested files are inlined; local paths become
wheels that travel, or are refused; what is wrong raises `ConfigurationError` with the place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from ..errors import ConfigurationError
from ..model.environment import mask_credentials

_COMMENT = re.compile(r"(^|\s+)#.*$")
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")
_PER_REQUIREMENT = re.compile(r"\s--(?:hash|config-settings?|global-option)\b")
_ARCHIVES = (".whl", ".zip", ".tar.gz")
_URL = re.compile(r"^[a-z+]+://", re.IGNORECASE)

_LONG = {
    "-r": "--requirement",
    "-c": "--constraint",
    "-e": "--editable",
    "-i": "--index-url",
    "--pypi-url": "--index-url",
    "-f": "--find-links",
}
_WITH_VALUE = {"--index-url", "--extra-index-url", "--find-links", "--no-binary", "--only-binary"}
_INDEXES = {"--index-url", "--extra-index-url", "--find-links"}
_FLAGS = {"--no-index", "--pre", "--require-hashes"}
_POINTLESS = {"--prefer-binary", "--use-feature", "--trusted-host", "--disable-pip-version-check"}  # to uv


@dataclass
class Requirements:
    """What was gathered, in order, each once.

    Attributes:
        here: whether the environment will be on this machine, so that a folder of wheels may be named by
            path.
        lines: requirement lines and options.
        constraints: lines that bound versions only.
        wheels: the wheels to send, by file name.
        read: the files that all this was read from.
    """

    here: bool
    lines: list[str] = field(default_factory=list[str])
    constraints: list[str] = field(default_factory=list[str])
    wheels: dict[str, Path] = field(default_factory=dict[str, Path])
    read: list[Path] = field(default_factory=list[Path])

    def distributions(self) -> set[str]:
        """Return the names of all distributions that are asked for; of a bare URL, none is known."""
        asked: set[str] = {canonicalize_name(requirement.name) for requirement in named(self.lines)[0]}
        return asked.union(parse_wheel_filename(name)[0] for name in self.wheels)

    def add_file(self, path: Path, *, constraints: bool = False, seen: frozenset[Path] = frozenset()) -> None:
        """Add all lines of a requirements file, those of the files that it names too."""
        path = path.resolve()
        if path in seen:
            return  # pip, too, reads a file that names itself once
        self.read.append(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise wrong(f"{path} cannot be read: {error}") from error
        for number, line in _logical_lines(text):
            where = f"{path.name}, line {number}"
            name, value = _option(line)
            if name in ("--requirement", "--constraint"):
                if _URL.match(value):
                    raise wrong(
                        f"{where}: {value!r} is not on this machine", hint="download it and name the file"
                    )
                bounds = constraints or name == "--constraint"
                self.add_file(_below(path.parent, value), constraints=bounds, seen=seen | {path})
            elif constraints:
                _append(self.constraints, _checked(line, where))
            else:
                self.add_line(line, where=where, folder=path.parent)

    def add_line(self, line: str, *, where: str, folder: Path) -> None:
        """Add one line: a requirement, an option of the index, or a wheel's path (relative to `folder`).

        Raises:
            ConfigurationError: it is none of these, or points to code of this machine.
        """
        name, value = _option(line)
        if name:
            self._add_option(name, value, where=where, folder=folder)
        elif path := _local_path(line, folder):
            self.add_wheel(path, where=where)
            _append(self.lines, *_extras_of(line))
        elif "+file:" in line and not self.here:
            raise _no_local_code(line, where)
        else:
            _append(self.lines, _checked(line, where))

    def add_wheel(self, path: Path, *, where: str) -> None:
        """Add a wheel file, to be sent."""
        if path.suffix != ".whl":
            raise _no_local_code(str(path), where)
        if not path.is_file():
            raise wrong(f"{where}: there is no wheel {path}", hint="build it first: uv build --wheel")
        other = self.wheels.setdefault(path.name, path)
        if not os.path.samefile(other, path):
            raise wrong(f"{where}: two wheels are called {path.name}: {other} and {path}")

    def _add_option(self, name: str, value: str, *, where: str, folder: Path) -> None:
        if name == "--editable":
            raise _no_local_code(value, where)
        if name in _POINTLESS:
            return
        if name in _FLAGS and not value:
            _append(self.lines, name)
            return
        if name not in _WITH_VALUE or not value:
            allowed = ", ".join(sorted(_WITH_VALUE | _FLAGS))
            raise wrong(
                f"{where}: {f'{name} {value}'.strip()!r} is not understood", hint=f"options: {allowed}"
            )
        if name in _INDEXES and (value.startswith("file:") or not _URL.match(value)):
            if not self.here:
                raise wrong(
                    f"{where}: {name} {value} is a folder of this machine, which the host cannot read",
                    hint="give the paths of the wheels themselves: dependencies=['dist/a.whl', ...]",
                )
            if not value.startswith("file:"):
                value = str(_below(folder, value).resolve())
        _append(self.lines, f"{name} {value}")


def named(lines: list[str] | tuple[str, ...]) -> tuple[list[Requirement], bool]:
    """Return the lines that are requirements with a name, and whether those are all (a bare URL has none)."""
    found: list[Requirement] = []
    complete = True
    for line in lines:
        if line.startswith("-"):
            continue
        try:
            found.append(Requirement(_bare(line)))
        except InvalidRequirement:
            complete = False
    return found, complete


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line and where it starts: comments gone, continued ones joined, ``${NAME}`` filled in."""
    pending, start = "", 0
    for number, raw in enumerate([*text.splitlines(), ""], start=1):
        start = start if pending else number
        # A comment ends a continuation, as in pip.
        if raw.endswith("\\") and not _COMMENT.match(raw):
            pending += raw[:-1].strip() + " "
            continue
        line = _COMMENT.sub("", pending + raw.strip()).strip()
        pending = ""
        if line:
            yield start, _VARIABLE.sub(lambda match: os.environ.get(match[1], match[0]), line)


def _option(line: str) -> tuple[str, str]:
    """Split ``--name value`` and ``--name=value``; a requirement has no name."""
    if not line.startswith("-"):
        return "", ""
    name, _, value = (
        line.replace("=", " ", 1).partition(" ") if line.startswith("--") else line.partition(" ")
    )
    if not line.startswith("--") and len(name) > 2:  # -rfile
        name, value = name[:2], f"{name[2:]} {value}"
    return _LONG.get(name, name), value.strip()


def _bare(line: str) -> str:
    return _PER_REQUIREMENT.split(line, maxsplit=1)[0].strip()


def _checked(line: str, where: str) -> str:
    bare = _bare(line)
    if _URL.match(bare) and not bare.startswith("file:"):
        return line  # a URL without a name: uv reads the name from what it finds there
    try:
        Requirement(bare)
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        raise wrong(
            f"{where}: {bare!r} is not a requirement: {reason}",
            hint="write it as in requirements.txt: 'numpy', 'numpy>=2', a URL, or a wheel's path",
        ) from error
    return line


def _local_path(line: str, folder: Path) -> Path | None:
    """Return the file or folder of this machine that a line names, None when it names none."""
    bare = _bare(line)
    name, at, target = bare.partition(" @ ")
    target = (target if at else name).partition(" ;")[0].strip()
    if target.startswith("file:"):
        return Path(unquote(urlsplit(target).path))
    if _URL.match(target):
        return None
    path = re.sub(r"\[[^\]]*\]$", "", target)
    looks_local = path.startswith((".", "/", "~")) or "/" in path or "\\" in path or path.endswith(_ARCHIVES)
    return _below(folder, path) if looks_local else None


def _below(folder: Path, text: str) -> Path:
    """Return the path that a line names, which may have been written on Windows."""
    path = folder / Path(text).expanduser()
    return path if "\\" not in text or path.exists() else folder / text.replace("\\", "/")


def _extras_of(line: str) -> list[str]:
    """A wheel's extras, asked for beside it: ``name[extra] @ file:…`` asks for ``name[extra]``."""
    name, at, _ = _bare(line).partition(" @ ")
    return [name] if at and "[" in name else []


def _append(target: list[str], *lines: str) -> None:
    target.extend(line for line in lines if line not in target)


def _no_local_code(text: str, where: str) -> ConfigurationError:
    return wrong(
        f"{where}: {text!r} is code of this machine, which no index can give to another",
        hint="local modules that the function imports travel by themselves, so leave the line out; "
        "for compiled code give a wheel: uv build --wheel",
    )


def wrong(message: str, *, hint: str = "") -> ConfigurationError:
    """Return the error for a wrong value of the option, without the passwords that it may hold."""
    return ConfigurationError(
        mask_credentials(f"dependencies: {message}"), option="dependencies", hint=mask_credentials(hint)
    )
