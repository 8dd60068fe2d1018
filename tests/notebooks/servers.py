"""A real Jupyter server in a process of its own, and what a panel's requests come to there."""

from __future__ import annotations

import asyncio
import contextlib
import http.cookiejar
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from remote_exec.agent.journal import Journal
from remote_exec.model.job import JobRecord, JobState
from remote_exec.model.layout import Layout

START_SECONDS = 60.0
FRAME_SECONDS = 60.0
UNTIL_SECONDS = 60.0
TOKEN = "a-token-of-the-tests"  # noqa: S105


class Told(NamedTuple):
    """An answer; `value` is its JSON, where it is some."""

    status: int
    value: Any
    text: str
    headers: Mapping[str, str]


class Server:
    """A server in a process; see `served`.

    Args:
        folder: for its files.
        environ: its environment variables.
        arguments: more of its command line.
        command: what is started.
    """

    def __init__(
        self,
        folder: Path,
        environ: Mapping[str, str],
        arguments: Sequence[str],
        command: Sequence[str],
    ) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.root = folder / "root"
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = folder / "log"
        self._environ = environ
        self._command = [
            *command, "--no-browser", "--allow-root",
            f"--ServerApp.port={self.port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}",
            "--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={self.root}", *arguments,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, the first time or again; return when it answers."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, env=self._environ, stdout=output, stderr=output, cwd=self._log.parent
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError):
                if self.ask("status").status == 200:
                    return
            time.sleep(0.1)
        raise AssertionError(f"the server did not start: {self._log.read_text()}")

    def signal(self, number: signal.Signals) -> None:
        """Send its process a signal."""
        if self._process is not None:
            self._process.send_signal(number)

    def stop(self) -> None:
        """Have it end."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.send_signal(signal.SIGCONT)  # it hears of nothing else while it is stopped
            self._process.wait(START_SECONDS)

    def ask(
        self,
        where: str,
        *,
        method: str = "GET",
        body: object = None,
        headers: Mapping[str, str] | None = None,
        **parameters: Any,
    ) -> Told:
        """Ask something below ``/jupyter_ext/``, with the token unless other headers are given."""
        query = f"?{urlencode(parameters)}" if parameters else ""
        given = {"Authorization": f"token {TOKEN}"} if headers is None else dict(headers)
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}/jupyter_ext/{where}{query}", method=method, data=data, headers=given
        )
        try:
            with urllib.request.urlopen(request, timeout=START_SECONDS) as reply:
                return _told(reply.status, reply.read().decode(), dict(reply.headers))
        except urllib.error.HTTPError as error:
            with error:
                return _told(error.code, error.read().decode(), dict(error.headers))

    def act(self, where: str, body: object = None, **parameters: Any) -> Told:
        """Do something: a POST."""
        return self.ask(where, method="POST", body={} if body is None else body, **parameters)

    def last_activity(self) -> str:
        """Return when the server has last seen anybody do something."""
        headers = {"Authorization": f"token {TOKEN}"}
        with urllib.request.urlopen(
            urllib.request.Request(f"{self.url}/api/status", headers=headers)
        ) as reply:
            return str(json.loads(reply.read())["last_activity"])

    def cookies(self) -> str:
        """Log in as a browser does, and return its cookies."""
        jar = http.cookiejar.CookieJar()
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
        opener.open(f"{self.url}/login?token={TOKEN}", timeout=START_SECONDS).close()
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in jar)

    @contextlib.asynccontextmanager
    async def page(self, **headers: str) -> AsyncGenerator[PanelPage, None]:
        """Open the websocket of a page."""
        request = HTTPRequest(
            f"ws://127.0.0.1:{self.port}/jupyter_ext/changes",
            headers=headers or {"Authorization": f"token {TOKEN}"},
        )
        socket = await websocket_connect(request)
        try:
            yield PanelPage(socket)
        finally:
            socket.close()
            while await asyncio.wait_for(socket.read_message(), FRAME_SECONDS) is not None:
                pass  # until the server has closed it, too


class PanelPage:
    """The far end of a page's websocket."""

    def __init__(self, socket: WebSocketClientConnection) -> None:
        self._socket = socket
        self._kept: list[dict[str, Any]] = []  # read while others were waited for

    async def look(self, number: int, at: str, **fields: object) -> None:
        """Say what is looked at."""
        await self.say({"type": "look", "id": number, "at": at, **fields})

    async def say(self, message: object) -> None:
        """Say anything."""
        await self._socket.write_message(json.dumps(message))

    async def frame(
        self, number: int | None = None, until: Callable[[Any], bool] = lambda _: True
    ) -> dict[str, Any]:
        """Return the next frame of one look, or of any, that is as wanted. Nothing is read before."""
        deadline = time.monotonic() + FRAME_SECONDS
        kept, self._kept = self._kept, []
        while True:
            if kept:
                found = kept.pop(0)
            else:
                text = await asyncio.wait_for(self._socket.read_message(), deadline - time.monotonic())
                assert text is not None, "the server has closed the websocket"
                found = json.loads(text)
            if number not in (None, found["id"]):
                self._kept.append(found)
            elif until(found):
                self._kept += kept
                return found


def _told(status: int, text: str, headers: Mapping[str, str]) -> Told:
    value = None
    with contextlib.suppress(ValueError):
        value = json.loads(text)
    return Told(status, value, text, headers)


def until(condition: Callable[[], Any]) -> Any:
    """Return what a condition gives once it is true."""
    deadline = time.monotonic() + UNTIL_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def part(name: str) -> str:
    """Return a name as part of a path."""
    return quote(name, safe="")


def keep_jobs(layout: Layout, names: Sequence[str]) -> None:
    """Write jobs that have ended into a state directory, one a second, the last now; every tenth has failed."""
    journal = Journal.open(layout.journal)
    begun = time.time() - len(names)
    journal.record_calls(
        [
            JobRecord(
                name=name,
                kind="call",
                function="train",
                state=JobState.FAILED if number % 10 == 0 else JobState.SUCCEEDED,
                created_at=begun + number,
                started_at=begun + number,
                ended_at=begun + number + 0.5,
                summary="ValueError: <b>bold</b>" if number % 10 == 0 else "",
            )
            for number, name in enumerate(names)
        ]
    ).result()
    journal.close()


@contextlib.contextmanager
def served(
    folder: Path,
    environ: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
    *,
    python: Path | str = sys.executable,
) -> Generator[Server, None, None]:
    """Run a server with the extension, as its configuration file enables it.

    Args:
        folder: for its files; not there yet.
        environ: its environment variables; those of this process by default.
        arguments: more of its command line.
        python: that runs it.
    """
    shipped = (
        Path(__file__).parents[2] / "jupyter_ext" / "jupyter-config" / "server-config" / "jupyter_ext.json"
    )
    config = folder / "config"
    (config / "jupyter_server_config.d").mkdir(parents=True)
    (config / "jupyter_server_config.d" / shipped.name).write_text(shipped.read_text())
    (folder / "root").mkdir()
    variables = {
        **(os.environ if environ is None else environ),
        "JUPYTER_CONFIG_DIR": str(config),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTER_NO_CONFIG": "",
    }
    server = Server(folder, variables, arguments, (str(python), "-m", "jupyter_server"))
    try:
        server.start()
        yield server
    finally:
        server.stop()
