"""The options: one typed table, and what is derived from it.

For validation of keywords, layers and precedence, environment variables, flags, the reference page; not for
files (`remote_exec.config`) and what an option does (its readers). All is immutable; nothing has state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .doors import click_options, misspelt_variables, options_from_environment, options_from_flags
from .file_filter import CustomFileFilter
from .option_set import BACKENDS, Door, Option, OptionSet, Origin, Setting, Source, looks_secret, nearest
from .rules import check_readers, check_together
from .table import Options
from .values import Kind

if TYPE_CHECKING:
    from .keywords import OptionKeywords

__all__ = [
    "Options",
    "OptionKeywords",
    "check_readers",
    "check_together",
    "Source",
    "Origin",
    "Setting",
    "Option",
    "OptionSet",
    "Door",
    "Kind",
    "BACKENDS",
    "CustomFileFilter",
    "click_options",
    "options_from_flags",
    "options_from_environment",
    "misspelt_variables",
    "looks_secret",
    "nearest",
]


def __getattr__(name: str) -> object:
    # a TypedDict compiles each of its annotations: a millisecond that only type checkers have a use for
    if name == "OptionKeywords":
        from .keywords import OptionKeywords

        return OptionKeywords
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
