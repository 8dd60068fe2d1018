"""The reference page of the options, derived from the table."""

from __future__ import annotations

from typing import Any

from .option_set import BACKENDS, CORE, Door, Option, Origin
from .table import Options

_PREAMBLE = """\
# Options

<!-- Made by `python -m remote_exec.options --write docs/reference/options.md`; do not edit. -->

An option is a keyword argument of `remote`, `RemoteExecutor` and `f.options(...)`. Unless it says otherwise
it is also a key of `[tool.remote_exec]` in `pyproject.toml` and of the user's file
`~/.config/remote_exec/config.toml`, an environment variable (`REMOTE_EXEC_` and its name in capitals), and a
flag of `remote-exec run` (`--` and its name with dashes). In variables a list has commas between, commands
and requirements a line each, or as JSON.

When several places set an option, the first of these wins; values are never merged:

{origins}

`remote-exec config show` tells which one did. `None` leaves an option to the places below.

**Read by** names the backends that an option makes a difference to; without it, all of them. Any other
ignores the option with one warning, or refuses it where it is marked *strict*, since ignoring it would change
the outcome.
"""


def options_markdown() -> str:
    """Return the page ``docs/reference/options.md``."""
    parts = [_PREAMBLE.format(origins="\n".join(f"{n}. {_ORIGINS[o]}" for n, o in enumerate(Origin, 1)))]
    for group in dict.fromkeys(row.group for row in Options.rows.values()):
        parts.append(f"\n## {group}\n")
        parts.extend(_entry(row) for row in Options.rows.values() if row.group == group)
    return "\n".join(parts)


_ORIGINS = {
    Origin.CALL: "the call: `f.options(...)`, a flag",
    Origin.DECORATOR: "the decorator `@remote(...)`, or `RemoteExecutor(...)`",
    Origin.ENVIRONMENT: "environment variables `REMOTE_EXEC_*`",
    Origin.INSTANCE: "the table `[tool.remote_exec.instances.NAME]` of the instance type that is used",
    Origin.PROJECT: "the project file: the nearest `pyproject.toml` upwards that has `[tool.remote_exec]`",
    Origin.USER: "the user file",
    Origin.SAGEMAKER: "SageMaker's own configuration files (`SageMaker.PythonSDK.Modules.RemoteFunction`)",
    Origin.DEFAULT: "the default",
}


def _entry(row: Option[Any]) -> str:
    facts = [
        f"Takes {row.kind.text} (`{row.kind.accepts}`).",
        f"Default: {f'`{row.shown(row.default)}`' if row.default is not None else row.unset}.",
    ]
    if CORE not in row.readers:
        strict = ", *strict*" if row.must_read else ""
        facts.append(f"Read by: {', '.join(b for b in BACKENDS if b in row.readers)}{strict}.")
    if row.doors != frozenset(Door):
        facts.append(f"Set by: {', '.join(door.value for door in Door if door in row.doors)}.")
    if row.sagemaker:
        facts.append("A parameter of SageMaker's `@remote`, too.")
    return f"### `{row.name}`\n\n{row.help}\n\n{' '.join(facts)}\n"
