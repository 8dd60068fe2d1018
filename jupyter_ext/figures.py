"""Figures that have come from elsewhere are shown as those made here."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterable
from typing import Any

INLINE = "module://matplotlib_inline.backend_inline"


def make_ready(values: Iterable[Any]) -> None:
    """Where a value is a figure, see to it that this notebook can show one: making one here would have done so."""
    figures = sys.modules.get("matplotlib.figure")
    if figures is None or os.environ.get("MPLBACKEND") != INLINE:
        return
    if any(isinstance(value, figures.Figure) for value in values):
        with contextlib.suppress(ImportError):
            importlib.import_module("matplotlib_inline.backend_inline")
