"""Generated notebooks of arrays: memory that arrays share here is shared there, whichever end has made them."""

# ruff: noqa: E501 - cells stand in one line each

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .generated import Cell, cells, run_both_ways
from .notebook import Process
from .shape import shape_of

ARRAYS = [
    "{a} = np.arange({i}, {i} + 12.0)", "{a} = np.arange(12.0).reshape(3, 4)", "{a} = {a2}", "{a} = {a2}[1:]", "{a} = {a2}[::2]",
    "{a} = {a2}[::-1]", "{a} = {a2}.T", "{a} = {a2}.reshape(-1)", "{a} = {a2}[..., 1:3]", "{a} = {a2}[..., 1]",
    "{a} = {a2}.copy()", "{a} = {a2} + 1", "{a} = {a2}.view('i8')", "{a} = np.broadcast_to({a2}, (2, *{a2}.shape))",
    "{a} = np.arange(24.0).reshape(2, 3, 4)[:, 1]", "{a} = np.asfortranarray({a2}.reshape(2, -1))", "{a} = {a2}.ravel('K')",
    "{a} = {l}[0]", "{a} = {d}['k']", "{a} = {o}.v", "{a} = np.diag({a2}.reshape(2, -1))",
    "{a} = np.lib.stride_tricks.sliding_window_view({a2}.reshape(-1), 2)", "{a} = np.frombuffer({b}, np.uint8)", "{a} = np.frombuffer({b}, 'i2')[1:]",
    "{a} = np.zeros(6, [('x', 'i2'), ('y', 'f4')])", "{a} = {a2}['y']", "{a} = np.array([{l}, {d}, 3, None], object)", "{a}, {a2} = {a2}[:3], {a2}[2:]",
    "{a} = {a2}.view(); {a}.flags.writeable = False", "{a} = {a2}.swapaxes(0, -1)", "{a} = np.zeros((60, 200))", "{a} = np.full(20_000, {i}, 'f4')",
    "{a}, {a2} = np.ones((5, 3)).T[:2]", "{a} = {a2}.reshape(2, -1)[1]", "{a} = np.frombuffer({c}, 'i4')", "{a} = {a2}[:0]", "{a} = {a2}.astype('M8[s]')",
]  # fmt: skip
CHANGES = [
    "{a}[0] = {i}", "{a}[...] = {i}", "{a} += 1", "{a}[-1] = {a2}[0]", "{a} *= 2", "{a}.sort()", "{a}[1:] = 7", "np.add({a2}, 1, out={a2})",
    "{a}.flags.writeable = False", "{a}.fill({i})", "{a}[..., 0] -= 1", "{b}[0] = {i}", "{b}[3:5] = b'xy'", "{m}[1] = {i}", "{c}[1] = {i}", "{a}.flat[-1] = {i}",
]  # fmt: skip
OTHERS = [
    "{l} = [{a}, {a2}]", "{l}.append({a})", "{d}['k'] = {a}", "{d} = {{'k': {a}, 'l': {l}}}", "{o}.v = {a}", "{o} = {o2}", "{l} = {l2}", "{l}[0] = {a}[:2]",
    "{o}.v[0] = {i}", "{d}['k'][-1] = {i}", "{l}[0][0] = {i}", "{b} = bytearray({i} + 10)", "{b} = {b2}", "{m} = memoryview({b})", "{m} = {m2}[1:4]", "{m} = {m2}[::-1]",
    "{m} = memoryview({a} if {a}.dtype.kind in 'if' else {b})", "{c} = array.array('i', range(4))", "{c} = {c2}", "{l}.append({c})", "{d}['b'] = {b}",
    "{i} = int({a}.sum())", "{i} = int({a}[0])", "{i} = np.shares_memory({a}, {a2}) + 0", "{i} = len({m})", "{i} = {b}[0]", "def {f}():\n    {a}[0] = {i}\n    return {a}[1:]",
    "{a} = {f}()", "{f}()", "def {f}(x={a}):\n    x[-1] += 1\n    return x[::2]", "{i} = {l}[0] is {a}", "{i} = {c}[0]",
]  # fmt: skip
ENDS = ["del {a}", "del {l}", "1 / 0", "del {b}, {m}", "del {d}", "del {a}, {a2}", "del {o}"]
ALL = ARRAYS + CHANGES * 2 + OTHERS + ENDS
POOL = {**{kind: [f"{kind}{n}" for n in range(4 if kind == "a" else 2)] for kind in "albmcdoi"}, "f": ["f0"]}
FIRST = (
    "import numpy as np, array\na0 = np.arange(10.0); a1 = a0[2:6]; a2 = np.zeros((3, 4)); a3 = a2.T; i0 = 1; i1 = 2\n"
    "b0 = bytearray(12); b1 = b0; m0 = memoryview(b0)[2:8]; m1 = m0; c0 = array.array('i', [1, 2, 3]); c1 = c0\n"
    "class O: pass\no0 = O(); o0.v = a0[:3]; o1 = O(); o1.v = a1; l0 = [a0, a2]; l1 = [a1]; d0 = {'k': a1}; d1 = {'k': a3}\n"
    "def f0(): return a0"
)


@pytest.mark.timeout(1800)  # of a deep run
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    notebook=st.lists(cells(ALL, POOL), min_size=1, max_size=8),
    begun=st.sampled_from(["i0 = 1", "i0 = a0, a2", "a0, a1, a2, a3, b0, m0, c0, d0"]),
)
def test_arrays_are_as_if_all_ran_here(process: Process, notebook: list[Cell], begun: str) -> None:
    pytest.importorskip("numpy")
    run_both_ways(process, [(False, FIRST), (True, begun), *notebook], seen=_shape_and_sharing)


def _shape_and_sharing(namespace: dict[str, Any]) -> object:
    return shape_of(namespace), _sharing(namespace)


def _sharing(namespace: dict[str, Any]) -> list[tuple[str, str]]:
    """Return which of the arrays that names stand for share memory."""
    import numpy

    arrays = [(name, value) for name, value in sorted(namespace.items()) if type(value) is numpy.ndarray]
    return [
        (one, other)
        for (one, first), (other, second) in combinations(arrays, 2)
        if numpy.shares_memory(first, second)
    ]
