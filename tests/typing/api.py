"""Types survive decoration: checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, Future
from typing import Any, assert_type

from remote_exec import (
    CheckpointLocation,
    RemoteClass,
    RemoteExecutor,
    RemoteFunction,
    RemoteFuture,
    get_future,
    list_futures,
    progress,
    remote,
)


@remote
def bare(x: int, y: str = "") -> float:
    return x + len(y)


@remote(instance_type="local", dependencies=["numpy"], keep_alive_period_in_seconds=600)
def with_options(x: int, *, flag: bool = False) -> list[str]:
    return [str(x)] * flag


@remote
def generator(count: int) -> Iterator[int]:
    yield from range(count)


class Counter:
    def __init__(self, start: int) -> None:
        self.value = start

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value


def calls() -> None:
    assert_type(bare(1, "a"), float)
    assert_type(bare(1, y="a"), float)
    assert_type(bare.local(1), float)
    assert_type(bare.submit(1, "a"), RemoteFuture[float])
    assert_type(bare.submit(1).result(timeout=1.0), float)
    assert_type(bare.options(cpus=2)(1), float)
    assert_type(with_options(1, flag=True), list[str])
    assert_type(with_options.submit(1), RemoteFuture[list[str]])
    assert_type(list(bare.map([1, 2])), list[float])
    assert_type(list(bare.starmap([(1, "a")])), list[float])
    assert_type(list(generator(3)), list[int])

    bare("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    bare()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    bare.submit(1, z=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with_options(1, True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    remote(instance_typ="local")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


async def coroutines() -> None:
    assert_type(await bare.aio(1), float)
    assert_type(await with_options.aio(1, flag=True), list[str])


def futures(future: RemoteFuture[int]) -> None:
    standard: Future[int] = future
    assert_type(standard.result(), int)
    assert_type(future.job, str)
    assert_type(future.status, str)
    assert_type(future.why(), str)
    assert_type(future.logs(), str)
    assert_type(future.cancel(), bool)
    assert_type(get_future("train-1"), RemoteFuture[Any])
    assert_type(next(list_futures(job_name_prefix="train")), RemoteFuture[Any])


def executors() -> None:
    with RemoteExecutor(max_parallel_jobs=2, instance_type="local") as executor:
        standard: Executor = executor
        standard.submit(len, "abc")
        assert_type(executor.submit(len, "abc"), RemoteFuture[int])
        assert_type(list(executor.map(len, ["a", "b"])), list[int])


def classes() -> None:
    # As a function: mypy takes a decorated class for the class itself.
    remote_counter = remote(Counter)
    assert_type(remote_counter, RemoteClass[Counter])
    assert_type(remote(cpus=1)(Counter), RemoteClass[Counter])
    assert_type(remote_counter.local(3), Counter)


def parameters(function: RemoteFunction[[int], str]) -> None:
    assert_type(function(1), str)
    assert_type(list(progress([1, 2], desc="items")), list[int])
    assert_type(CheckpointLocation(s3_uri="s3://bucket/path").local_path, str)
