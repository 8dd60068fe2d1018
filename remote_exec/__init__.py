"""Decorate a local Python function; it runs somewhere bigger, and comes back as if it had run here."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .function import RemoteFunction, _restore_function, remote
    from .future import RemoteFuture

__all__ = ["RemoteFunction", "RemoteFuture", "remote"]

_HOMES = {
    "RemoteFunction": "function",
    "remote": "function",
    "_restore_function": "function",
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
