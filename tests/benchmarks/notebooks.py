"""What `%%remote` costs a cell of a notebook, in a real kernel."""

from __future__ import annotations

import importlib.util

from .harness import Bench, Sample, measured, seconds

ADDED_SECONDS = 0.03
NEEDED = ("ipykernel", "jupyter_client")
SMALL = {
    "1 + 1": "1 + 1",
    "a list that changes": "numbers.append(len(numbers))\ntotal = sum(numbers)",
    "a function of the notebook": "mean(numbers)",
}


def small_cells(bench: Bench) -> None:
    """What `%%remote` adds to a small cell on a warm worker: the same cell with and without it, in one kernel."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        bench.missing.update(missing)
        return
    from ..notebooks.kernels import opened

    folder = bench.folder / "kernel"
    folder.mkdir()
    with opened(folder) as notebook:
        notebook.run("numbers = [1, 2, 3]\ndef mean(numbers):\n    return sum(numbers) / len(numbers)")
        for what, source in SMALL.items():
            found = measured(
                bench.rounds(50),
                {
                    "remote": lambda source=source: notebook.run(f"%%remote\n{source}").seconds,
                    "plain": lambda source=source: notebook.run(source).seconds,
                },
            )
            _added(bench, f"`%%remote` on a small cell ({what}): added", found["remote"], found["plain"])


def _added(bench: Bench, what: str, ours: Sample, plain: Sample) -> None:
    note = f"{seconds(ours.median)} beside {seconds(plain.median)} (medians of {ours.repetitions})"
    bench.within(what, ours.median - plain.median, limit=ADDED_SECONDS, note=note)
