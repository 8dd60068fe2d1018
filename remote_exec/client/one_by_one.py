"""`map` where each item is a call of its own: with stored results, and in groups."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from typing import Any

from ..future import RemoteFuture


def map_calls(
    arguments: Iterable[tuple[Any, ...]],
    *,
    submit: Callable[..., RemoteFuture[Any]],
    window: int,
    ordered: bool,
    return_exceptions: bool,
    timeout: float | None,
) -> Iterator[Any]:
    """Yield the results of many calls, some of them ahead of being taken.

    Args:
        arguments: those of each call.
        submit: starts one.
        window: how many may be under way, or wait to be taken.
        ordered: yield in the order of the arguments; else as results come.
        return_exceptions: yield what a call raised instead of raising it.
        timeout: seconds from now after which waiting raises `TimeoutError`.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    coming = iter(arguments)
    pending: deque[RemoteFuture[Any]] = deque()

    def fill() -> None:
        while len(pending) < window and (item := next(coming, None)) is not None:
            pending.append(submit(*item))

    try:
        fill()
        while pending:
            future = pending[0] if ordered else _first(pending, deadline)
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            error = future.exception(left)
            pending.remove(future)
            fill()
            if error is not None and not return_exceptions:
                raise error
            yield future.result() if error is None else error
    finally:
        for future in pending:
            future.cancel()


def results_of(futures: list[RemoteFuture[Any]], deadline: float | None) -> Iterator[Any]:
    """Yield the results of calls in their order; what is left is cancelled when one fails, or nobody takes more."""
    futures.reverse()
    try:
        while futures:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            yield futures.pop().result(left)
    finally:
        for future in futures:
            future.cancel()


def _first(pending: deque[RemoteFuture[Any]], deadline: float | None) -> RemoteFuture[Any]:
    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    done = wait(pending, left, FIRST_COMPLETED).done
    return next((future for future in pending if future in done), pending[0])
