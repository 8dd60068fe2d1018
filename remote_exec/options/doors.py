"""Options from environment variables and command-line flags. click is imported when flags are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from .option_set import Door, Option, Origin, Setting, Source, nearest
from .table import Options

F = TypeVar("F", bound="Callable[..., Any]")

VARIABLES: Mapping[str, str] = {
    row.variable: name for name, row in Options.rows.items() if Door.VARIABLE in row.doors
}
# variables of ours that are no options
OTHER_VARIABLES = frozenset({"REMOTE_EXEC_HOME", "REMOTE_EXEC_PERSISTENT_CACHE"})


def options_from_environment(environ: Mapping[str, str]) -> Options:
    """Read the ``REMOTE_EXEC_*`` variables; an empty one is unset.

    Raises:
        ConfigurationError: a variable holds what its option does not take.

    Example:
        >>> options_from_environment({"REMOTE_EXEC_MEMORY": "2 GiB"}).memory
        2147483648
    """
    settings: dict[str, Setting] = {}
    for variable, name in VARIABLES.items():
        if text := environ.get(variable):
            settings[name] = Options.rows[name].check_text((text,), Source(Origin.ENVIRONMENT, variable))
    return Options(settings)


def misspelt_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return a sentence for each variable that looks like one of ours and is none."""
    found = [v for v in environ if v.startswith("REMOTE_EXEC_") and v not in OTHER_VARIABLES]
    return tuple(
        f"environment variable {variable} sets no option; did you mean {Options.rows[near].variable}?"
        for variable in sorted(found)
        if variable not in VARIABLES
        and (near := nearest(variable.removeprefix("REMOTE_EXEC_"), VARIABLES.values(), similarity=0.8))
    )


def flag_of(row: Option[Any]) -> str:
    """The option's command-line flag."""
    return f"--{row.name.replace('_', '-')}"


def click_options(*names: str) -> Callable[[F], F]:
    """Return a decorator that gives a click command the flags of these options, or of all that have one.

    The command takes ``**flags`` and hands them to `options_from_flags`. A list's flag may be repeated.
    """
    import click

    rows = [Options.rows[name] for name in names] or [
        row for row in Options.rows.values() if Door.FLAG in row.doors
    ]

    def decorate(command: F) -> F:
        for row in reversed(rows):
            command = cast("F", _click_option(click, row)(command))
        return command

    return decorate


def _click_option(click: Any, row: Option[Any]) -> Callable[[Any], Any]:
    flag = flag_of(row)
    # the reference marks code as Markdown does; a terminal shows plain text
    help_text = row.help.replace("`", "")
    if row.kind.accepts == "bool":
        declaration = f"{flag}/--no-{flag.removeprefix('--')}"
        return cast("Callable[[Any], Any]", click.option(declaration, row.name, default=None, help=help_text))
    return cast(
        "Callable[[Any], Any]",
        click.option(
            flag,
            row.name,
            multiple=row.kind.repeated,
            metavar=row.name.rpartition("_")[2].upper(),
            help=f"{help_text} {'May be repeated.' if row.kind.repeated else ''}".rstrip(),
        ),
    )


def options_from_flags(flags: Mapping[str, object]) -> Options:
    """Turn what click parsed into options of the call; a flag that was not given stays unset.

    Args:
        flags: by option name: a text, a tuple of texts, true or false, or None.

    Raises:
        ConfigurationError: a flag holds what its option does not take.
    """
    settings: dict[str, Setting] = {}
    for name, given in flags.items():
        if given is None or given == ():
            continue
        source = Source(Origin.CALL, f"--{name.replace('_', '-')}")
        row = Options.row(name, door=Door.FLAG, source=source)
        if isinstance(given, bool):
            settings[name] = row.check(given, source)
        else:
            texts = cast("tuple[str, ...]", given if isinstance(given, tuple) else (given,))
            settings[name] = row.check_text(texts, source)
    return Options(settings)
