"""How values of options are read: from Python, and from the texts that variables and command lines hold."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast


class RefusedError(ValueError):
    """A value is wrong in a way that the kind's text does not tell; the message does, without any secret."""


def json_of(value: object) -> str:
    """Return a value as JSON."""
    import json

    return json.dumps(value, ensure_ascii=False)


def json_from(text: str) -> object:
    """Read JSON."""
    import json

    return json.loads(text)


def items_of(value: object) -> list[object]:
    """Return the items of a list, a tuple or a set."""
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(cast("Iterable[object]", value))
    raise ValueError("it is not a list")


def text_of(value: object) -> str:
    """Return a text that says something."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("it is not a text, or an empty one")
    if "\0" in value:
        raise ValueError("it holds a null character")
    return value


def texts_of(value: object) -> tuple[str, ...]:
    """Return several such texts."""
    return tuple(text_of(item) for item in items_of(value))


def parts_of(text: str, separators: str) -> list[object]:
    """Return the parts of a text, without those that are empty."""
    for separator in separators[1:]:
        text = text.replace(separator, separators[0])
    return [part.strip() for part in text.split(separators[0]) if part.strip()]


def list_from(separators: str) -> Callable[[str], object]:
    """Return what reads a list, written as JSON or with separators."""
    return lambda text: json_from(text) if text.lstrip().startswith("[") else parts_of(text, separators)


def pairs_from(separators: str) -> Callable[[str], object]:
    """Return what reads pairs, written as JSON or as ``name=value`` with separators."""

    def parse(text: str) -> object:
        if text.lstrip().startswith(("[", "{")):
            return json_from(text)
        found: dict[str, object] = {}
        for part in cast("list[str]", parts_of(text, separators)):
            name, equals, value = part.partition("=")
            if not equals:
                raise RefusedError("a part has no '='")
            found[name.strip()] = value
        return found

    return parse


def number_of(value: object) -> float:
    """Return a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("it is not a number")
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError("it is not finite")
    return value


def number_from(text: str) -> object:
    """Read a number, a whole one if it is written so."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def path_of(value: object) -> object:
    """Return a path as a text; all else as it is."""
    return os.fspath(cast("os.PathLike[str]", value)) if isinstance(value, os.PathLike) else value


def in_home(path: str) -> str:
    """Return a path whose ``~`` is the user's home."""
    return os.path.expanduser(path) if path.startswith("~") else path


def anchored(path: str, folder: Path) -> str:
    """Return a path as it is from a folder."""
    return os.path.normpath(folder / in_home(path))
