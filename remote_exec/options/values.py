"""The kinds of values that options take: what is accepted, its normal form, its form as text and as data.

A `Kind` knows no option's name and raises `ValueError`; whoever calls it says which option is wrong, what was
expected and where it was set. Normal forms are immutable, or never changed after they were made. No I/O.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

from .file_filter import CustomFileFilter
from .reading import (
    RefusedError,
    anchored,
    in_home,
    items_of,
    json_from,
    json_of,
    list_from,
    number_from,
    number_of,
    pairs_from,
    parts_of,
    path_of,
    text_of,
    texts_of,
)

T = TypeVar("T")

FALSE_WORDS = frozenset({"0", "false", "no", "off"})
TRUE_WORDS = frozenset({"1", "true", "yes", "on"})
SIZE_UNITS = {
    **{unit: 1000**power for power, unit in enumerate(("b", "kb", "mb", "gb", "tb"))},
    **{unit: 1024**power for power, unit in enumerate(("b", "kib", "mib", "gib", "tib"))},
}
QUOTA_NAMES = ("cpus", "memory", "gpus", "jobs")


class Kind(Generic[T]):
    """One kind of value."""

    def __init__(
        self,
        *,
        accepts: str,
        text: str,
        check: Callable[[object], T],
        parse: Callable[[str], object],
        plain: Callable[[T], object] = lambda value: value,
        anchor: Callable[[T, Path], T] = lambda value, _folder: value,
        repeated: bool = False,
        secret: bool = False,
    ) -> None:
        """Describe a kind.

        Args:
            accepts: the Python types taken, as an annotation.
            text: what is expected, for sentences: "must be …".
            check: a Python, TOML or YAML value to its normal form; raises `ValueError`.
            parse: a string, as a variable or flag has it, to something for `check`; raises `ValueError`.
            plain: the normal form to plain data (None, bool, int, float, str, list, dict).
            anchor: the normal form with relative paths made absolute from a folder.
            repeated: whether a flag may be given several times, each adding to the value.
            secret: whether values may be secret, and so must not be shown in errors.
        """
        self.accepts = accepts
        self.text = text
        self.check = check
        self.parse = parse
        self.plain = plain
        self.anchor = anchor
        self.repeated = repeated
        self.secret = secret

    def format(self, value: T) -> str:
        """Return the text from which `parse` and `check` make this value again."""
        plain = self.plain(value)
        return plain if isinstance(plain, str) else json_of(plain)

    def parse_all(self, texts: Iterable[str]) -> object:
        """Return what several strings, as those of a repeated flag, mean together."""
        parts = [self.parse(text) for text in texts]
        if len(parts) == 1:
            return parts[0]
        if all(isinstance(part, dict) for part in parts):
            return {key: value for part in parts for key, value in cast("dict[str, object]", part).items()}
        lists = [cast("list[object]", part) if isinstance(part, list) else [part] for part in parts]
        return [item for part in lists for item in part]


class HasAddress(Protocol):
    """What has an address in a store: a `CheckpointLocation`."""

    @property
    def s3_uri(self) -> str:
        """``s3://…``, or another store's address."""
        ...


def whole(*, minimum: int, maximum: int | None = None) -> Kind[int]:
    """A whole number within bounds."""

    def check(value: object) -> int:
        number = number_of(value)
        if number != int(number) or number < minimum or (maximum is not None and number > maximum):
            raise ValueError("it is out of bounds")
        return int(number)

    bounds = f"{minimum} or more" if maximum is None else f"from {minimum} to {maximum}"
    return Kind(accepts="int", text=f"a whole number, {bounds}", check=check, parse=number_from)


def number(*, above: float | None = None, unit: str = "") -> Kind[float]:
    """A finite number: above a bound, or zero and more."""

    def check(value: object) -> float:
        found = number_of(value)
        if (above is not None and found <= above) or found < 0:
            raise ValueError("it is out of bounds")
        return found

    bound = "0 or more" if above is None else f"above {above:g}"
    return Kind(
        accepts="float",
        text=f"a number{unit and f' of {unit}'}, {bound}",
        check=check,
        parse=number_from,
    )


def gpus() -> Kind[float]:
    """A number of GPUs: whole ones, or a share of one."""

    def check(value: object) -> float:
        found = number_of(value)
        if found < 0 or (found > 1 and found != int(found)):
            raise ValueError("it is no number of GPUs")
        return found

    return Kind(
        accepts="float",
        text="a whole number, 0 or more, or a share below 1",
        check=check,
        parse=number_from,
    )


