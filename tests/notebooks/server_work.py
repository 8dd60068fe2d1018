"""What jobs of the tests of server and sidebar do, and how one is begun."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from remote_exec import RemoteExecutor, RemoteFuture, progress

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
