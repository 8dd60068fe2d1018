"""What the groups of the tests run on hosts; a module of its own, since hosts have no pytest."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

from remote_exec import current_job


def place() -> tuple[str, Any]:
    job = current_job()
    assert job is not None
    return os.environ["HOME"], job.group


def meet(word: str) -> Any:
    """Have rank 0 greet the others; return each rank's place, container, and what it has heard."""
    job = current_job()
    assert job is not None
    group: Any = job.group
    if group.rank:
        with _connected(group.address, group.port) as sock, sock.makefile() as told:
            heard = told.readline()
    else:
        heard = word
        with socket.create_server(("", group.port)) as server:
            for _ in range(1, group.world_size):
                sock, _ = server.accept()
                sock.sendall(word.encode())
                sock.close()
    return group.rank, group.node_rank, Path("/etc/hostname").read_text(), heard


def _connected(address: str, port: int) -> socket.socket:
    """Return a connection to rank 0, which may not listen yet."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection((address, port), 30)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def summed(number: float) -> tuple[float, str]:
    """Return the sum of what all ranks have, and where this one has run."""
    import torch
    import torch.distributed

    distributed: Any = torch.distributed
    distributed.init_process_group("gloo")
    value = torch.tensor([number * (distributed.get_rank() + 1)])
    distributed.all_reduce(value)
    print("the sum is", value.item())
    return float(value.item()), os.environ["HOME"]


def wait_or_fail(folder: str, fails: bool) -> None:
    """Leave word of the begin and the end of this rank; rank 1 fails as soon as both have begun."""
    rank = os.environ["RANK"]
    Path(folder, rank).touch()
    try:
        while not fails or rank != "1" or len(os.listdir(folder)) < 2:
            time.sleep(0.01)
        raise ValueError("rank one")
    finally:
        Path(folder, f"{rank}.ended").touch()
