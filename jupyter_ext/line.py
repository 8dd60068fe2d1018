"""The line of `%%remote`: its flags, most of them from the one table of options."""

from __future__ import annotations

import functools
import shlex
from typing import Any, NamedTuple, cast

import click

from remote_exec.options import Options, click_options, options_from_flags
from remote_exec.options.option_set import Origin


class LineError(Exception):
    """The line cannot be understood; the text says what to do."""


class Line(NamedTuple):
    """What a line of `%%remote` asks for.

    Attributes:
        options: of the worker.
        sent: names that may go; None: all that the cell uses.
        back: names that may come back; None: all that it changes.
        keep: let its results stay there.
    """

    options: Options
    sent: tuple[str, ...] | None
    back: tuple[str, ...] | None
    keep: bool


def parse(line: str) -> Line:
    """Read the line of a cell.

    Raises:
        LineError: it has a flag that there is not, or a value that does not fit.
        ConfigurationError: an option's value is wrong.

    Example:
        >>> found = parse("local --in a,b --keep")
        >>> found.options.instance_type, found.sent, found.back, found.keep
        (('local',), ('a', 'b'), None, True)
    """
    try:
        words = shlex.split(line)
        with _command().make_context("%%remote", words) as context:
            given: dict[str, Any] = context.params
    except ValueError as error:
        raise LineError(f"%%remote: {error}") from None
    except click.exceptions.Exit:
        raise LineError("") from None
    except click.ClickException as error:
        raise LineError(f"%%remote: {error.format_message()}; %%remote --help tells of all flags") from None
    kind, sent, back, keep = (given.pop(name) for name in ("kind", "sent", "back", "keep"))
    options = options_from_flags(given)
    if kind:
        options = options.over(Options.from_keywords(Origin.CALL, instance_type=kind))
    return Line(options, _names(sent), _names(back), keep)


def flags() -> tuple[str, ...]:
    """Return all flags, for completion."""
    return tuple(flag for parameter in _command().params for flag in parameter.opts if flag.startswith("--"))


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


@functools.cache
def _command() -> click.Command:
    @click.command(name="%%remote")
    @click.argument("kind", metavar="[INSTANCE_TYPE]", required=False)
    @click.option("--in", "sent", metavar="NAMES", help="Of what the cell uses, only these names go there: a,b")
    @click.option("--out", "back", metavar="NAMES", help="Of what the cell changes, only these names come back.")
    @click.option("--keep", is_flag=True, help="What the cell makes stays there; names stand for it here.")
    @click_options()
    def command(**_: object) -> None:
        """Run the cell in this notebook's worker, with the names that it uses; what it changes comes back."""

    return cast("click.Command", command)
