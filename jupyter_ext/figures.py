"""Figures that have come from elsewhere are shown as those made here."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from typing import Any

INLINE = "module://matplotlib_inline.backend_inline"


def make_ready(value: Any) -> None:
    """Where a value is a figure, see to it that this notebook can show one: importing pyplot would have done so."""
    figures = sys.modules.get("matplotlib.figure")
    if figures is not None and isinstance(value, figures.Figure) and os.environ.get("MPLBACKEND") == INLINE:
        with contextlib.suppress(ImportError):
            importlib.import_module("matplotlib_inline.backend_inline")
