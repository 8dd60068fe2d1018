"""A test may skip itself where something is not to be had, by name; but CI must have it all: there that is a failure.

A pytest plugin. What may be missing in CI, too, stands here with its reason, and nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any, TypeVar

import pytest

HOLD_IN_CI = (
    "NVML finds no GPU here",  # CI has none: `test_real_gpu` is for machines that have, elsewhere a stand-in serves
    "there is one GPU only",
)
# CPython's own tests of executors: what of them does not apply is listed in that file, each with its reason
OF_CPYTHON = "tests/stdlib/test_suite.py::"
# of one run in CI, such as that on a Python for which there is no PyTorch: words of reasons, divided by commas
MAY_LACK = tuple(filter(None, os.environ.get("TESTS_MAY_LACK", "").split(",")))

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Look at each phase of a test."""
    return _judged((yield), item.config)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Look at modules that skip themselves whole."""
    return _judged((yield), collector.config)


def _judged(report: Report, config: pytest.Config) -> Report:
    if report.outcome != "skipped" or hasattr(report, "wasxfail") or os.environ.get("CI") != "true":
        return report
    reason = _reason(report.longrepr)
    if report.nodeid.startswith(OF_CPYTHON) or any(word in reason for word in (*HOLD_IN_CI, *MAY_LACK)):
        return report
    report.outcome = "failed"
    report.longrepr = f"CI must be able to run this: {reason}"
    return report


def _reason(told: Any) -> str:
    return str(told[2]).removeprefix("Skipped: ") if isinstance(told, tuple) else str(told)
