"""What `log_metrics` takes, and what of it is kept."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from remote_exec import log_metrics
from remote_exec.errors import ConfigurationError
from remote_exec.worker.metrics import KEPT_POINTS, Row, Thinning


@pytest.mark.parametrize(
    ("metrics", "step", "parameter", "text"),
    [
        ([1.0], None, "metrics", r"must map names to numbers, not be \[1.0\] \(list\)"),
        ({"loss": "0.3"}, None, "metrics", r"'0.3' \(str\) as 'loss', which is not one number"),
        ({"loss": [1, 2]}, None, "metrics", r"\[1, 2\] \(list\) as 'loss'"),
        ({"loss": None}, None, "metrics", "as 'loss'"),
        ({"": 1}, None, "metrics", "a name is a printable text"),
        ({3: 1}, None, "metrics", r"3 \(int\)"),
        ({"a\nb": 1}, None, "metrics", "a name is a printable text"),
        ({"loss": 1}, "3", "step", "must be a whole number"),
        ({"loss": 1}, 0.5, "step", "must be a whole number"),
        ({"loss": 1}, 1 << 53, "step", "must be less than"),
    ],
)
def test_what_is_no_metric_is_named(metrics: Any, step: Any, parameter: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^log_metrics: {parameter} .*{text}") as caught:
        log_metrics(metrics, step)
    assert caught.value.option == parameter


def test_values_of_numpy_are_numbers_and_at_home_nothing_becomes_of_them() -> None:
    numpy = pytest.importorskip("numpy")
    log_metrics({"loss": numpy.float32(0.5), "all": numpy.array(3), numpy.str_("name"): True}, numpy.int64(4))
    log_metrics({}, None)


def thinned(rows: list[Row]) -> list[Row]:
    kept: list[Row] = []
    thinning = Thinning(kept.extend)
    for row in rows:
        thinning.add([row])
    thinning.finish()
    return kept


def test_points_are_kept_one_by_one_then_by_their_time_and_always_the_last() -> None:
    seconds = 10 * 3600
    kept = [at for _, at, *_ in thinned([["loss", at / 10, at, 0.0] for at in range(10 * seconds)])]
    assert kept[:KEPT_POINTS] == [at / 10 for at in range(KEPT_POINTS)]
    assert len(kept) < 4 * KEPT_POINTS
    assert max(after - before for before, after in itertools.pairwise(kept)) < seconds / 1000
    assert kept[-1] == seconds - 0.1


def test_one_that_is_held_back_is_let_through_when_its_time_has_come() -> None:
    kept: list[Row] = []
    thinning = Thinning(kept.extend)
    for at in range(KEPT_POINTS):
        thinning.add([["loss", float(at), at, 0.0]])
    thinning.add([["loss", KEPT_POINTS - 0.5, -1, 0.0]])
    assert thinning.waiting
    thinning.tick(KEPT_POINTS - 0.4)
    assert kept[-1][2] == KEPT_POINTS - 1
    thinning.tick(KEPT_POINTS + 1.0)
    assert (kept[-1][2], thinning.waiting) == (-1, False)
    thinning.finish()
    assert len(kept) == KEPT_POINTS + 1


def test_a_clock_that_is_set_back_keeps_nothing_from_being_kept() -> None:
    rows = [["loss", float(at), at, 0.0] for at in range(KEPT_POINTS)]
    kept = thinned([*rows, ["loss", 3.0, -1, 0.0], ["loss", 3.1, -2, 0.0]])
    assert [row[2] for row in kept[-2:]] == [-1, -2]
