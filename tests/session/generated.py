"""Notebooks that are generated: cells from templates, run at their ends and, beside that, all here."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from hypothesis import note
from hypothesis import strategies as st

from .notebook import Notebook, Process
from .shape import shape_of

Cell = tuple[bool, str]  # whether it runs there, and its source


def cells(templates: Sequence[str], pools: Mapping[str, Sequence[str]]) -> st.SearchStrategy[Cell]:
    """Return what draws cells. The arguments are those of `sources`."""
    return st.tuples(st.booleans(), sources(templates, pools))


def sources(templates: Sequence[str], pools: Mapping[str, Sequence[str]]) -> st.SearchStrategy[str]:
    """Return what draws the source of a cell.

    Args:
        templates: of statements; a field such as ``{l}`` or ``{l2}`` stands for a name of that kind.
        pools: the names of each kind.
    """

    @st.composite
    def statements(draw: st.DrawFn) -> str:
        template = draw(st.sampled_from(templates))
        fields = {field: pool for kind, pool in pools.items() for field in (kind, f"{kind}2")}
        wanted = {field: pool for field, pool in fields.items() if f"{{{field}}}" in template}
        return template.format(**{field: draw(st.sampled_from(pool)) for field, pool in wanted.items()})

    return st.lists(statements(), min_size=1, max_size=4).map("\n".join)


def run_both_ways(
    process: Process,
    notebook: Iterable[Cell],
    *,
    seen: Callable[[dict[str, Any]], object] = shape_of,
    plain: Callable[[str], str] = str,
) -> None:
    """Run each cell at its end, and here; what is to be seen of it afterwards must be the same.

    Args:
        process: the far end.
        notebook: its cells.
        seen: of a namespace.
        plain: makes texts of exceptions comparable.
    """
    main = sys.modules["__main__"]
    try:
        mirrored, local = Notebook(process), types.ModuleType("__main__").__dict__
        for there, source in notebook:
            note(f"--- {'there' if there else 'here'}\n{source}")
            failure = ""
            try:
                exec(compile(source, "<cell>", "exec"), local)
            except Exception as error:
                failure = f"{type(error).__name__}: {error}"
            run = mirrored.there if there else mirrored.here
            assert plain(run(source)) == plain(failure)
            assert not mirrored.cannot
            assert seen(mirrored.names) == seen(local)
    finally:
        sys.modules["__main__"] = main
