"""A command in a container, with its standard input and output: docker's `exec` over a connection of our own.

The ``docker`` package's own way may lose what the command says at once. Docker marks each piece of output with the
stream that it is of: `Command` tells them apart, and so does `pipes.Exec`, for a tunnel.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Sequence
from typing import Any

from ...model.errors import HostUnavailable
from .engine import ANSWER_SECONDS, Engine, EngineError

HEADER = struct.Struct(">BxxxL")
ERRORS = 2  # the number of standard error
LARGEST_HEAD = 1 << 16
KEPT_ERRORS = 1 << 14
PIECE = 1 << 18


class Command:
    """A short dialogue with a command, blocking; use `start_command`.

    Attributes:
        errors: the end of what it has said on standard error, as far as `read` has come.
    """

    def __init__(self, engine: Engine, exec_id: str, sock: socket.socket) -> None:
        self.errors = b""
        self._engine, self._exec_id, self._sock = engine, exec_id, sock
        self._buffer = bytearray()
        self._left, self._kind = 0, 1  # of the piece under way

    def set_timeout(self, seconds: float) -> None:
        """Have whatever waits longer than this raise `TimeoutError`."""
        self._sock.settimeout(seconds)

    def read(self, size: int = PIECE) -> bytes:
        """Return some bytes of standard output, at least one; none at its end.

        Raises:
            OSError: the connection broke.
        """
        while True:
            if self._left and self._buffer:
                taken = bytes(self._buffer[: min(self._left, size if self._kind != ERRORS else PIECE)])
                del self._buffer[: len(taken)]
                self._left -= len(taken)
                if self._kind != ERRORS:
                    return taken
                self.errors = (self.errors + taken)[-KEPT_ERRORS:]
            elif not self._left and len(self._buffer) >= HEADER.size:
                self._kind, self._left = HEADER.unpack_from(self._buffer)
                del self._buffer[: HEADER.size]
            else:
                piece = self._sock.recv(PIECE)
                if not piece:
                    return b""
                self._buffer += piece

    def read_all(self) -> bytes:
        """Return standard output up to its end."""
        return b"".join(iter(self.read, b""))

    def write(self, data: bytes | memoryview) -> None:
        """Send all of these bytes to standard input.

        Raises:
            OSError: the connection broke.
        """
        self._sock.sendall(data)

    def exit_code(self) -> int | None:
        """Return the command's exit code; None while it runs.

        Raises:
            HostUnavailable: the engine does not tell, for the container may be gone.
        """
        with self._engine.asking("cannot tell of a command"):
            code: int | None = self._engine.api.exec_inspect(self._exec_id)["ExitCode"]
            return code

    def close(self) -> None:
        """Close the connection; a command that reads its input sees the end of it."""
        self._sock.close()

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def start_command(engine: Engine, container: str, argv: Sequence[str]) -> Command:
    """Run a command in a running container, as the container's user.

    The arguments are those of `open_stream`, and what it raises is, too.
    """
    exec_id = _create_exec(engine, container, argv)
    return Command(engine, exec_id, _start_exec(engine, exec_id))


def open_stream(engine: Engine, container: str, argv: Sequence[str]) -> socket.socket:
    """Run a command in a running container, and return its streams as the engine frames them.

    Args:
        engine: the container's.
        container: its name or id.
        argv: the command.

    Raises:
        EngineError: the container does not run.
        HostUnavailable: the engine does not answer.
    """
    return _start_exec(engine, _create_exec(engine, container, argv))


def _create_exec(engine: Engine, container: str, argv: Sequence[str]) -> str:
    with engine.asking(f"could not run a command in the container {container}"):
        made = engine.api.exec_create(container, list(argv), stdin=True, stdout=True, stderr=True, tty=False)
        return str(made["Id"])


def _start_exec(engine: Engine, exec_id: str) -> socket.socket:
    """Start it, and turn the connection of HTTP into its streams."""
    body = json.dumps({"Detach": False, "Tty": False}).encode()
    head = (
        f"POST /v{engine.api.api_version}/exec/{exec_id}/start HTTP/1.1\r\nHost: docker\r\n"
        "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    sock = engine.dial()
    try:
        with engine.asking("could not run a command"):
            sock.settimeout(ANSWER_SECONDS)
            sock.sendall(head.encode() + body)
            _read_answer(sock)
            sock.settimeout(None)
    except BaseException:
        sock.close()
        raise
    return sock


def _read_answer(sock: socket.socket) -> None:
    """Read the head of an answer and not a byte more: the streams begin there."""
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        if not byte or len(head) > LARGEST_HEAD:
            raise HostUnavailable("the container engine closed the connection instead of running a command")
        head += byte
    status = int(head.split(None, 2)[1])
    if status not in (101, 200):
        said = _said(sock.recv(LARGEST_HEAD))
        raise EngineError(f"the container engine could not run a command: {said}", status=status)


def _said(body: bytes) -> str:
    try:
        told: Any = json.loads(body)
        return str(told["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip()
