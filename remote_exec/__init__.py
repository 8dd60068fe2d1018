"""Decorate a local Python function; it runs somewhere bigger, and comes back as if it had run here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .version import VERSION

__version__ = VERSION

if TYPE_CHECKING:
    from .client.finding import get_future, list_futures
    from .decorator import remote
    from .executor import RemoteExecutor
    from .function import RemoteFunction
    from .future import RemoteFuture
    from .model.cost import Cost
    from .model.metric import MetricPoint
    from .options import CustomFileFilter
    from .remote_class import RemoteClass
    from .serial.directories import Dir
    from .worker.checkpoint import CheckpointLocation
    from .worker.context import current_job
    from .worker.metrics import log_metrics
    from .worker.progress import progress

__all__ = [
    "CheckpointLocation",
    "Cost",
    "CustomFileFilter",
    "Dir",
    "MetricPoint",
    "RemoteClass",
    "RemoteExecutor",
    "RemoteFunction",
    "RemoteFuture",
    "current_job",
    "get_future",
    "list_futures",
    "log_metrics",
    "progress",
    "remote",
]

_HOMES = {
    "CheckpointLocation": "worker.checkpoint",
    "Cost": "model.cost",
    "CustomFileFilter": "options",
    "Dir": "serial.directories",
    "MetricPoint": "model.metric",
    "RemoteClass": "remote_class",
    "RemoteExecutor": "executor",
    "RemoteFunction": "function",
    "_restore_class": "remote_class",
    "current_job": "worker.context",
    "get_future": "client.finding",
    "list_futures": "client.finding",
    "log_metrics": "worker.metrics",
    "progress": "worker.progress",
    "remote": "decorator",
    "_restore_function": "decorator",
    "RemoteFuture": "future",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{home}", __name__), name)
    if getattr(value, "__module__", "").startswith(f"{__name__}."):
        value.__module__ = __name__
    globals()[name] = value
    return value
