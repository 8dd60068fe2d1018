"""The line of `%%remote`: its flags, most of them from the one table of options."""

from __future__ import annotations

import functools
import itertools
import shlex
from typing import Any, NamedTuple

import click

from remote_exec.config import load_config, resolve_instance_types
from remote_exec.errors import ConfigurationError
from remote_exec.options import Options, click_options, options_from_flags
from remote_exec.options.option_set import Origin, Setting, Source

from .words import INSTANCE_TYPE

# of a job that a cell becomes; a cell in the notebook's own worker is none
OF_A_JOB = ("job_name_prefix", "tags", "max_retry_attempts")
DEPENDENCIES = "--dependencies"
OF_ONE_CELL = ("detach", "max_runtime_in_seconds", "name", *OF_A_JOB)
NAME_HELP = "What lists call the cell, and commands find it by: the newest of that name. With --detach: the job's name."


class LineError(Exception):
    """The line cannot be understood; the text says what to do. Empty: it was a question, which is answered."""


class Line(NamedTuple):
    """What a line of `%%remote` asks for.

    Attributes:
        options: of the worker; with `detach` all that the job is given.
        sent: names that may go; None: all that the cell uses.
        back: names that may come back; None: all that it changes.
        keep: let its results stay there.
        detach: the cell is a durable job of its own, which nobody waits for.
        timeout: seconds after which the cell is stopped.
        name: what the cell is called in lists of jobs; empty: as its notebook.
    """

    options: Options
    sent: tuple[str, ...] | None
    back: tuple[str, ...] | None
    keep: bool
    detach: bool = False
    timeout: float | None = None
    name: str = ""


def parse(line: str) -> Line:
    """Read the line of a cell.

    Raises:
        LineError: it has a flag that there is not, or a value that does not fit.

    Example:
        >>> found = parse("local --in a,b --keep --timeout 60")
        >>> found.options.instance_type, found.sent, found.back, found.keep, found.timeout
        (('local',), ('a', 'b'), None, True, 60)
    """
    given = _given(line)
    kind, sent, back, keep, timeout, spot = (
        given.pop(name) for name in ("kind", "sent", "back", "keep", "timeout", "spot")
    )
    if timeout is not None:
        given["max_runtime_in_seconds"] = timeout
    try:
        options = options_from_flags(given)
        if spot:
            source = Source(Origin.CALL, "--spot")
            options = Options({"use_spot_instances": Setting(True, source)}).over(options)
        if kind:
            options = options.over(Options.from_keywords(Origin.CALL, instance_type=kind))
        resolve_instance_types(options.instance_type, load_config())
    except ConfigurationError as error:
        raise LineError(
            _told(kind, error) + (_of_a_list(line) if error.option == "instance_type" else "")
        ) from None
    if not options.detach:
        _refuse_job_flags(options)
    elif keep:
        raise LineError(
            "%%remote: --keep has nowhere to keep things with --detach: its worker ends with the cell"
        )
    limit = options.max_runtime_in_seconds
    settings = options.settings
    if not options.detach:
        settings = {name: setting for name, setting in settings.items() if name not in OF_ONE_CELL}
    name = options.name or ""
    return Line(Options(settings), _names(sent), _names(back), keep, options.detach, limit, name)


def _given(line: str) -> dict[str, Any]:
    try:
        with command().make_context("%%remote", shlex.split(line)) as context:
            return context.params
    except ValueError as error:
        raise LineError(f"%%remote: {error}") from None
    except click.exceptions.Exit:
        raise LineError("") from None
    except click.ClickException as error:
        told = error.format_message().removesuffix(".")
        more = _of_a_list(line) if "extra argument" in told else ""
        raise LineError(f"%%remote: {told}; %%remote --help tells of all flags{more}") from None


def _of_a_list(line: str) -> str:
    """Return what is to be done where a word was meant to be one more of the dependencies."""
    words = shlex.split(line)
    place = words.index(DEPENDENCIES) + 1 if DEPENDENCIES in words else len(words)
    given = list(itertools.takewhile(lambda word: not word.startswith("-"), words[place:]))
    return f"\nseveral dependencies are one word: {DEPENDENCIES} {','.join(given)}" if len(given) > 1 else ""


def _told(kind: str | None, error: ConfigurationError) -> str:
    from .commands import group

    if kind in group.commands:
        return f"%%remote: there is no instance type {kind!r}; %remote {kind} is a command of one line"
    return f"%%remote: {error.message}" + (f"\n{error.hint}" if error.hint else "")


def _refuse_job_flags(options: Options) -> None:
    for name in OF_A_JOB:
        if name in options:
            flag = f"--{name.replace('_', '-')}"
            raise LineError(
                f"%%remote: {flag} is a job's, and the cell is one with --detach only; add --detach"
            )


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


@functools.cache
def command() -> click.Command:
    """Return the command that the line is of, for its help and its completion."""

    @click.command(name="%%remote")
    @click.argument("kind", metavar="[INSTANCE_TYPE]", required=False, type=INSTANCE_TYPE)
    @click.option(
        "--in", "sent", metavar="NAMES", help="Of what the cell uses, only these names go there: a,b"
    )
    @click.option(
        "--out", "back", metavar="NAMES", help="Of what the cell changes, only these names come back."
    )
    @click.option("--keep", is_flag=True, help="What the cell makes stays there; names stand for it here.")
    @click.option("--timeout", metavar="SECONDS", help="The same as --max-runtime-in-seconds.")
    @click.option("--spot", is_flag=True, help="The same as --use-spot-instances.")
    @click_options()
    def command(**_: object) -> None:
        """Run the cell in this notebook's worker, with the names that it uses; what it changes comes back.

        \b
        Examples:
          %%remote                          on the notebook's instance type (%remote use)
          %%remote gpu                      on another one
          %%remote --out model              only this name comes back
          %%remote --name fit               found by that name: %remote logs fit
          %%remote gpu --detach --name fit  a job of its own, which goes on when the kernel ends
        """

    for parameter in command.params:
        if parameter.name == "instance_type":
            parameter.type = INSTANCE_TYPE
        elif parameter.name == "name" and isinstance(parameter, click.Option):
            parameter.help = NAME_HELP
    return command
