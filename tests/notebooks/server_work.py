"""What jobs of the tests of server and sidebar do, and how one is begun."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from remote_exec import RemoteExecutor, RemoteFuture, log_metrics, progress

NAP_SECONDS = 0.05


def start(function: Callable[..., Any], *args: Any, name: str = "") -> RemoteFuture[Any]:
    """Begin a durable job."""
    with RemoteExecutor(detach=True, **({"name": name} if name else {})) as executor:
        return executor.submit(function, *args)


def say_and_wait(text: str, gate: str) -> str:
    """Print, then wait for a file; print once more."""
    print(text, flush=True)
    print("to stderr", file=sys.stderr, flush=True)
    while not Path(gate).exists():
        time.sleep(NAP_SECONDS)
    print("\x1b[31mlast words\x1b[0m", flush=True)
    return text


def wait_in(folder: str, gate: str) -> None:
    """Wait for a file, in a folder."""
    before = Path.cwd()
    os.chdir(folder)
    while not Path(gate).exists():
        time.sleep(NAP_SECONDS)
    os.chdir(before)


def get_on(count: int, gate: str) -> dict[str, int]:
    """Get on with something, and wait for a file before the last step."""
    for number in progress(range(count), desc="steps"):
        if number == count - 1:
            while not Path(gate).exists():
                time.sleep(NAP_SECONDS)
    return {"count": count}


def wait_for_ever() -> None:
    """Be cancelled."""
    print("I wait", flush=True)
    while True:
        time.sleep(NAP_SECONDS)


def divide(numerator: int, denominator: int) -> float:
    """Fail, perhaps."""
    remark = "<script>alert(1)</script>"
    assert remark
    return numerator / denominator


def refuse(text: str) -> None:
    """Print, and raise."""
    print(text, flush=True)
    raise ValueError(text)


def speak_in_colours() -> None:
    """Print in all colours of a terminal, and fail."""
    for number in range(16):
        code = 30 + number if number < 8 else 82 + number
        print(f"\x1b[{code}mcolour {number}\x1b[0m \x1b[{code + 10}mon it\x1b[0m", flush=True)
    divide(1, 0)


def fit(count: int, gate: str) -> None:
    """Log metrics, wait for a file, and log a few more."""
    for step in range(count):
        log_metrics({"loss": 1 / (step + 1), "accuracy": step / count}, step=step)
    while not Path(gate).exists():
        time.sleep(NAP_SECONDS)
    log_metrics({"loss": math.nan}, step=count)
    log_metrics({"loss": 0.1}, step=count + 1)


def descend(count: int, gate: str) -> None:
    """Log a loss now and then until a file is there, and all that are left at once."""
    for step in range(count):
        log_metrics({"loss": 1 / (step + 1)}, step=step)
        deadline = time.monotonic() + 4 * NAP_SECONDS
        while time.monotonic() < deadline and not Path(gate).exists():
            time.sleep(NAP_SECONDS)
    while not Path(gate).exists():
        time.sleep(NAP_SECONDS)
    log_metrics({"loss": math.nan}, step=count)


def log_all_kinds(count: int) -> None:
    """Log so many metrics: of one point, of very many, that are the same, not finite, in bytes, small and large."""
    for step in range(20_000):
        log_metrics({"flood": math.sin(step / 2000) + math.sin(step) / 5}, step)
    kinds: dict[str, Callable[[int], float]] = {
        "same": lambda step: 0.5,
        "odd": lambda step: math.nan if step % 7 == 3 else step**0.5,
        "cache_bytes": lambda step: 1e6 * step,
        "busy_percent": lambda step: 90 + step % 10,
        "tiny": lambda step: 1e-7 * step,
        "large": lambda step: -1e9 * step,
    }
    kinds |= {f"layer {number}": lambda step: math.exp(-step / 10) for number in range(count - 8)}
    log_metrics({"single": 3})
    for step in range(50):
        log_metrics({name: value(step) for name, value in kinds.items()}, step)


def wait_and_refuse(text: str, gate: str) -> None:
    """Wait for a file, and raise."""
    while not Path(gate).exists():
        time.sleep(NAP_SECONDS)
    raise ValueError(text)
