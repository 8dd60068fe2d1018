"""The program of a `Link`: passes connections on to an address, as late, as slowly and as badly as it is told.

    python -I -S proxy.py ADDRESS PORT

It listens at a port of its own, which is the first line it prints. Standard input brings commands, a line each, and
each is answered with a line; its end ends the program. One thread, standard library only.

What is read is kept with the time when it is due; nothing but that time, the rate and the receiver's own pace
holds it back.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import socket
import struct
import sys
import time
from collections import deque

CHUNK = 1 << 18
HELD = 64 << 20  # bytes under way in one direction: 50 ms at 1 GB/s
BURST_SECONDS = 0.01  # how much a rate lets pass at once
BURST = 1 << 14
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset
PR_SET_TIMERSLACK = 29


class Rate:
    """A token bucket that all connections share in one direction; 0 bytes a second is no limit."""

    def __init__(self, bytes_per_second: float) -> None:
        self.bytes_per_second = bytes_per_second
        self._most = max(BURST, bytes_per_second * BURST_SECONDS)
        self._tokens = self._most
        self._filled = time.monotonic()

    def allowed(self, now: float) -> int:
        """Return how many bytes may pass now."""
        if not self.bytes_per_second:
            return CHUNK
        self._tokens = min(self._most, self._tokens + (now - self._filled) * self.bytes_per_second)
        self._filled = now
        return max(0, int(self._tokens))

    def take(self, size: int) -> None:
        """Count what has passed."""
        self._tokens -= size

    def next(self, now: float) -> float:
        """Return when so much may pass again that it is worth waking up for."""
        return now + max(0.0, self._most / 2 - self._tokens) / self.bytes_per_second


class Way:
    """One direction of one connection: what was read from `source`, on its way to `target`."""

    def __init__(self, source: socket.socket, target: socket.socket, direction: int) -> None:
        self.source, self.target, self.direction = source, target, direction
        self.queue: deque[tuple[float, memoryview]] = deque()
        self.held = 0
        self.ended = False  # the source has said all
        self.closed = False  # and the target has been told
        self.blocked = False  # the target takes no more for now

    def read(self, due: float) -> int:
        """Take what is there, and return how much; raises OSError where the connection broke."""
        data = self.source.recv(CHUNK)
        self.ended = not data
        self.held += len(data)
        self.queue.append((due, memoryview(data)))
        return len(data)

    def write(self, now: float, rate: Rate) -> float | None:
        """Pass on what is due; return when there is more to do, None when only the target or source can tell."""
        while self.queue:
            due, data = self.queue[0]
            if due > now:
                return due
            if not data:
                self.target.shutdown(socket.SHUT_WR)
                self.closed = True
                self.queue.popleft()
                return None
            allowed = rate.allowed(now)
            if not allowed:
                return rate.next(now)
            try:
                sent = self.target.send(data[:allowed])
            except BlockingIOError:
                self.blocked = True
                return None
            rate.take(sent)
            self.held -= sent
            if sent == len(data):
                self.queue.popleft()
            else:
                self.queue[0] = (due, data[sent:])
        return None


class Proxy:
    """All connections of one link, and what it does to them."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self._ways: list[Way] = []
        self._stranded: list[socket.socket] = []
        self._delay = 0.0
        self._rates = (Rate(0), Rate(0))
        self._frozen = False
        self._refusing = False
        self._commands = b""
        self._passed = 0  # bytes, each way
        self.port: int = self._listener.getsockname()[1]

    # --- commands ---

    def obey(self, line: str) -> str:
        """Carry out one command, and return the answer."""
        match line.split():
            case ["passed"]:
                return str(self._passed)
            case ["delay", seconds]:
                self._delay = float(seconds)
            case ["rate", bytes_per_second]:
                self._rates = (Rate(float(bytes_per_second)), Rate(float(bytes_per_second)))
            case ["cut"]:
                self._cut()
            case ["refuse"]:
                self._cut()
                self._refusing = True
            case ["freeze"]:
                self._frozen = True
            case ["strand"]:
                self._stranded += [way.source for way in self._ways]
                self._ways = []
            case ["resume"]:
                self._frozen = self._refusing = False
            case _:
                raise ValueError(line)
        return "done"

    def _cut(self) -> None:
        for way in self._ways:
            _reset(way.source)
        for sock in self._stranded:
            _reset(sock)
        self._ways, self._stranded = [], []

    # --- the loop ---

    def run(self) -> None:
        """Pass on and obey, until standard input ends."""
        wait: float | None = None
        while True:
            # select() counts in microseconds, epoll in milliseconds
            ready, writable, _ = select.select(*self._awaited(), [], wait)
            if sys.stdin.fileno() in ready and not self._listen():
                return
            if self._listener in ready:
                self._accept()
            if self._frozen:
                wait = None
                continue
            self._read({one for one in ready if isinstance(one, socket.socket)})
            for way in self._ways:
                way.blocked = way.blocked and way.target not in writable
            wait = self._write()

    def _awaited(self) -> tuple[list[socket.socket | int], list[socket.socket]]:
        sources: list[socket.socket | int] = [sys.stdin.fileno()]
        if self._frozen:
            return sources, []
        sources.append(self._listener)
        sources += [way.source for way in self._ways if not way.ended and way.held < HELD]
        return sources, [way.target for way in self._ways if way.blocked]

    def _listen(self) -> bool:
        data = os.read(sys.stdin.fileno(), 4096)
        *lines, self._commands = (self._commands + data).split(b"\n")
        for line in lines:
            print(self.obey(line.decode()), flush=True)
        return bool(data)

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        try:
            if self._refusing:
                raise ConnectionRefusedError
            far = socket.create_connection(self._address, 5)
        except OSError:
            _reset(near)
            return
        for sock in (near, far):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ways += [Way(near, far, 0), Way(far, near, 1)]

    def _read(self, ready: set[socket.socket]) -> None:
        for way in list(self._ways):
            if way.source in ready and not way.ended:
                try:
                    self._passed += way.read(time.monotonic() + self._delay)
                except OSError:
                    self._end(way)

    def _write(self) -> float | None:
        times: list[float] = []
        for way in list(self._ways):
            if way.queue and not way.blocked:
                try:
                    again = way.write(time.monotonic(), self._rates[way.direction])
                except OSError:
                    self._end(way)
                    continue
                if again is not None:
                    times.append(again)
        for way in list(self._ways):
            if way.closed and all(other.closed for other in self._of(way)):
                self._end(way)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _of(self, way: Way) -> list[Way]:
        """Return both directions of a connection."""
        return [one for one in self._ways if way.source in (one.source, one.target)]

    def _end(self, way: Way) -> None:
        """End a connection: of both directions, at both sides; what has not passed is lost as with a reset."""
        both = self._of(way)
        self._ways = [one for one in self._ways if one not in both]
        for one in both:
            if all(other.closed for other in both):
                one.source.close()
            else:
                _reset(one.source)


def _reset(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


def _wake_in_time() -> None:
    """Ask the kernel not to join our wake-ups with others, 50 microseconds later, and to let us run before others."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    with contextlib.suppress(OSError):  # only root may
        os.nice(-10)


if __name__ == "__main__":
    _wake_in_time()
    proxy = Proxy((sys.argv[1], int(sys.argv[2])))
    print(proxy.port, flush=True)
    proxy.run()