def size() -> Kind[int]:
    """A number of bytes, or a text with a unit. Powers of 1000 for kB, MB, GB, TB; of 1024 for KiB, MiB, …"""

    def check(value: object) -> int:
        if isinstance(value, str):
            digits = value.strip().rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
            unit = value.strip()[len(digits) :].lower() or "b"
            if unit not in SIZE_UNITS:
                raise RefusedError("its unit is unknown")
            value = number_of(number_from(digits.strip())) * SIZE_UNITS[unit]
        found = number_of(value)
        if found < 1:
            raise ValueError("it is below one byte")
        return int(found)

    return Kind(
        accepts="int | str",
        text="a number of bytes, 1 or more, or a text such as '8 GB' or '512 MiB'",
        check=check,
        parse=lambda text: text,
    )


def flag() -> Kind[bool]:
    """True or false."""

    def check(value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError("it is neither true nor false")
        return value

    def parse(text: str) -> object:
        word = text.strip().lower()
        return True if word in TRUE_WORDS else False if word in FALSE_WORDS else text

    return Kind(accepts="bool", text="true or false", check=check, parse=parse)


def string(*, pattern: str = "", text: str = "a text, not empty") -> Kind[str]:
    """A text, whole and of a pattern if one is given."""

    def check(value: object) -> str:
        import re

        found = text_of(value)
        if pattern and not re.fullmatch(pattern, found):
            raise ValueError("it has another form")
        return found

    return Kind(accepts="str", text=text, check=check, parse=lambda text: text)


def job_name(*, longest: int) -> Kind[str]:
    """A name that every backend takes for a job."""
    return string(
        pattern=rf"[A-Za-z0-9](?:[A-Za-z0-9_.-]{{0,{longest - 2}}}[A-Za-z0-9])?",
        text=f"1 to {longest} letters, digits, dots, dashes or underscores, a letter or digit first and last",
    )


def path() -> Kind[str]:
    """A path on this machine; ``~`` is the home folder."""
    return Kind(
        accepts="str | Path",
        text="a path",
        check=lambda value: in_home(text_of(path_of(value))),
        parse=lambda text: text,
        anchor=anchored,
    )


def strings(*, separators: str = ",", text: str = "a list of texts") -> Kind[tuple[str, ...]]:
    """A list of texts; as one string: a JSON list, or parts between separators."""
    return Kind(
        accepts="Sequence[str]",
        text=text,
        check=texts_of,
        parse=list_from(separators),
        plain=list,
        repeated=True,
    )


def instance_types() -> Kind[tuple[str, ...]]:
    """One name, or several in order of preference."""

    def check(value: object) -> tuple[str, ...]:
        found = (text_of(value),) if isinstance(value, str) else texts_of(value)
        if not found:
            raise ValueError("the list is empty")
        return found

    return Kind(
        accepts="str | Sequence[str]",
        text="an instance type's name, or a list of names in order of preference",
        check=check,
        parse=list_from(","),
        plain=list,
        repeated=True,
    )


def dependencies() -> Kind[str | tuple[str, ...]]:
    """A file's path, the word ``auto_capture``, or a list of requirements and wheels."""

    def check(value: object) -> str | tuple[str, ...]:
        value = path_of(value)
        if isinstance(value, (list, tuple)):
            value = [path_of(item) for item in cast("Sequence[object]", value)]
        return in_home(text_of(value)) if isinstance(value, str) else texts_of(value)

    def parse(text: str) -> object:
        if text.lstrip().startswith("[") or "\n" in text:
            return list_from("\n")(text)
        from .requirement_texts import requirements_in

        return requirements_in(text) or text

    def anchor(value: str | tuple[str, ...], folder: Path) -> str | tuple[str, ...]:
        if isinstance(value, str):
            return value if value == "auto_capture" else anchored(value, folder)
        return tuple(anchored(v, folder) if v.endswith(".whl") and "@" not in v else v for v in value)

    return Kind(
        accepts="str | Path | Sequence[str | Path]",
        text=(
            "the path of a requirements.txt, pyproject.toml, uv.lock, environment.yml or script, "
            "'auto_capture', or a list of requirements or wheels"
        ),
        check=check,
        parse=parse,
        plain=lambda value: value if isinstance(value, str) else list(value),
        anchor=anchor,
        repeated=True,
    )


def variables() -> Kind[dict[str, str]]:
    """Environment variables by name; numbers become text."""

    def check(value: object) -> dict[str, str]:
        if not isinstance(value, Mapping):
            raise ValueError("it is not a mapping")
        found: dict[str, str] = {}
        for name, content in cast("Mapping[object, object]", value).items():
            if not isinstance(name, str) or not name or "=" in name or "\0" in name:
                raise RefusedError(f"{name!r} is no variable's name")
            if isinstance(content, bool) or not isinstance(content, (str, int, float)):
                raise RefusedError(f"the value of {name} is not a text but of type {type(content).__name__}")
            if "\0" in str(content):
                raise RefusedError(f"the value of {name} holds a null character")
            found[name] = str(content)
        return found

    return Kind(
        accepts="Mapping[str, str]",
        text="a mapping of names to texts",
        check=check,
        parse=pairs_from("\n"),
        repeated=True,
        secret=True,
    )


def tags() -> Kind[tuple[tuple[str, str], ...]]:
    """Pairs of texts: a list of pairs, a mapping, or AWS's list of Key and Value."""

    def pair(item: object) -> tuple[str, str]:
        if isinstance(item, Mapping):
            entry = cast("Mapping[str, object]", item)
            if set(entry) != {"Key", "Value"}:
                raise RefusedError("an entry has other keys than Key and Value")
            item = (entry["Key"], entry["Value"])
        parts = items_of(item)
        if len(parts) != 2 or not all(isinstance(part, str) for part in parts) or not parts[0]:
            raise RefusedError("an entry is not a pair of texts")
        return (cast("str", parts[0]), cast("str", parts[1]))

    def check(value: object) -> tuple[tuple[str, str], ...]:
        if isinstance(value, Mapping):
            value = list(cast("Mapping[str, object]", value).items())
        return tuple(pair(item) for item in items_of(value))

    return Kind(
        accepts="Sequence[tuple[str, str]] | Mapping[str, str]",
        text="a list of pairs of texts, or a mapping",
        check=check,
        parse=pairs_from(",\n"),
        plain=lambda value: [list(item) for item in value],
        repeated=True,
    )


def quotas() -> Kind[dict[str, float]]:
    """Limits by resource."""

    def check(value: object) -> dict[str, float]:
        if not isinstance(value, Mapping):
            raise ValueError("it is not a mapping")
        entries = cast("Mapping[object, object]", value)
        if unknown := [name for name in entries if name not in QUOTA_NAMES]:
            raise RefusedError(f"there is no quota of {unknown[0]!r}")
        limit = {"memory": size().check}
        return {str(name): limit.get(str(name), _quota)(content) for name, content in entries.items()}

    def _quota(content: object) -> float:
        return number().check(number_from(content) if isinstance(content, str) else content)

    return Kind(
        accepts="Mapping[str, float | str]",
        text=f"a mapping of {', '.join(QUOTA_NAMES[:-1])} or {QUOTA_NAMES[-1]} to limits",
        check=check,
        parse=pairs_from(",\n"),
        repeated=True,
    )


def file_filter() -> Kind[Any]:
    """A function like `shutil.ignore_patterns` makes, a `CustomFileFilter` (SageMaker's too), or patterns."""

    def check(value: object) -> object:
        if isinstance(value, CustomFileFilter):
            return value
        if hasattr(value, "ignore_name_patterns") and hasattr(value, "workdir"):
            found = cast("CustomFileFilter", value)
            patterns = texts_of(found.ignore_name_patterns or ())
            return CustomFileFilter(ignore_name_patterns=patterns, workdir=found.workdir or os.getcwd())
        if callable(value):
            return value
        if isinstance(value, Mapping):
            entry = cast("Mapping[str, object]", value)
            if unknown := set(entry) - {"ignore_name_patterns", "workdir"}:
                raise RefusedError(f"it has the unknown key {min(unknown)!r}")
            patterns = texts_of(entry.get("ignore_name_patterns", []))
            workdir = text_of(entry["workdir"]) if "workdir" in entry else os.getcwd()
            return CustomFileFilter(ignore_name_patterns=patterns, workdir=workdir)
        return CustomFileFilter(ignore_name_patterns=texts_of(value))

    def plain(value: Any) -> object:
        if not hasattr(value, "ignore_name_patterns"):
            return repr(value)
        return {"ignore_name_patterns": list(value.ignore_name_patterns or []), "workdir": str(value.workdir)}

    def anchor(value: Any, folder: Path) -> Any:
        return CustomFileFilter(
            ignore_name_patterns=value.ignore_name_patterns, workdir=anchored(value.workdir, folder)
        )

    return Kind(
        accepts="Callable[[str, list[str]], Iterable[str]] | Sequence[str]",
        text="a function (folder, names) -> names to leave out, a CustomFileFilter, or a list of patterns",
        check=check,
        parse=lambda text: json_from(text) if text.lstrip().startswith(("[", "{")) else parts_of(text, ","),
        plain=plain,
        anchor=anchor,
        repeated=True,
    )


def checkpoint_location() -> Kind[str]:
    """A store's address or a folder; a `CheckpointLocation` (SageMaker's too) stands for its address."""

    def check(value: object) -> str:
        for name in ("s3_uri", "_s3_uri"):
            value = getattr(value, name, value)
        return text_of(path_of(value))

    return Kind(
        accepts="HasAddress | str | Path",
        text="a CheckpointLocation, a store's address, or a folder",
        check=check,
        parse=lambda text: text,
        anchor=lambda value, folder: value if "://" in value else anchored(value, folder),
    )


def instance_of(*, text: str) -> Kind[Any]:
    """Any Python object: one that only its reader understands."""
    return Kind(accepts="object", text=text, check=lambda value: value, parse=lambda text: text, plain=repr)
