"""The standard library's own tests of executors, run against `RemoteExecutor` and `RemoteFuture`.

Its test classes are mixed with an executor of ours, as it mixes them with those of the standard library. Where it
speaks of what only a process pool has, the test is excluded by name, with the reason.
"""

from __future__ import annotations

import multiprocessing
import os
import unittest
import unittest.mock
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

import pytest
from stdlib_pool import ProcessPoolShaped
from stdlib_suite import Suite, find_suite

from remote_exec.future import RemoteFuture

try:
    SUITE = find_suite()
except unittest.SkipTest as skip:
    pytest.skip(str(skip), allow_module_level=True)

PRIVATE = "reads attributes of ProcessPoolExecutor that are private to it"
PRIMITIVE = "passes a multiprocessing primitive as an argument: only a child process can be given one"
RECYCLING = "max_tasks_per_child is a parameter of ProcessPoolExecutor alone"
OURS_AT_HOME = "a result that exits on loading ends only its own call here, with SystemExit: nothing is broken by it"
SERIALIZATION = "what cannot be loaded over there ends its own call with its own error; the pool works on"
# What is excluded, why, and since which Python the suite has it.
EXCLUDED: dict[str, tuple[str, tuple[int, ...]]] = {
    "ProcessPoolExecutorTest.test_killed_child": (f"{PRIVATE}; one death does not break ours", (3, 11)),
    "ProcessPoolExecutorTest.test_saturation": (f"{PRIVATE}, and {PRIMITIVE}", (3, 11)),
    "ProcessPoolExecutorTest.test_idle_process_reuse_one": (PRIVATE, (3, 11)),
    "ProcessPoolExecutorTest.test_idle_process_reuse_multiple": (PRIVATE, (3, 11)),
    "ProcessPoolExecutorTest.test_max_tasks_per_child": (RECYCLING, (3, 11)),
    "ProcessPoolExecutorTest.test_max_tasks_per_child_defaults_to_spawn_context": (RECYCLING, (3, 11)),
    "ProcessPoolExecutorTest.test_max_tasks_early_shutdown": (RECYCLING, (3, 11)),
    "ProcessPoolShutdownTest.test_processes_terminate": (f"{PRIVATE}, and {PRIMITIVE}", (3, 11)),
    "ProcessPoolShutdownTest.test_context_manager_shutdown": (PRIVATE, (3, 11)),
    "ProcessPoolShutdownTest.test_del_shutdown": (PRIVATE, (3, 11)),
    "ProcessPoolShutdownTest.test_shutdown_no_wait": (PRIVATE, (3, 11)),
}


class OurMixin:
    """What stands in the place of the suite's ProcessPool…Mixin."""

    executor_type = ProcessPoolShaped

    def get_context(self) -> Any:
        """The suite hands it to the executor, which has no use for it."""
        return multiprocessing.get_context("spawn")


def _run_script(run: Callable[..., Any]) -> Callable[..., Any]:
    """The scripts that the suite runs import the executor from `concurrent.futures`: put ours there."""
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent), SUITE.folder]))
    ours = "import concurrent.futures, stdlib_pool\nconcurrent.futures.ProcessPoolShaped = stdlib_pool.ProcessPoolShaped\n"

    def run_script(flag: str, script: str, **variables: str) -> Any:
        script = script.replace("test.test_concurrent_futures", SUITE.name)
        return run(flag, ours + script, **{"PYTHONPATH": path, **variables})

    return run_script


def _adopt(name: str, *, with_executor: bool = True) -> type[unittest.TestCase]:
    """Make a test case of one of the suite's classes."""
    theirs, base = SUITE.find(name), SUITE.find("BaseTestCase")
    mixins = (OurMixin, SUITE.find("ExecutorMixin")) if with_executor else ()
    bases = tuple(cls for cls in (theirs, *mixins, base) if cls is not base or not issubclass(theirs, base))

    def setup(self: unittest.TestCase) -> None:
        replaced = {"BrokenProcessPool": BrokenExecutor, "Future": RemoteFuture}
        if hasattr(SUITE.modules[0], "assert_python_ok") or True:
            from test.support.script_helper import assert_python_ok

            replaced["assert_python_ok"] = _run_script(assert_python_ok)
        for patch in SUITE.replace(replaced):
            patch.start()
            self.addCleanup(patch.stop)
        super(made, self).setUp()

    made = type(f"Remote{name}", bases, {"setUp": setup, "__module__": __name__})
    for excluded, (reason, _) in EXCLUDED.items():
        cls, test = excluded.split(".")
        if cls == name and hasattr(made, test):
            setattr(made, test, unittest.skip(reason)(lambda self: None))
    return made


ADOPTED = ("ProcessPoolExecutorTest", "ProcessPoolShutdownTest", "WaitTests", "AsCompletedTests", "InitializerMixin",
           "FailingInitializerMixin", "ExecutorDeadlockTest")  # fmt: skip
for _name in ADOPTED:
    globals()[f"Remote{_name}"] = _adopt(_name)
RemoteFutureTests = _adopt("FutureTests", with_executor=False)
