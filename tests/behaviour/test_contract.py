"""What users of `concurrent.futures` rely on and its own suite does not ask."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, as_completed, wait
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from remote_exec import RemoteExecutor, remote
from remote_exec.errors import WorkerDied

SOON_SECONDS = 20.0  # no test should come near it
INTERRUPT_SECONDS = 3.0


def double(x: int) -> int:
    return 2 * x


def echo(value: object) -> object:
    return value


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def touch_and_nap(path: str, seconds: float) -> None:
    Path(path).touch()
    time.sleep(seconds)


def pid() -> int:
    return os.getpid()


class OddError(Exception):
    """Takes two arguments, unlike what pickling an exception expects."""

    def __init__(self, code: int, *, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code, self.detail = code, detail


def fail_oddly() -> None:
    try:
        {}["missing"]
    except KeyError as error:
        odd = OddError(7, detail="odd")
        odd.add_note("a note")
        raise odd from error  # the line that was raised


class Counter:
    """A callable object with state; what is sent is its state at the call."""

    def __init__(self) -> None:
        self.value = 0

    def get(self) -> int:
        return self.value


class Unloadable:
    """Can be pickled and not loaded."""

    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> None:
    raise RuntimeError("not to be loaded")


def make_unloadable(bad: bool) -> object:
    return Unloadable() if bad else 1


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_three(x: int) -> int:
    if x == 3:
        die()
    return x


def call_others(count: int) -> int:
    with RemoteExecutor(2) as inner:
        return sum(inner.map(double, range(count)))


@pytest.fixture(scope="module")
def executor() -> Iterator[RemoteExecutor]:
    with RemoteExecutor(2) as executor:
        executor.submit(abs, 1).result()  # it has its workers before any test does
        yield executor


# --- waiting ---


def test_wait_and_as_completed_mix_our_futures_with_those_of_threads(executor: RemoteExecutor) -> None:
    with ThreadPoolExecutor(2) as threads:
        futures: list[Future[int]] = []
        for x in range(50):
            futures += [executor.submit(double, x), threads.submit(double, x)]
        done, not_done = wait(futures, timeout=SOON_SECONDS)
        assert len(done) == 100
        assert not not_done
        futures = [executor.submit(double, 1), threads.submit(double, 2), executor.submit(double, 3)]
        assert {future.result() for future in as_completed(futures, timeout=SOON_SECONDS)} == {2, 4, 6}


def test_a_result_that_is_late_raises_timeout_while_the_call_goes_on(executor: RemoteExecutor) -> None:
    future = executor.submit(nap, 0.3)
    with pytest.raises(TimeoutError):
        future.result(timeout=0.05)
    with pytest.raises(TimeoutError):
        future.exception(timeout=0)
    assert future.result(timeout=SOON_SECONDS) == 0.3


def test_ten_thousand_submits_keep_their_results_apart(executor: RemoteExecutor) -> None:
    futures = [executor.submit(double, x) for x in range(10_000)]
    assert [future.result(timeout=SOON_SECONDS) for future in futures] == [2 * x for x in range(10_000)]


@pytest.mark.parametrize("size", [1_000, 60_000, 100_000, 300_000])
def test_answers_as_big_as_their_questions_do_not_block_each_other(
    executor: RemoteExecutor, size: int
) -> None:
    for _ in range(20):
        executor.submit(echo, b"").result(timeout=SOON_SECONDS)  # short calls are sent one behind the other
    futures = [executor.submit(echo, bytes(size)) for _ in range(200)]
    assert all(len(future.result(timeout=SOON_SECONDS)) == size for future in futures)
    assert all(len(value) == size for value in executor.map(echo, [bytes(size)] * 200, timeout=SOON_SECONDS))


def test_eight_threads_share_an_executor(executor: RemoteExecutor) -> None:
    results: dict[int, list[int]] = {}

    def work(first: int) -> None:
        futures = [executor.submit(double, first + x) for x in range(250)]
        values = [executor.submit(double, first + x).result(timeout=SOON_SECONDS) for x in range(250)]
        results[first] = [future.result(timeout=SOON_SECONDS) for future in futures] + values

    _run_threads(work, [1000 * number for number in range(8)])
    for first, values in results.items():
        assert values == [2 * (first + x) for x in range(250)] * 2
    assert len(results) == 8


def test_eight_threads_share_a_function() -> None:
    function = remote(double)
    results: dict[int, list[int]] = {}

    def work(first: int) -> None:
        results[first] = [function(first + x) for x in range(250)] + list(
            function.map(range(first, first + 250))
        )

    _run_threads(work, [1000 * number for number in range(8)])
    for first, values in results.items():
        assert values == [2 * (first + x) for x in range(250)] * 2
    assert len(results) == 8


def _run_threads(work: Callable[[int], None], items: list[int]) -> None:
    threads = [threading.Thread(target=work, args=(item,), daemon=True) for item in items]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + SOON_SECONDS
    for thread in threads:
        thread.join(deadline - time.monotonic())
    assert not any(thread.is_alive() for thread in threads)


# --- callbacks and cancelling ---


def test_callbacks_run_and_may_submit_again(executor: RemoteExecutor) -> None:
    chained: Future[int] = Future()

    def again(future: Future[int]) -> None:
        executor.submit(double, future.result()).add_done_callback(
            lambda last: chained.set_result(last.result())
        )

    threading.Thread(target=executor.submit(double, 1).add_done_callback, args=(again,)).start()
    assert chained.result(timeout=SOON_SECONDS) == 4


def test_a_callback_that_raises_harms_nobody(
    executor: RemoteExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    futures = [executor.submit(double, x) for x in range(20)]
    futures[3].add_done_callback(lambda _: 1 // 0)
    assert [future.result(timeout=SOON_SECONDS) for future in futures] == [2 * x for x in range(20)]


def test_queued_calls_are_cancelled_at_once_and_running_ones_soon(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    with RemoteExecutor(1) as one:
        running = one.submit(touch_and_nap, str(begun), 60)
        queued = one.submit(double, 1)
        until(begun.exists)
        assert queued.cancel()
        assert queued.cancelled()
        assert running.running()
        assert running.cancel()
        with pytest.raises(CancelledError):
            running.result(timeout=SOON_SECONDS)
        assert one.submit(double, 4).result(timeout=SOON_SECONDS) == 8


# --- what comes back ---


def test_an_exception_keeps_type_cause_notes_and_source_line(executor: RemoteExecutor) -> None:
    future = executor.submit(fail_oddly)
    with pytest.raises(OddError) as caught:
        future.result(timeout=SOON_SECONDS)
    error = caught.value
    assert (error.code, error.detail) == (7, "odd")
    assert isinstance(error.__cause__, KeyError)
    assert error.__notes__ == ["a note"]
    assert "raise odd from error  # the line that was raised" in "".join(traceback.format_exception(error))


def test_a_result_that_cannot_be_loaded_is_the_outcome_of_its_call_alone(executor: RemoteExecutor) -> None:
    with pytest.raises(Exception, match="not to be loaded"):
        executor.submit(make_unloadable, True).result(timeout=SOON_SECONDS)
    with pytest.raises(Exception, match="not to be loaded"):
        list(executor.map(make_unloadable, [False, True, False], timeout=SOON_SECONDS))
    assert executor.submit(double, 2).result(timeout=SOON_SECONDS) == 4


def test_arguments_may_be_of_classes_that_the_function_never_names(executor: RemoteExecutor) -> None:
    assert executor.submit(id, Counter()).result(timeout=SOON_SECONDS)
    assert len(list(executor.map(id, [Counter(), Counter()]))) == 2


def test_a_bound_method_is_sent_with_its_objects_state_and_not_kept(executor: RemoteExecutor) -> None:
    counter = Counter()
    for value in range(5):
        counter.value = value
        assert executor.submit(counter.get).result(timeout=SOON_SECONDS) == value
    gone = weakref.ref(counter)
    del counter
    gc.collect()
    assert gone() is None


def test_functions_made_for_one_call_are_each_their_own(executor: RemoteExecutor) -> None:
    futures = [executor.submit(lambda x=x: x) for x in range(300)]
    assert [future.result(timeout=SOON_SECONDS) for future in futures] == list(range(300))


def test_one_death_breaks_one_call() -> None:
    with RemoteExecutor(2) as executor:
        futures = [executor.submit(nap, 0.01) for _ in range(10)]
        with pytest.raises(WorkerDied):
            executor.submit(die).result(timeout=SOON_SECONDS)
        assert [future.result(timeout=SOON_SECONDS) for future in futures] == [0.01] * 10
        with pytest.raises(WorkerDied):
            list(executor.map(die_at_three, range(6), timeout=SOON_SECONDS))
        assert list(executor.map(double, range(6), timeout=SOON_SECONDS)) == [0, 2, 4, 6, 8, 10]


# --- the executor's end ---


def test_no_more_calls_run_at_once_than_were_asked_for() -> None:
    with RemoteExecutor(1) as one:
        pids = {
            one.submit(pid).result(),
            one.submit(os.getpid).result(),
            *one.map(lambda _: os.getpid(), range(3)),
        }
    assert len(pids) <= 2  # a second worker when local code came into play, never two at once


def test_shutdown_sends_what_a_map_has_not_sent_yet() -> None:
    executor = RemoteExecutor(2)
    values = executor.map(double, range(20_000))
    executor.shutdown(wait=False)
    assert list(values) == [2 * x for x in range(20_000)]


def test_all_futures_are_done_when_shutdown_returns() -> None:
    for _ in range(3):
        executor = RemoteExecutor(2)
        futures = [executor.submit(double, x) for x in range(200)]
        executor.shutdown()
        assert all(future.done() for future in futures)


def test_calls_behind_a_death_run_before_shutdown_returns() -> None:
    executor = RemoteExecutor(1)
    executor.submit(double, 0).result(timeout=SOON_SECONDS)
    futures = [executor.submit(double, x) for x in range(30)]
    dead = executor.submit(die)
    more = [executor.submit(double, x) for x in range(30)]
    executor.shutdown()
    assert isinstance(dead.exception(timeout=0), WorkerDied)
    assert [future.result(timeout=0) for future in futures + more] == [2 * x for x in range(30)] * 2


def test_an_executor_that_is_dropped_gives_its_workers_back() -> None:
    before = threading.active_count()
    executor: RemoteExecutor | None = RemoteExecutor(1)
    assert executor is not None
    future = executor.submit(double, 1)
    executor = None
    assert future.result(timeout=SOON_SECONDS) == 2
    until(lambda: threading.active_count() <= before)


def test_executors_nest_in_workers(executor: RemoteExecutor) -> None:
    assert executor.submit(call_others, 5).result(timeout=SOON_SECONDS) == 20


# --- scripts ---


def _script(folder: Path, body: str) -> list[str]:
    path = folder / "script.py"
    path.write_text(textwrap.dedent(body))
    return [sys.executable, str(path)]


def test_a_script_that_ends_waits_for_what_is_pending(tmp_path: Path) -> None:
    command = _script(
        tmp_path,
        """
        import time
        from remote_exec import RemoteExecutor, remote

        def say(word):
            time.sleep(0.3)
            print(word, flush=True)

        executor = RemoteExecutor(2)
        executor.submit(say, "apple")
        executor.shutdown(wait=False)
        remote(say).submit("pear")
        """,
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=SOON_SECONDS)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == ["apple", "pear"]


@pytest.mark.parametrize("how", ["f(x)", "executor"])
def test_ctrl_c_ends_script_and_call(tmp_path: Path, how: str) -> None:
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    command = _script(
        tmp_path,
        f"""
        import pathlib, time
        from remote_exec import RemoteExecutor, remote

        def work():
            try:
                pathlib.Path({str(begun)!r}).touch()
                time.sleep(60)
            finally:
                pathlib.Path({str(ended)!r}).touch()

        if {how!r} == "f(x)":
            remote(work)()
        with RemoteExecutor(1) as executor:
            executor.submit(work).result()
        """,
    )
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            until(begun.exists)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=INTERRUPT_SECONDS)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert ended.exists()


# --- forks ---

doubled = remote(double)


def _child_of_fork(queue: Any) -> None:
    queue.put(doubled(21))


def test_a_forked_child_calls_on_its_own_and_its_parent_goes_on() -> None:
    with RemoteExecutor(2) as executor:
        assert doubled(1) == 2
        before = executor.submit(nap, 0.5)
        read, write = os.pipe()
        child = os.fork()
        if not child:
            code = 1
            try:
                values = [doubled(4), executor.submit(double, 5).result(timeout=SOON_SECONDS)]
                os.write(write, repr(values).encode())
                code = 0
            finally:
                os._exit(code)
        try:
            assert [doubled(x) for x in range(50)] == [2 * x for x in range(50)]
            assert before.result(timeout=SOON_SECONDS) == 0.5
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            assert os.read(read, 100) == b"[8, 10]"
        finally:
            os.close(read)
            os.close(write)


def test_a_multiprocessing_child_calls_on_its_own() -> None:
    assert doubled(1) == 2
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_child_of_fork, args=(queue,))
    child.start()
    child.join(SOON_SECONDS)
    assert child.exitcode == 0
    assert queue.get() == 42
    assert doubled(3) == 6
    child.close()
    queue.close()
