"""Prices, from a data file that lies in the package."""

import json
from pathlib import Path


def prices() -> dict[str, float]:
    """Return the price of each item."""
    found: dict[str, float] = json.loads(Path(__file__).with_name("prices.json").read_text(encoding="utf-8"))
    return found
