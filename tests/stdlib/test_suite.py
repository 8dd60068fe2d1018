"""The standard library's own tests of executors, run against `RemoteExecutor` and `RemoteFuture`.

Its test classes are mixed with an executor of ours, as it mixes them with those of the standard library. Where it
speaks of what only a process pool has, the test is excluded by name, with the reason.
"""

from __future__ import annotations

import logging
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
from stdlib_suite import find_suite

from remote_exec.errors import SerializationError
from remote_exec.future import RemoteFuture

try:
    SUITE = find_suite()
except unittest.SkipTest as skip:
    pytest.skip(str(skip), allow_module_level=True)

from test.support.script_helper import assert_python_ok

PRIVATE = "reads attributes that are private to ProcessPoolExecutor"
PRIMITIVE = "passes a multiprocessing primitive as an argument: only a child process can be given one"
RECYCLING = "max_tasks_per_child is a parameter of ProcessPoolExecutor alone"
NOT_BROKEN = (
    "expects a pool broken for good; here what cannot be loaded ends its own call, with its own error"
)
# What is excluded, why, and since which Python the suite has it.
EXCLUDED: dict[str, tuple[str, tuple[int, ...]]] = {
    "ProcessPoolExecutorTest.test_killed_child": (f"{PRIVATE}, and expects a pool broken for good", (3, 11)),
    "ProcessPoolExecutorTest.test_saturation": (PRIMITIVE, (3, 11)),
    "ProcessPoolExecutorTest.test_idle_process_reuse_one": (PRIVATE, (3, 11)),
    "ProcessPoolExecutorTest.test_idle_process_reuse_multiple": (PRIVATE, (3, 11)),
    "ProcessPoolExecutorTest.test_max_tasks_per_child": (RECYCLING, (3, 11)),
    "ProcessPoolExecutorTest.test_max_tasks_per_child_defaults_to_spawn_context": (RECYCLING, (3, 11)),
    "ProcessPoolExecutorTest.test_max_tasks_early_shutdown": (RECYCLING, (3, 11)),
    "ProcessPoolExecutorTest.test_ressources_gced_in_workers": (PRIMITIVE, (3, 11)),
    "ProcessPoolExecutorTest.test_traceback": (
        "expects the private class of ProcessPoolExecutor's remote tracebacks as the cause; ours have the frames",
        (3, 11),
    ),
    "ProcessPoolExecutorTest.test_python_finalization_error": (
        "replaces the way in which ProcessPoolExecutor starts its threads",
        (3, 13),
    ),
    "ProcessPoolShutdownTest.test_processes_terminate": (PRIMITIVE, (3, 11)),
    "ProcessPoolShutdownTest.test_context_manager_shutdown": (PRIVATE, (3, 11)),
    "ProcessPoolShutdownTest.test_del_shutdown": (PRIVATE, (3, 11)),
    "ProcessPoolShutdownTest.test_shutdown_no_wait": (PRIVATE, (3, 11)),
    "ExecutorDeadlockTest.test_error_at_task_unpickle": (NOT_BROKEN, (3, 11)),
    "ExecutorDeadlockTest.test_exit_at_task_unpickle": (NOT_BROKEN, (3, 11)),
    "ExecutorDeadlockTest.test_error_during_result_unpickle_in_result_handler": (NOT_BROKEN, (3, 11)),
    "ExecutorDeadlockTest.test_exit_during_result_unpickle_in_result_handler": (NOT_BROKEN, (3, 11)),
    "ExecutorDeadlockTest.test_shutdown_deadlock_pickle": (PRIVATE, (3, 11)),
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
    ours = "import concurrent.futures as cf, stdlib_pool as ours\ncf.ProcessPoolShaped = ours.ProcessPoolShaped\n"

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
        # Also in its scripts, and without the handlers of pytest, which keep records from stderr.
        patches = [unittest.mock.patch.object(logging.root, "handlers", []), *SUITE.replace(OURS)]
        for patch in patches:
            patch.start()
            self.addCleanup(patch.stop)
        super(made, self).setUp()

    made = type(f"Remote{name}", bases, {"setUp": setup, "__module__": __name__})
    for excluded, (reason, _) in EXCLUDED.items():
        cls, test = excluded.split(".")
        if cls == name and hasattr(made, test):
            setattr(made, test, unittest.skip(reason)(lambda self: None))
    return made


# What the suite's names stand for here.
OURS: dict[str, Any] = {
    "BrokenProcessPool": BrokenExecutor,
    "PicklingError": SerializationError,
    "Future": type("Future", (RemoteFuture,), {}),  # its name is in texts that the suite expects
    "assert_python_ok": _run_script(assert_python_ok),
}
RemoteExecutorTest = _adopt("ProcessPoolExecutorTest")
RemoteShutdownTest = _adopt("ProcessPoolShutdownTest")
RemoteWaitTest = _adopt("WaitTests")
RemoteAsCompletedTest = _adopt("AsCompletedTests")
RemoteInitializerTest = _adopt("InitializerMixin")
RemoteFailingInitializerTest = _adopt("FailingInitializerMixin")
RemoteDeadlockTest = _adopt("ExecutorDeadlockTest")
RemoteFutureTest = _adopt("FutureTests", with_executor=False)


def test_every_exclusion_names_a_test_that_the_suite_has() -> None:
    gone = [
        excluded
        for excluded, (_, since) in EXCLUDED.items()
        if SUITE.version >= since and not hasattr(SUITE.find(excluded.split(".")[0]), excluded.split(".")[1])
    ]
    assert not gone
