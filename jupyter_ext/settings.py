"""Which settings of this notebook its cells need elsewhere: those that are not the libraries' own, and have changed."""

from __future__ import annotations

import os
import sys
from typing import Any

from remote_exec.session.settings import Filter, Settings, filters_here

NUMPY_DEFAULTS: dict[str, Any] = {
    "edgeitems": 3,
    "threshold": 1000,
    "floatmode": "maxprec",
    "precision": 8,
    "suppress": False,
    "linewidth": 75,
    "nanstr": "nan",
    "infstr": "inf",
    "sign": "-",
    "formatter": None,
}
SHELL_DEFAULTS: dict[str, Any] = {
    "ast_node_interactivity": "last_expr",
    "float_precision": "",
    "pprint": True,
}
DEFAULT_FILTERS = frozenset(  # those of an interpreter that has just started
    Filter(action, "", "builtins", category, module, 0)
    for action, category, module in (
        ("default", "DeprecationWarning", "__main__"),
        ("ignore", "DeprecationWarning", ""),
        ("ignore", "PendingDeprecationWarning", ""),
        ("ignore", "ImportWarning", ""),
        ("ignore", "ResourceWarning", ""),
    )
)
FIGURES = ("figure_formats", "print_figure_kwargs", "close_figures")


class TellSettings:
    """Knows what has been told to one far end.

    Args:
        shell: this notebook's IPython.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._told: dict[str, dict[str, Any]] = {"shell": {}, "pandas": {}, "numpy": {}, "figures": {}}
        self._filters: list[Filter] = []
        self._folder = ""

    def changed(self) -> Settings:
        """Return what has changed, and take it for told."""
        folder = self._changed_folder()
        return Settings(
            self._news("shell", self._of_shell(), SHELL_DEFAULTS),
            self._news("pandas", *_of_pandas()),
            self._news("numpy", _of_numpy(), NUMPY_DEFAULTS),
            self._news("figures", self._of_figures(), {}),
            *self._changed_filters(),
            folder,
            self._parent(),
        )

    def _news(self, group: str, now: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
        told = self._told[group]
        news = {name: value for name, value in now.items() if told.get(name, defaults.get(name)) != value}
        told.update(news)
        return news

    def _of_shell(self) -> dict[str, Any]:
        plain = self._shell.display_formatter.formatters["text/plain"]
        return {
            "ast_node_interactivity": self._shell.ast_node_interactivity,
            "float_precision": plain.float_precision,
            "pprint": plain.pprint,
        }

    def _of_figures(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in dict(self._shell.config.get("InlineBackend", {})).items():
            if name in FIGURES:
                found[name] = value
        if "matplotlib_inline.config" in sys.modules:
            kind: Any = sys.modules["matplotlib_inline.config"].InlineBackend
            if kind.initialized():
                made = kind.instance()
                found.update((name, getattr(made, name)) for name in FIGURES if name in made._trait_values)
        return found

    def _changed_filters(self) -> tuple[tuple[Filter, ...], frozenset[Filter]]:
        former, self._filters = self._filters, [one for one in filters_here() if one not in DEFAULT_FILTERS]
        added = tuple(one for one in self._filters if one not in former)
        return added, frozenset(former).difference(self._filters)

    def _changed_folder(self) -> str:
        try:
            folder = os.getcwd()
        except FileNotFoundError:
            return ""
        changed, self._folder = folder != self._folder, folder
        return folder if changed else ""

    def _parent(self) -> str:
        kernel = getattr(self._shell, "kernel", None)
        header: dict[str, Any] = kernel.get_parent().get("header", {}) if kernel is not None else {}
        return str(header.get("msg_id", ""))


def _of_numpy() -> dict[str, Any]:
    if "numpy" not in sys.modules:
        return {}
    now: dict[str, Any] = sys.modules["numpy"].get_printoptions()
    return {name: now[name] for name in NUMPY_DEFAULTS if name in now}


def _of_pandas() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the display options of pandas, and their defaults."""
    config: Any = sys.modules.get("pandas._config.config")
    registered: dict[str, Any] = getattr(config, "_registered_options", {})
    old: dict[str, Any] = getattr(config, "_deprecated_options", {})
    names = [name for name in registered if name.startswith(("display.", "styler.")) and name not in old]
    return {name: config.get_option(name) for name in names}, {
        name: registered[name].defval for name in names
    }
