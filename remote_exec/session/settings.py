"""How values are shown: settings of the notebook that hold where its cells run."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple, cast


class Filter(NamedTuple):
    """What becomes of some warnings: as `warnings.filterwarnings` takes it, but for the category's name."""

    action: str
    message: str
    module_of_category: str
    category: str
    module: str
    lineno: int


class Settings(NamedTuple):
    """What has changed of the notebook's settings.

    Attributes:
        shell: of IPython itself.
        pandas: options.
        numpy: print options.
        figures: of inline figures.
        filters: of warnings, that have been added; the first one comes first.
        lifted: of warnings, that are no more.
        folder: the notebook's working folder, where that has changed.
        parent: the id of the message that the front end has sent to run this.
    """

    shell: dict[str, Any] = {}  # noqa: RUF012 - never changed
    pandas: dict[str, Any] = {}  # noqa: RUF012
    numpy: dict[str, Any] = {}  # noqa: RUF012
    figures: dict[str, Any] = {}  # noqa: RUF012
    filters: tuple[Filter, ...] = ()
    lifted: frozenset[Filter] = frozenset()
    folder: str = ""
    parent: str = ""


def apply(settings: Settings, shell: Any) -> None:
    """Let settings hold here. A library is imported for them only where they are not its own defaults."""
    if settings.lifted:
        _lift(settings.lifted)
    for each in reversed(settings.filters):
        _add(each)
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


def filters_here() -> list[Filter]:
    """Return the filters of warnings in this process, but for those of categories that it has made itself."""
    found: list[Filter] = []
    for action, message, category, module, lineno in warnings.filters:
        kind: Any = category
        if kind.__module__ != "__main__":
            texts = _pattern(message), kind.__module__, kind.__qualname__, _pattern(module)
            found.append(Filter(action, *texts, lineno))
    return found


def _pattern(pattern: Any) -> str:
    return str(getattr(pattern, "pattern", pattern) or "")


def _add(told: Filter) -> None:
    with contextlib.suppress(Exception):  # there is no such category
        category: Any = functools.reduce(
            getattr, told.category.split("."), importlib.import_module(told.module_of_category)
        )
        warnings.filterwarnings(cast("Any", told.action), told.message, category, told.module, told.lineno)


def _lift(lifted: frozenset[Filter]) -> None:
    kept = [each for each in filters_here() if each not in lifted]
    warnings.resetwarnings()
    for each in reversed(kept):
        _add(each)


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
