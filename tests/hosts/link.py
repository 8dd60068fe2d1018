"""A link that is late, slow or broken on request: a proxy before a server, where namespaces cannot be had."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType

PROXY = Path(__file__).with_name("proxy.py")


class Link:
    """A port of this machine that leads to another; all connections through it share its state. A context manager.

    It is a process of its own, which ends with this one. Without delay it costs some 0.1 ms each way.

    Args:
        address: where it leads.
        port: the port there.
        delay_seconds: how much later each byte arrives, each way; throughput is not limited by it.

    Example:
        >>> with Link(server.address, server.port, delay_seconds=0.005) as link:
        ...     client.add("gpu1", server, via=link)
        ...     link.cut()
    """

    def __init__(self, address: str, port: int, *, delay_seconds: float = 0.0) -> None:
        self.address = "127.0.0.1"
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", PROXY, address, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.port = int(self._answer())
        self.delay(delay_seconds)

    def __enter__(self) -> Link:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it, and all connections through it."""
        self._process.kill()
        self._process.communicate()

    # --- each of these has taken effect when it returns ---

    def delay(self, seconds: float) -> None:
        """Let what is sent from now on arrive so much later, each way."""
        self._tell(f"delay {seconds}")

    def rate(self, bits_per_second: float) -> None:
        """Let no more than this through, each way, all connections together; 0 for no limit."""
        self._tell(f"rate {bits_per_second / 8}")

    def cut(self) -> None:
        """Reset all connections, at both ends; new ones are taken."""
        self._tell("cut")

    def refuse(self) -> None:
        """Reset all connections, and new ones at once, until `resume`: the host is off."""
        self._tell("refuse")

    def freeze(self) -> None:
        """Let nothing pass, either way, until `resume`; connections stay. New ones open, and hear nothing."""
        self._tell("freeze")

    def strand(self) -> None:
        """Let nothing pass on the present connections ever again, which neither end is told; new ones are taken.

        As when a router between has forgotten them, or the machine slept.
        """
        self._tell("strand")

    def resume(self) -> None:
        """End `freeze` and `refuse`: what was held goes on its way."""
        self._tell("resume")

    def passed(self) -> int:
        """Return how many bytes have come to it so far, both ways together."""
        return int(self._ask("passed"))

    def _tell(self, command: str) -> None:
        if self._ask(command) != "done":
            raise RuntimeError(f"the proxy did not take {command!r}")

    def _ask(self, command: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()
