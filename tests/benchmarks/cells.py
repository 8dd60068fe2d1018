"""Cells of a notebook: what keeping its two namespaces the same costs, the far one in another process."""

from __future__ import annotations

import hashlib
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..session.notebook import Notebook, Process
from .harness import Bench, Sample, calls_timed, measured, megabytes, timed, timer


def cells(bench: Bench) -> None:
    """Small cells, an unchanged frame of 200 MB in use, a million small lists."""
    main = sys.modules["__main__"]
    process = Process()
    try:
        _small_cell(bench, Notebook(process))
        _frame(bench, Notebook(process))
        _many_objects(bench, Notebook(process))
    finally:
        process.close()
        sys.modules["__main__"] = main


def _small_cell(bench: Bench, notebook: Notebook) -> None:
    notebook.here("x = 1\nnumbers = [1, 2]\ndef f(a):\n    global x\n    x += a\n    return x")
    notebook.there("f(1)")

    def cell(_: int) -> None:
        notebook.there("f(1); y = len(numbers)")

    calls_timed(cell, calls=20)
    took = Sample.of(calls_timed(cell, calls=bench.rounds(300), at_most_seconds=5.0))
    asked = Sample.of(calls_timed(lambda _: notebook.process.ask("size"), calls=bench.rounds(300)))
    bench.within(
        "small cell: both namespaces kept the same, beside the way there and back",
        took.median - asked.median,
        limit=2e-3,
        note=f"cell {took}, way {asked}",
    )


def _frame(bench: Bench, notebook: Notebook) -> None:
    try:
        import pandas
    except ModuleNotFoundError:
        bench.missing.add("pandas")
        return
    rows = 250_000 if bench.quick else 2_500_000
    notebook.here(
        f"import numpy as np, pandas as pd\ndf = pd.DataFrame({{c: np.arange({rows}.0) for c in 'abcdefghij'}})"
    )
    assert isinstance(notebook["df"], pandas.DataFrame)
    data = notebook["df"].to_numpy().tobytes()
    with _in_use(notebook, "n = len(df)"):
        found = measured(
            bench.rounds(9),
            {
                "cell": timer(lambda: notebook.there("n = len(df)")),
                "without": timer(lambda: notebook.there("n = 1")),
                "sha256": timer(lambda: hashlib.sha256(data).digest()),
            },
        )
    more = found["cell"].median - found["without"].median
    bench.compared(
        f"unchanged frame of {megabytes(len(data))} in use: what it adds to a cell",
        (more, str(found["cell"])),
        (found["sha256"].median, f"SHA-256 over it {found['sha256']}"),
        limit=1.5,
    )
    notebook.here("df.iloc[7, 3] = -1.0")
    notebook.there("seen = df.iloc[7, 3]; df.iloc[8, 4] = -2.0")
    assert (notebook["seen"], notebook["df"].iloc[8, 4]) == (-1.0, -2.0)
    bench.figure(
        "one number of it changed at each end",
        f"{megabytes(notebook.sent)} and {megabytes(notebook.came)} travelled",
    )


def _many_objects(bench: Bench, notebook: Notebook) -> None:
    count = 100_000 if bench.quick else 1_000_000
    notebook.here(f"big = [[n, n + 1] for n in range({count})]")
    big: Any = notebook["big"]

    def through_pickle() -> None:
        pickle.loads(pickle.dumps(big, 5))

    alone = Sample.of([timed(through_pickle) for _ in range(bench.rounds(3))])
    first = Sample.of([timed(lambda: notebook.there("n = len(big)"))])
    bench.beside(
        f"{count:,} small lists: the first cell that uses them", first, alone, name="pickle and back"
    )
    again = Sample.of([timed(lambda: notebook.there("n = len(big)")) for _ in range(bench.rounds(3))])
    bench.beside(
        f"{count:,} small lists: a later cell, nothing changed", again, alone, name="pickle and back"
    )
    changed = Sample.of([timed(lambda: notebook.there("big[5].append(1)"))])
    bench.beside(f"{count:,} small lists: a cell that changes one", changed, alone, name="pickle and back")


@contextmanager
def _in_use(notebook: Notebook, source: str) -> Iterator[None]:
    failure = notebook.there(source)
    assert not failure, failure
    yield
