"""The kinds of values that only the settings of containers take. No I/O."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .reading import RefusedError
from .values import Kind, strings

VOLUME_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]+")


def choice(*words: str) -> Kind[str]:
    """One of some words."""

    def check(value: object) -> str:
        if value not in words:
            raise ValueError("it is none of them")
        return str(value)

    return Kind(
        accepts="str",
        text=f"one of {', '.join(map(repr, words))}",
        check=check,
        parse=lambda text: text,
    )


def volumes() -> Kind[tuple[str, ...]]:
    """What a container sees of its host: ``SOURCE:TARGET`` or ``SOURCE:TARGET:ro``, as docker has it.

    A source with a slash, a dot or a tilde in front is a path, any other the name of a volume.
    """
    listed = strings()

    def check(value: object) -> tuple[str, ...]:
        found = listed.check(value)
        for item in found:
            source, target, mode = split_volume(item)
            if not target.startswith("/") or mode not in ("rw", "ro"):
                raise RefusedError("its target is no absolute path, or its mode neither ro nor rw")
            if not is_path(source) and not VOLUME_NAME.fullmatch(source):
                raise RefusedError("its source is neither a path nor a volume's name")
        return found

    def anchor(value: tuple[str, ...], folder: Path) -> tuple[str, ...]:
        found: list[str] = []
        for item in value:
            source, target, mode = split_volume(item)
            if is_path(source):
                source = os.path.normpath(folder / os.path.expanduser(source))
            found.append(f"{source}:{target}:{mode}")
        return tuple(found)

    return Kind(
        accepts="Sequence[str]",
        text='a list of texts such as "~/data:/data:ro" or "volume:/cache"',
        check=check,
        parse=listed.parse,
        plain=list,
        anchor=anchor,
        repeated=True,
    )


def split_volume(text: str) -> tuple[str, str, str]:
    """Return source, target and mode of a volume; the target is empty where none is given."""
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    return source, target, mode or "rw"


def is_path(source: str) -> bool:
    """Whether a volume's source is a path, not the name of a volume."""
    return source.startswith(("/", ".", "~"))
