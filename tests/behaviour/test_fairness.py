"""Calls of one pool that keep each other waiting, or do not."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from remote_exec import remote

SOON_SECONDS = 30.0


def _hold(path: str) -> str:
    """Run until the file is there."""
    while path and not Path(path).exists():
        time.sleep(0.01)
    return path


def test_short_calls_do_not_wait_behind_one_that_turns_out_long(tmp_path: Path) -> None:
    hold = remote(max_workers=2)(_hold)
    for future in [
        hold.submit("") for _ in range(200)
    ]:  # now it is known to be short, and calls are pipelined
        future.result(SOON_SECONDS)
    go = tmp_path / "go"
    futures = [hold.submit(str(go) if number == 0 else "") for number in range(200)]
    try:
        assert [future.result(SOON_SECONDS) for future in futures[1:]] == [""] * 199
        assert not futures[0].done()
    finally:
        go.touch()
    assert futures[0].result(SOON_SECONDS) == str(go)


def test_threads_do_not_wait_for_each_others_answers(tmp_path: Path) -> None:
    hold = remote(max_workers=2)(_hold)
    go = tmp_path / "go"
    long = threading.Thread(target=hold, args=(str(go),))
    long.start()
    try:
        assert [hold("") for _ in range(100)] == [""] * 100
        assert long.is_alive()
    finally:
        go.touch()
        long.join()


def test_calls_of_unknown_length_get_a_worker_each(tmp_path: Path) -> None:
    hold = remote(max_workers=3)(_hold)
    go = [tmp_path / f"go-{number}" for number in range(3)]
    futures = [hold.submit(str(path)) for path in go]
    for path, future in reversed(list(zip(go, futures, strict=True))):  # each must run for itself to end
        path.touch()
        assert future.result(SOON_SECONDS) == str(path)


def test_items_behind_one_that_turns_out_long_go_elsewhere(tmp_path: Path) -> None:
    hold = remote(max_workers=2)(_hold)
    assert (
        list(hold.map([""] * 1000)) == [""] * 1000
    )  # now items are known to be quick: many go in one message
    go = tmp_path / "go"
    values = hold.map([str(go) if number == 300 else "" for number in range(1000)], ordered=False)
    try:
        assert [next(values) for _ in range(999)] == [""] * 999  # those before it in its message, too
    finally:
        go.touch()
    assert list(values) == [str(go)]
