"""How values are shown: settings of the notebook that hold where its cells run."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple


class Settings(NamedTuple):
    """What has changed of the notebook's settings.

    Attributes:
        shell: of IPython itself.
        pandas: options.
        numpy: print options.
        figures: of inline figures.
        folder: the notebook's working folder, where that has changed.
        parent: the id of the message that the front end has sent to run this.
    """

    shell: dict[str, Any] = {}  # noqa: RUF012 - never changed
    pandas: dict[str, Any] = {}  # noqa: RUF012
    numpy: dict[str, Any] = {}  # noqa: RUF012
    figures: dict[str, Any] = {}  # noqa: RUF012
    folder: str = ""
    parent: str = ""


def apply(settings: Settings, shell: Any) -> None:
    """Let settings hold here. A library is imported for them only where they are not its own defaults."""
    formatters: Any = shell.display_formatter.formatters
    for name, value in settings.shell.items():
        if name == "ast_node_interactivity":
            shell.ast_node_interactivity = value
        else:
            setattr(formatters["text/plain"], name, value)
    if settings.pandas and (pandas := _module("pandas")) is not None:
        _set_each(pandas.set_option, settings.pandas)
    if settings.numpy and (numpy := _module("numpy")) is not None:
        numpy.set_printoptions(**settings.numpy)
    if settings.figures and (inline := _module("matplotlib_inline")) is not None:
        config: Any = importlib.import_module("matplotlib_inline.config")
        made = config.InlineBackend.instance(parent=shell)
        _set_each(functools.partial(setattr, made), settings.figures)
        if "matplotlib.pyplot" in sys.modules:
            backend: Any = importlib.import_module(f"{inline.__name__}.backend_inline")
            backend.configure_inline_support(shell, "inline")


def _module(name: str) -> Any:
    if name in sys.modules:
        return sys.modules[name]
    return importlib.import_module(name) if importlib.util.find_spec(name) is not None else None


def _set_each(put: Any, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        try:
            put(name, value)
        except Exception:  # noqa: S112 - another version has no such option
            continue
