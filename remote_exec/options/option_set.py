"""What an option is, and a set of options of which each value remembers where it came from.

An option is declared once, as a descriptor in a subclass of `OptionSet` (`remote_exec.options.Options`): the
class gives the row, ``Options.cpus``, an instance the typed value, ``options.cpus``. Sets are immutable;
layers are put over each other by `OptionSet.over`, which is all there is to precedence. No I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import (
    Any,
    ClassVar,
    Generic,
    NamedTuple,
    NoReturn,
    Self,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
    overload,
)

from ..model.errors import ConfigurationError
from .reading import RefusedError
from .values import Kind

T = TypeVar("T")

BACKENDS = ("local", "ssh", "docker", "slurm", "ray", "kubernetes", "sagemaker")
# every layer above the backends: client, capture and agent, so the option works with any backend
CORE = "core"


class Door(StrEnum):
    """A way by which an option's value comes in."""

    KEYWORD = "keyword"
    FLAG = "flag"
    VARIABLE = "variable"
    FILE = "file"


class Origin(StrEnum):
    """The layer that a value comes from. Highest first: this order is the precedence."""

    CALL = "call"
    DECORATOR = "decorator"
    ENVIRONMENT = "environment variable"
    INSTANCE = "instance type"
    PROJECT = "project file"
    USER = "user file"
    SAGEMAKER = "SageMaker's configuration"
    DEFAULT = "default"


class Source(NamedTuple):
    """Where a value was set: the layer, and the variable, flag, or file with its key."""

    origin: Origin
    detail: str = ""

    def __str__(self) -> str:
        if self.origin is Origin.CALL and self.detail:
            return f"flag {self.detail}"
        return f"{self.origin.value} {self.detail}".rstrip()


class Setting(NamedTuple):
    """One option's value, in its kind's normal form, and its source."""

    value: Any
    source: Source


BY_DEFAULT = Source(Origin.DEFAULT)


class Facts(TypedDict, total=False):
    """What the table says of an option beside its kind and default.

    Attributes:
        help: one or two sentences, code between backticks.
        group: the heading that it stands under.
        readers: the backends that a value makes a difference to; all of them unless given.
        must_read: whether a backend that does not read it would give another outcome; then that is an error.
        sagemaker: whether it is a parameter of SageMaker's ``remote`` too, under the same name.
        doors: the ways to set it; all of them unless given.
        also: words under which people know it from elsewhere; error messages lead from them to it.
    """

    help: str
    group: str
    readers: tuple[str, ...]
    must_read: bool
    sagemaker: bool
    doors: tuple[Door, ...]
    also: tuple[str, ...]


class Option(Generic[T]):
    """One row of the table. Built by `option` and `optional`."""

    def __init__(self, kind: Kind[Any], *, default: T, unset: str = "", **facts: Unpack[Facts]) -> None:
        self.name = ""
        self.kind = kind
        self.default = default
        # what `None` means, in words
        self.unset = unset
        self.help = facts.get("help", "")
        self.group = facts.get("group", "")
        self.readers = frozenset(facts.get("readers", (CORE,)))
        self.must_read = facts.get("must_read", False)
        self.sagemaker = facts.get("sagemaker", False)
        self.doors = frozenset(facts.get("doors", Door))
        self.also = facts.get("also", ())

    def __set_name__(self, owner: type[OptionSet], name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type[OptionSet]) -> Self: ...
    @overload
    def __get__(self, instance: OptionSet, owner: type[OptionSet]) -> T: ...
    def __get__(self, instance: OptionSet | None, owner: type[OptionSet]) -> Self | T:
        if instance is None:
            return self
        setting = instance.settings.get(self.name)
        return self.default if setting is None else setting.value

    def __set__(self, instance: OptionSet, value: object) -> NoReturn:
        raise AttributeError(f"options do not change; put a new set over this one to set {self.name}")

    def __repr__(self) -> str:
        return f"<option {self.name}>"

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"REMOTE_EXEC_{self.name.upper()}"

    def read_by(self, backend: str) -> bool:
        """Whether a value makes a difference with this backend."""
        return CORE in self.readers or backend in self.readers

    def check(self, value: object, source: Source) -> Setting:
        """Return the value in its normal form.

        Raises:
            ConfigurationError: the option does not take it; the message names option, value and source.
        """
        try:
            return Setting(self.kind.check(value), source)
        except (ValueError, TypeError, OverflowError) as error:
            raise self._refusal(value, source, error) from None

    def check_text(self, texts: Iterable[str], source: Source) -> Setting:
        """Return the value that a variable, or a flag given once or several times, stands for.

        Raises:
            ConfigurationError: as for `check`.
        """
        texts = tuple(texts)
        try:
            return Setting(self.kind.check(self.kind.parse_all(texts)), source)
        except (ValueError, TypeError, OverflowError) as error:
            raise self._refusal(texts[0] if len(texts) == 1 else texts, source, error) from None

    def _refusal(self, value: object, source: Source, error: Exception) -> ConfigurationError:
        got = "" if self.kind.secret else f", not {_short(value)}"
        why = f": {error}" if isinstance(error, RefusedError) else ""
        return ConfigurationError(
            f"option {self.name!r} must be {self.kind.text}{got}{why} ({source})", option=self.name
        )

    def shown(self, value: Any) -> str:
        """The value as text for people; masked where it looks secret."""
        if value is None:
            return self.unset
        if isinstance(value, dict):
            found = cast("dict[str, object]", value).items()
            return ", ".join(f"{k}={'***' if looks_secret(k) else v}" for k, v in found) or "none"
        if isinstance(value, tuple):
            items = cast("tuple[str | tuple[str, str], ...]", value)
            return ", ".join(item if isinstance(item, str) else "=".join(item) for item in items) or "none"
        return self.kind.format(value)


