"""What we are measured beside: a bare pipe, and the executors that are installed.

Each peer gives `call(x)`, which runs `identity(x)` elsewhere and waits, and some give an executor. They are
started before any thread of ours exists, since most of them fork this process.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing.connection import Connection
from typing import Any

from .harness import Bench

WORKERS = 2


def identity(x: Any) -> Any:
    """What every peer runs."""
    return x


def checksum(array: Any) -> int:
    """Touch each page of an array."""
    return int(array.view("u1")[::4096].sum())


def fresh_array(size_bytes: int) -> Any:
    """Make an array, each page of it touched."""
    import numpy

    return numpy.ones(size_bytes // 8)


@dataclass(frozen=True)
class Peer:
    """Somebody who runs functions elsewhere."""

    name: str
    call: Callable[[int], Any]
    executor: Executor | None = None


@contextlib.contextmanager
def pipe() -> Iterator[Peer]:
    """A `multiprocessing.Pipe` to a forked process, carrying the pickles that our calls carry."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_echo, args=(theirs, ours), daemon=True)
    process.start()
    theirs.close()

    def call(x: int) -> Any:
        ours.send_bytes(pickle.dumps(((x,), {}), 5))
        return pickle.loads(ours.recv_bytes())

    try:
        yield Peer("Pipe", call)
    finally:
        ours.close()
        process.join()


def _echo(connection: Connection, far_end: Connection) -> None:
    far_end.close()
    with contextlib.suppress(EOFError):
        while True:
            args, kwargs = pickle.loads(connection.recv_bytes())
            connection.send_bytes(pickle.dumps(identity(*args, **kwargs), 5))


@contextlib.contextmanager
def process_pool(method: str = "fork") -> Iterator[Peer]:
    """The standard library's executor, its workers started."""
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(WORKERS, mp_context=context) as executor:
        list(executor.map(identity, range(50)))
        yield Peer(f"PPE({method})", lambda x: executor.submit(identity, x).result(), executor)


@contextlib.contextmanager
def loky() -> Iterator[Peer]:
    """Joblib's executor."""
    from loky import ProcessPoolExecutor as Loky  # type: ignore[import-untyped]

    executor = Loky(max_workers=WORKERS)
    list(executor.map(identity, range(50)))
    try:
        yield Peer("loky", lambda x: executor.submit(identity, x).result(), executor)
    finally:
        executor.shutdown()


@contextlib.contextmanager
def ray() -> Iterator[Peer]:
    """Ray, a cluster of its own on this machine."""
    import ray  # type: ignore[import-not-found]

    ray.init(num_cpus=WORKERS, include_dashboard=False, logging_level="ERROR")
    remote = ray.remote(identity)
    ray.get([remote.remote(i) for i in range(50)])
    try:
        yield Peer("Ray", lambda x: ray.get(remote.remote(x)))
    finally:
        ray.shutdown()


@contextlib.contextmanager
def dask() -> Iterator[Peer]:
    """Dask distributed, a local cluster of processes."""
    from distributed import Client  # type: ignore[import-not-found]

    with Client(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None) as client:
        client.gather(client.map(identity, range(50)))
        yield Peer("Dask", lambda x: client.submit(identity, x, pure=False).result())


_MODULES = {"loky": "loky", "Ray": "ray", "Dask": "distributed"}


def installed(bench: Bench, name: str) -> bool:
    """Whether a peer is installed; a missing one is remembered, to be named."""
    if find_spec(_MODULES[name]) is None:
        bench.missing.add(name)
        return False
    return True
