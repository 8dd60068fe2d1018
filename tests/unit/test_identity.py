"""What counts as the same argument of a call that is cached."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from remote_exec.capture.identity import digest_of


def _frame() -> Any:
    return pd.DataFrame({"n": [1, 2], "s": ["a", "b"], "c": pd.Categorical(["x", "y"])})


@pytest.mark.parametrize(
    ("value", "equal", "other"),
    [
        (1, 1, True),
        (1.0, 1.0, 1),
        ("a", "a", b"a"),
        ([1, 2], [1, 2], (1, 2)),
        ({1, 2, 3}, {3, 2, 1}, frozenset({1, 2, 3})),
        ({"a": 1, "b": 2}, {"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (np.arange(6).reshape(2, 3), np.arange(6).reshape(3, 2).copy().reshape(2, 3), np.arange(6)),
        (np.arange(4), np.arange(8)[:4], np.arange(4, dtype="i4")),
        (np.array([[1, 2]]).T, np.array([[1], [2]]), np.array([[1, 2]])),
        (_frame(), _frame(), _frame().rename(columns={"n": "m"})),
        (_frame()["s"], _frame()["s"], _frame()["c"]),
        ([[0], [0]], [[0], [0]], [[0]] * 2),
    ],
)
def test_equal_arguments_have_equal_digests_and_others_do_not(value: Any, equal: Any, other: Any) -> None:
    digest = digest_of(value, name="value")
    assert digest == digest_of(equal, name="value")
    assert digest != digest_of(other, name="value")