def option(kind: Kind[T], *, default: T, **facts: Unpack[Facts]) -> Option[T]:
    """Declare an option that always has a value."""
    return Option(kind, default=default, **facts)


def optional(kind: Kind[T], *, unset: str, **facts: Unpack[Facts]) -> Option[T | None]:
    """Declare an option that is ``None`` when nothing sets it; `unset` says in words what that means."""
    return Option[T | None](kind, default=None, unset=unset, **facts)


class OptionSet:
    """Values of some options of a table; immutable. Subclasses declare the table's rows."""

    __slots__ = ("settings",)
    rows: ClassVar[Mapping[str, Option[Any]]] = {}

    settings: Mapping[str, Setting]

    def __init__(self, settings: Mapping[str, Setting] | None = None) -> None:
        """Take settings that were checked already; use `from_keywords` for values of a user."""
        self.settings = settings or {}

    def __init_subclass__(cls) -> None:
        cls.rows = {name: row for name, row in vars(cls).items() if isinstance(row, Option)}

    @classmethod
    def from_keywords(cls, origin: Origin = Origin.DECORATOR, /, **keywords: object) -> Self:
        """Check keyword arguments; ``None`` leaves an option unset.

        Args:
            origin: the layer that they belong to: `Origin.DECORATOR` or `Origin.CALL`.
            **keywords: option names and values.

        Raises:
            ConfigurationError: an unknown name (the nearest is named), or a value that is not taken.

        Example:
            >>> from remote_exec.options import Options
            >>> Options.from_keywords(memory="8 GB").memory
            8000000000
        """
        return cls.from_values(keywords, door=Door.KEYWORD, source_of=lambda _: Source(origin))

    @classmethod
    def from_values(
        cls, values: Mapping[str, object], *, door: Door, source_of: Callable[[str], Source]
    ) -> Self:
        """Check values that came by a door; ``None`` leaves an option unset.

        Raises:
            ConfigurationError: as for `from_keywords`, or the option is not set by that door.
        """
        settings: dict[str, Setting] = {}
        for name, value in values.items():
            row = cls.row(name, door=door, source=source_of(name))
            if value is not None:
                settings[name] = row.check(value, source_of(name))
        return cls(settings)

    @classmethod
    def row(cls, name: str, *, door: Door, source: Source) -> Option[Any]:
        """Return the row of that name.

        Raises:
            ConfigurationError: there is none, or it is not set by that door.
        """
        row = cls.rows.get(name)
        if row is None:
            near = cls.nearest(name)
            raise ConfigurationError(
                f"there is no option {name!r}{near and f'; did you mean {near!r}?'} ({source})", option=name
            )
        if door not in row.doors:
            doors = " or ".join(_DOOR_WORDS[door] for door in Door if door in row.doors)
            raise ConfigurationError(f"option {name!r} is set by {doors} only ({source})", option=name)
        return row

    @classmethod
    def nearest(cls, name: str) -> str:
        """The option that was meant, as far as one can guess; else the empty string."""
        words = {word: row.name for row in cls.rows.values() for word in (row.name, *row.also)}
        return words.get(nearest(name, words), "")

    def over(self, low: OptionSet) -> Self:
        """Return these values, and those of `low` for options that this set leaves unset. Neither changes."""
        return type(self)({**low.settings, **self.settings})

    def __contains__(self, name: object) -> bool:
        """Whether something set that option."""
        return name in self.settings

    def __iter__(self) -> Iterator[str]:
        """The names of the options that something set, in the table's order."""
        return (name for name in self.rows if name in self.settings)

    def source(self, name: str) -> Source:
        """Where the value of that option comes from."""
        setting = self.settings.get(name)
        return BY_DEFAULT if setting is None else setting.source

    def keywords(self) -> dict[str, Any]:
        """The values that something set, by name: what `from_keywords` takes."""
        return {name: self.settings[name].value for name in self}

    def shown(self) -> dict[str, str]:
        """The values that something set, by name, as text for people; masked where they look secret."""
        return {name: self.rows[name].shown(self.settings[name].value) for name in self}

    def anchored(self, folder: Any) -> Self:
        """Return a set whose relative paths are made absolute from a folder."""
        return type(self)(
            {
                name: Setting(self.rows[name].kind.anchor(setting.value, folder), setting.source)
                for name, setting in self.settings.items()
            }
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OptionSet) and self.settings == other.settings

    def __repr__(self) -> str:
        values = (f"{name}={value}" for name, value in self.shown().items())
        return f"{type(self).__name__}({', '.join(values)})"


_DOOR_WORDS = {
    Door.KEYWORD: "keyword argument",
    Door.FLAG: "command-line flag",
    Door.VARIABLE: "environment variable",
    Door.FILE: "configuration file",
}


def nearest(word: str, known: Iterable[str], *, similarity: float = 0.6) -> str:
    """Return the known word that was probably meant, or the empty string; equal words have similarity 1."""
    import difflib

    plain = {_plain(one): one for one in known}
    found = difflib.get_close_matches(_plain(word), list(plain), n=1, cutoff=similarity)
    return plain[found[0]] if found else ""


def _plain(word: str) -> str:
    return word.lower().replace("-", "_")


def looks_secret(name: str) -> bool:
    """Whether a variable of that name probably holds a secret."""
    import re

    return bool(
        re.search(
            r"token|secret|passw|passphrase|credential|private|api_?key|(^|_)key(_|$)|auth|dsn", name, re.I
        )
    )


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
