"""What we are measured beside: a bare pipe, and the executors that are installed.

Each peer gives `call(x)`, which runs `identity(x)` elsewhere and waits; `gather(n)`, which submits n calls one by
one and gathers their results; and, where it has one, an executor. Those that fork are started before any thread
of ours exists.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
from collections.abc import Callable, Generator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
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
    gather: Callable[[int], list[Any]] | None = None
    executor: Executor | None = None
    pid: int = 0  # of the process at the other end, where there is one


def submit_then_gather(submit: Callable[[int], Any], count: int) -> list[Any]:
    """Submit so many calls one by one, then take their results."""
    return [future.result() for future in [submit(number) for number in range(count)]]


def _of_executor(name: str, executor: Executor) -> Peer:
    list(executor.map(identity, range(50)))  # has its workers started
    return Peer(
        name,
        lambda x: executor.submit(identity, x).result(),
        lambda count: submit_then_gather(lambda x: executor.submit(identity, x), count),
        executor,
    )


@contextlib.contextmanager
def pipe() -> Generator[Peer]:
    """A `multiprocessing.Pipe` to a forked process, carrying the pickles that our calls carry."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_echo, args=(theirs, ours), daemon=True)
    process.start()
    theirs.close()

    def call(x: int) -> Any:
        ours.send_bytes(pickle.dumps(((x,), {}), 5))
        return pickle.loads(ours.recv_bytes())

    try:
        yield Peer("Pipe", call, pid=process.pid or 0)
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
def process_pool(method: str = "fork") -> Generator[Peer]:
    """The standard library's executor, its workers started."""
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(WORKERS, mp_context=context) as executor:
        yield _of_executor(f"PPE({method})", executor)


@contextlib.contextmanager
def loky() -> Generator[Peer]:
    """Joblib's executor."""
    module: Any = import_module("loky")
    executor: Executor = module.ProcessPoolExecutor(max_workers=WORKERS)
    try:
        yield _of_executor("loky", executor)
    finally:
        executor.shutdown()


@contextlib.contextmanager
def ray() -> Generator[Peer]:
    """Ray, a cluster of its own on this machine."""
    ray: Any = import_module("ray")
    ray.init(
        num_cpus=WORKERS,
        include_dashboard=False,
        logging_level="ERROR",
        log_to_driver=False,
    )
    remote = ray.remote(identity)
    ray.get([remote.remote(number) for number in range(50)])
    try:
        yield Peer(
            "Ray",
            lambda x: ray.get(remote.remote(x)),
            lambda count: ray.get([remote.remote(number) for number in range(count)]),
        )
    finally:
        ray.shutdown()


@contextlib.contextmanager
def dask() -> Generator[Peer]:
    """Dask distributed, a local cluster of processes."""
    distributed: Any = import_module("distributed")
    with distributed.Client(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None) as client:
        client.gather(client.map(identity, range(50)))

        def gather(count: int) -> list[Any]:
            futures = [client.submit(identity, number, pure=False) for number in range(count)]
            results: list[Any] = client.gather(futures)
            return results

        yield Peer("Dask", lambda x: client.submit(identity, x, pure=False).result(), gather)


CLUSTERS = {"Ray": ray, "Dask": dask}
"""Those with daemons of their own, which take processor time from all that is measured beside them."""

_MODULES = {"loky": "loky", "joblib": "joblib", "Ray": "ray", "Dask": "distributed", "torch": "torch"}


def installed(bench: Bench, name: str) -> bool:
    """Whether a peer is installed; a missing one is remembered, to be named."""
    if find_spec(_MODULES[name]) is None:
        bench.missing.add(name)
        return False
    return True


def versions() -> str:
    """Name the peers that are installed, with their versions."""
    return ", ".join(
        f"{name} {version(module)}" for name, module in _MODULES.items() if find_spec(module) is not None
    )
