"""Generated notebooks with two sessions: wherever a cell runs, all is as if everything had run here."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from .generated import sources
from .notebook import Notebook, Process
from .shape import shape_of
from .test_generated_cells import ALL, FIRST, POOL

HERE = 2
cells = st.tuples(st.integers(0, HERE), sources(ALL, POOL))


@pytest.fixture(scope="module")
def processes(process: Process) -> Iterator[tuple[Process, Process]]:
    """Two processes with a far end each."""
    other = Process()
    yield process, other
    other.close()


@pytest.mark.timeout(1800)  # of a deep run
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(notebook=st.lists(cells, min_size=1, max_size=8))
def test_notebooks_are_as_if_all_ran_here(
    processes: tuple[Process, Process], notebook: list[tuple[int, str]]
) -> None:
    main = sys.modules["__main__"]
    try:
        ends = [first := Notebook(processes[0]), Notebook(processes[1], beside=first)]
        local = types.ModuleType("__main__").__dict__
        for where, source in [(HERE, FIRST), (0, "i0 = l0, d0, f0, C0"), (1, "i0 = 1"), *notebook]:
            note(f"--- {'here' if where == HERE else f'there, in {where}'}\n{source}")
            failure = ""
            try:
                exec(compile(source, "<cell>", "exec"), local)
            except Exception as error:
                failure = f"{type(error).__name__}: {error}"
            ran = ends[0].here(source) if where == HERE else ends[where].there(source)
            for end in ends:
                end.mirror.prune()
            assert ran.split(" at 0x")[0] == failure.split(" at 0x")[0]
            assert not {**ends[0].cannot, **ends[1].cannot}
            assert shape_of(ends[0].names) == shape_of(local)
    finally:
        sys.modules["__main__"] = main
