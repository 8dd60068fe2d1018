"""What agents do by themselves, on any host: quotas, memory limits, retention, eviction."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from remote_exec import get_future, remote
from remote_exec.backends.host import Host
from remote_exec.client.connections import connections
from remote_exec.errors import JobNotFound, ResourceLimitExceeded, WorkerDied
from remote_exec.model.job import Cause
from remote_exec.model.layout import Layout


def test_a_quota_refuses_at_once_what_it_can_never_allow(own_host: Callable[..., Any]) -> None:
    own_host(REMOTE_EXEC_QUOTAS="cpus=1")

    @remote
    def one() -> int:
        return 1

    assert one.options(cpus=1)() == 1
    with pytest.raises(ResourceLimitExceeded, match=r"cpus=1\.5 was asked for; the option quotas allows 1"):
        one.options(cpus=1.5)()


def test_a_quota_of_jobs_refuses_those_beyond_it(own_host: Callable[..., Any], tmp_path: Path) -> None:
    own_host(REMOTE_EXEC_QUOTAS="jobs=1,cpus=1")
    gate = tmp_path / "gate"

    @remote(cpus=1, detach=True)
    def hold() -> int:
        while not gate.exists():
            time.sleep(0.01)
        return 1

    running = hold.submit()
    until(lambda: running.status == "running")
    queued = hold.submit()
    with pytest.raises(
        ResourceLimitExceeded, match="1 jobs are queued on this host, and the option quotas allows 1"
    ):
        hold.submit()
    gate.touch()
    assert (running.result(20), queued.result(20)) == (1, 1)


def test_a_worker_over_its_memory_is_killed_and_its_certificate_says_so() -> None:
    @remote(memory="200 MB")
    def grow() -> None:
        kept = bytearray(400_000_000)
        for start in range(0, len(kept), 4096):
            kept[start] = 1
        time.sleep(30)

    started = time.monotonic()
    with pytest.raises(WorkerDied, match="used more memory than was asked for it") as caught:
        grow()
    assert time.monotonic() - started < 10
    assert caught.value.certificate is not None
    assert caught.value.certificate.cause is Cause.OUT_OF_MEMORY


def test_children_that_share_a_workers_memory_are_not_counted_twice() -> None:
    @remote(memory="300 MB")
    def share() -> int:
        kept = bytearray(150_000_000)
        kept[::4096] = b"x" * len(kept[::4096])  # now it has its pages
        children: list[int] = []
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                time.sleep(1.5)
                os._exit(0)
            children.append(pid)
        for pid in children:
            os.waitpid(pid, 0)
        return len(kept)

    assert share() == 150_000_000


def jobs_folder(ask: Callable[..., Any]) -> Path:
    return Layout.of({"REMOTE_EXEC_HOME": ask("host")["home"]}).jobs


def test_jobs_past_their_retention_go_with_their_folders_and_no_others(
    own_host: Callable[..., Any], tmp_path: Path
) -> None:
    ask = own_host(REMOTE_EXEC_RETENTION_IN_DAYS="0.00001")
    jobs = jobs_folder(ask)
    is_there = remote(os.path.isdir)

    @remote
    def say(gate: str) -> str:
        print("here")
        while gate and not os.path.exists(gate):
            time.sleep(0.01)
        return "done"

    gate = tmp_path / "gate"
    living = say.options(name="train-more").submit(str(gate))
    ended = say.options(name="train").submit("")
    assert ended.result(20) == "done"
    until(lambda: living.status == "running")
    assert is_there(str(jobs / "train.1"))
    until(lambda: ask("tidy") and not is_there(str(jobs / "train.1")))
    with pytest.raises(JobNotFound):
        get_future("train")
    assert is_there(str(jobs / "train-more.1"))
    gate.touch()
    assert living.result(20) == "done"


def test_the_oldest_jobs_go_while_results_and_logs_take_too_much_room(own_host: Callable[..., Any]) -> None:
    ask = own_host(REMOTE_EXEC_RETENTION_SIZE_LIMIT="3 MB")

    @remote
    def blob(size: int) -> bytes:
        return os.urandom(size)

    names = [f"big-{number}" for number in range(3)]
    for name in names:
        blob.options(name=name).submit(1_200_000).result(20)
    removed = ask("tidy")["removed"]
    assert removed["jobs"] >= 1
    with pytest.raises(JobNotFound):
        get_future(names[0])


def test_cached_results_are_bounded_and_the_least_recently_used_goes_first(
    own_host: Callable[..., Any],
) -> None:
    ask = own_host(REMOTE_EXEC_CACHE_SIZE_LIMIT="400 kB")

    @remote(cache=True)
    def blob(x: int) -> bytes:
        return bytes([x]) * 40_000

    for number in (1, 2, 1, 3):
        blob(number)
    assert ask("tidy")["removed"]["results"] == 1
    assert [blob.submit(number).cached for number in (1, 3, 2)] == [True, True, False]


def test_a_jobs_log_is_kept_up_to_its_limit(host: Host) -> None:
    jobs = jobs_folder(connections.session(host).ask)

    @remote(log_size_limit="100 kB", detach=True)
    def talk() -> None:
        for _ in range(200):
            print("x" * 10_000)

    @remote
    def kept(pattern: str) -> int:
        return sum(file.stat().st_size for file in jobs.glob(pattern))

    future = talk.submit()
    future.result(20)
    assert 0 < kept(f"{future.job}.*/*") < 200_000
