"""What a stream over ssh is by itself: OpenSSH's forwarded socket, by which ours go, beside asyncssh's."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from remote_exec import remote

from ..hosts.sshd import SERVER
from .far_work import prepare
from .harness import Bench, Sample, interleave
from .links import Lab, echo_sockets

SMALL = bytes(60)
PIECE = 1 << 18


def streams(bench: Bench) -> None:
    """Round trips, and data there and back at once."""
    if SERVER is None or find_spec("asyncssh") is None:
        bench.missing.add("sshd" if SERVER is None else "asyncssh")
        return
    size = (8 if bench.quick else 128) << 20
    lab = Lab(bench)
    with contextlib.ExitStack() as stack:
        stack.enter_context(lab.open())
        remote(instance_type="near")(prepare)(0)  # so that there is a connection
        there, here = stack.enter_context(echo_sockets(lab, "near"))
        with socket.socket(socket.AF_UNIX) as sock, asyncio.Runner() as runner:
            sock.connect(str(here))
            peer = runner.run(_Peer.connected(lab, there))
            trips = interleave(
                bench.rounds(6),
                {"OpenSSH": lambda: _trips(sock), "asyncssh": lambda: runner.run(peer.trips())},
            )
            bulk = interleave(
                bench.rounds(4),
                {"OpenSSH": lambda: _bulk(sock, size), "asyncssh": lambda: runner.run(peer.bulk(size))},
            )
            runner.run(peer.close())
    found = {name: Sample.of([time for times in each for time in times]) for name, each in trips.items()}
    bench.beside(
        "round trip over OpenSSH's forwarded socket", found["OpenSSH"], found["asyncssh"], name="asyncssh"
    )
    found = {name: Sample.of(times) for name, times in bulk.items()}
    what = f"{size >> 20} MB there and back over it"
    bench.beside(what, found["OpenSSH"], found["asyncssh"], name="asyncssh")


def _trips(sock: socket.socket) -> list[float]:
    times: list[float] = []
    for _ in range(300):
        started = time.perf_counter()
        sock.sendall(SMALL)
        got = 0
        while got < len(SMALL):
            got += len(sock.recv(len(SMALL) - got))
        times.append(time.perf_counter() - started)
    return times


def _bulk(sock: socket.socket, size: int) -> float:
    started = time.perf_counter()
    sender = threading.Thread(target=lambda: [sock.sendall(bytes(PIECE)) for _ in range(size // PIECE)])
    sender.start()
    left = size
    while left:
        left -= len(sock.recv(PIECE))
    sender.join()
    return time.perf_counter() - started


class _Peer:
    """A stream of asyncssh's to the same echo."""

    def __init__(self, connection: Any, reader: Any, writer: Any) -> None:
        self._connection, self._reader, self._writer = connection, reader, writer

    @classmethod
    async def connected(cls, lab: Lab, there: Path) -> _Peer:
        asyncssh: Any = import_module("asyncssh")
        server, client = lab.near, lab.client
        connection = await asyncssh.connect(
            server.address,
            server.port,
            client_keys=[str(client.folder / "id_ed25519")],
            known_hosts=None,
            config=None,
        )
        return cls(connection, *await connection.open_unix_connection(str(there), encoding=None))

    async def trips(self) -> list[float]:
        times: list[float] = []
        for _ in range(300):
            started = time.perf_counter()
            self._writer.write(SMALL)
            await self._reader.readexactly(len(SMALL))
            times.append(time.perf_counter() - started)
        return times

    async def bulk(self, size: int) -> float:
        started = time.perf_counter()
        sending = asyncio.create_task(self._send(size))
        left = size
        while left:
            left -= len(await self._reader.read(PIECE))
        await sending
        return time.perf_counter() - started

    async def _send(self, size: int) -> None:
        for _ in range(size // PIECE):
            self._writer.write(bytes(PIECE))
            await self._writer.drain()

    async def close(self) -> None:
        self._connection.close()
        await self._connection.wait_closed()
