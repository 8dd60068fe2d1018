"""Completion of `%%remote` and `%remote`: flags, commands, instance types, names of jobs.

What there is to complete is known to the click commands that read these lines, as in a shell.
"""

from __future__ import annotations

import re
from typing import Any

import click
from click.shell_completion import ShellComplete, split_arg_string
from IPython.core.completer import (
    CompletionContext,
    SimpleCompletion,
    SimpleMatcherResult,
    context_matcher,  # pyright: ignore[reportUnknownVariableType]
)

from . import line

_CELL = re.compile(r"\s*(?:%%|#[ \t]?%%)remote[ \t]+(?P<rest>.*)")
_LINE = re.compile(r"(?:.*=)?\s*%remote[ \t]+(?P<rest>.*)")


@context_matcher(identifier="jupyter_ext.remote", priority=200)  # type: ignore[untyped-decorator]
def remote_matcher(context: CompletionContext) -> SimpleMatcherResult:
    """Complete what stands before the cursor, if that is a line of the magics; a matcher of IPython's."""
    found = _command_at(context)
    if found is None:
        return {"completions": [], "suppress": False}
    command, rest = found
    words = split_arg_string(rest)
    incomplete = words.pop() if rest and not rest[-1].isspace() and words else ""
    items = ShellComplete(command, {}, command.name or "", "").get_completions(words, incomplete)
    fragment = (
        incomplete.partition("=")[2] if incomplete.startswith("-") and "=" in incomplete else incomplete
    )
    return {
        "completions": [SimpleCompletion(text=item.value, type=_type_of(item.value)) for item in items],
        "matched_fragment": fragment,
        "suppress": bool(items),
    }


def _command_at(context: CompletionContext) -> tuple[click.Command, str] | None:
    text = context.text_until_cursor
    before = context.full_text.split("\n")[: context.cursor_line]
    if not any(one.strip() for one in before) and (found := _CELL.fullmatch(text)):
        return line.command(), found["rest"]
    if found := _LINE.fullmatch(text):
        from . import commands

        return commands.group, found["rest"]
    return None


def _type_of(text: str) -> str:
    return "param" if text.startswith("-") else "text"


def install(shell: Any) -> None:
    """Have a shell complete these lines."""
    if remote_matcher not in shell.Completer.custom_matchers:
        shell.Completer.custom_matchers.append(remote_matcher)


def uninstall(shell: Any) -> None:
    """Have it forget them."""
    if remote_matcher in shell.Completer.custom_matchers:
        shell.Completer.custom_matchers.remove(remote_matcher)
