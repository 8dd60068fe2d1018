"""A far end in a process of its own, for all tests of a module, and a notebook for each."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from .notebook import Notebook, Process


@pytest.fixture(scope="module")
def process() -> Iterator[Process]:
    """A process with a far end."""
    process = Process()
    yield process
    process.close()


@pytest.fixture
def notebook(process: Process) -> Iterator[Notebook]:
    """A new notebook; this process's `__main__` is its namespace meanwhile."""
    main = sys.modules["__main__"]
    yield Notebook(process)
    sys.modules["__main__"] = main
