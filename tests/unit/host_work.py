"""What tests of host tools call: it imports nothing that a bare host lacks."""

from __future__ import annotations

import importlib.metadata
import sys


def tell() -> tuple[str, str, list[str]]:
    """The interpreter that runs this, its prefix, and the distributions that it finds."""
    return (
        sys.executable,
        sys.prefix,
        [found.metadata["Name"] for found in importlib.metadata.distributions()],
    )
