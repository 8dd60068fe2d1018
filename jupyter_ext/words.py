"""Words that lines are completed with."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from remote_exec.config import load_config
from remote_exec.errors import ConfigurationError


def instance_types() -> dict[str, str]:
    """Return the instance types that the configuration has -> their backends; ``local`` is always there.

    Raises:
        ConfigurationError: a configuration file is wrong.
    """
    return {"local": "local"} | {name: found.backend for name, found in load_config().instances.items()}


class InstanceTypeWord(click.types.StringParamType):
    """An instance type's name, with its completion; nobody is asked."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the names that begin so."""
        try:
            found = instance_types()
        except ConfigurationError:
            return []
        return [
            CompletionItem(name, help=kind) for name, kind in found.items() if name.startswith(incomplete)
        ]


INSTANCE_TYPE = InstanceTypeWord()
