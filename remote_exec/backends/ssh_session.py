"""One ssh command that brings an agent up on a host, and what its failure means in words.

The command finds a Python and hands it `boot`'s text; that lays the runtime out and starts the agent. The same
connection is the shared master one from then on.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ..model.errors import HostUnavailable
from ..model.layout import Layout
from ..model.record import record
from . import boot, bringing, patience

BOOT_SECONDS = 60.0  # from one answer to the next; the archive is on its way meanwhile
END_SECONDS = 5.0
LOOK_SECONDS = 0.5  # patience may have become less
NOISE_BYTES = 1 << 20  # of what login shells print
NO_PYTHON = "remote-exec-no-python"

# Candidates for the agent's Python, the client's minor first: then the first pool's fork server can be the same.
_PLACES = (
    "{name}", '"$pythons"/cpython-{minor}.*/bin/{name}',
    "$HOME/.local/bin/{name}", "/usr/local/bin/{name}", "/usr/bin/{name}", "/opt/conda/bin/{name}",
    "$HOME/miniconda3/bin/{name}", "$HOME/anaconda3/bin/{name}", "$HOME/miniforge3/bin/{name}",
    "$HOME/.pyenv/versions/{minor}.*/bin/{name}", "$HOME/.local/share/uv/python/cpython-{minor}.*/bin/{name}",
)  # fmt: skip
_MINORS = ("3.13", "3.12", "3.11", "3.10", "3.14")
# No single quote, backslash or exclamation mark may stand in it: it passes through whatever login shell there is.
_WHERE = (  # the state directory, and where uv puts Pythons
    'home=$1; case $home in "") home=${REMOTE_EXEC_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/remote_exec};; '
    '"~/"*) home=$HOME/${home#"~/"};; esac; '
    f"pythons=${{UV_PYTHON_INSTALL_DIR:-{Layout(Path('$home'), Path()).pythons}}}; "
)
_SCRIPT = (
    'found=; for p in {candidates}; do command -v "$p" >/dev/null 2>&1 || continue; '
    'if "$p" -I -S -c "import sys; sys.exit(sys.version_info < (3, 10))" </dev/null >/dev/null 2>&1; then '
    'exec "$p" -I -S -c "import sys; exec(sys.stdin.buffer.read({size}))"; fi; '
    'found="$found $p ($("$p" -V 2>&1 </dev/null | head -n 1));"; done; '
    'echo; echo {no_python} "$(uname -sm) $(getconf GNU_LIBC_VERSION 2>/dev/null);$found"; exit 3'
)


@record
class Answer:
    """What bringing an agent up has come to."""

    socket: str  # where it listens, there
    home: str  # its state directory
    python: str  # the minor of the Python that runs it
    executable: str  # that Python
    runtime: str  # the folder of the carried runtime


class NoPython(HostUnavailable):
    """A host has no Python that could run the agent.

    Attributes:
        system: what it says of itself.
    """

    def __init__(self, message: str, *, hint: str, system: str = "") -> None:
        super().__init__(message, hint=hint)
        self.system = system


class Session:
    """Use as a context manager.

    Args:
        options: of ssh, for this host.
        destination: the host, as ssh knows it.
        name: what messages call it.
        log: a file for what ssh itself says; the master connection goes on writing to it.
        on_answer: called when the host has answered.
    """

    def __init__(
        self,
        options: Sequence[str],
        destination: str,
        name: str,
        log: Path,
        *,
        on_answer: Callable[[], None] = patience.answered,
    ) -> None:
        self._options = options
        self._destination = destination
        self._name = name
        self._log = log
        self._on_answer = on_answer
        self._process: subprocess.Popen[bytes] | None = None
        self._heard = b""
        self._answered = False  # has the host ever

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(interrupted=error is not None)

    def _end(self, *, interrupted: bool) -> None:
        """End the last command, if there was one."""
        process = self._process
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if process.poll() is None and interrupted:
            process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def boot(self, home: str) -> Answer:
        """Bring the agent up; have uv bring a Python first, where there is none for it.

        Args:
            home: its state directory there; empty: the usual one.

        Raises:
            HostUnavailable: it did not come to that; the text says what was found, the hint what to do.
        """
        text, asked = bringing.program(), bringing.wishes(home)
        self._begin(text, asked)
        data = bringing.archive()  # while the connection is made: a host that answers has none yet, as a rule
        try:
            facts = self._hear()
        except NoPython as lacking:
            from .ssh_python import bring_python

            bring_python(self, home, lacking)
            facts = self.run(text, asked)
        if not facts["there"]:
            self.send(data if facts["magic"] == asked["magic"] else bringing.archive(facts["magic"]))
        told = self._hear()
        return Answer(told["socket"], facts["home"], facts["python"], facts["executable"], facts["runtime"])

    def run(self, text: bytes, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Have a Python there run a program of ours, and return the facts that it tells first.

        Args:
            text: the program; see `boot`.
            asked: its standard input's first line; `home` is the state directory.

        Raises:
            NoPython: there is none.
            HostUnavailable: it did not come to that; the text says what was found, the hint what to do.
        """
        self._begin(text, asked)
        return self._hear()

    def _begin(self, text: bytes, asked: Mapping[str, Any]) -> None:
        self.start(_script(len(text)), str(asked["home"]))
        self.send(text, json.dumps(asked).encode() + b"\n")

    def forward(self, here: Path, there: str) -> None:
        """Have a socket of this machine lead to one of the host.

        Raises:
            HostUnavailable: ssh says no.
        """
        done = self._control("-O", "forward", "-L", f"{here}:{there}")
        if done.returncode:
            raise HostUnavailable(
                f"ssh does not forward a socket to {self._name}: {_last_line(done.stderr)}",
                hint="its master connection may be another program's; see: ssh -O check",
            )

    def _control(self, *command: str) -> subprocess.CompletedProcess[bytes]:
        argv = ["ssh", *self._options, *command, "--", self._destination]
        try:
            return subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=BOOT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise HostUnavailable(
                f"{self._name} does not answer over ssh any longer", hint=f"try: ssh {self._destination} true"
            ) from None

    def start(self, script: str, home: str) -> None:
        """Run a shell script there; the one before it is ended.

        Args:
            script: of POSIX's shell, with no single quote, backslash or exclamation mark in it. It finds the state
                directory as `$home`, and the folder of uv's Pythons as `$pythons`.
            home: the state directory; empty: the usual one.
        """
        self._end(interrupted=True)
        self._heard = b""
        command = f"exec sh -c '{_WHERE}{script}' sh '{home}'"
        with open(self._log, "ab") as log:
            os.chmod(self._log, 0o600)
            try:
                self._process = subprocess.Popen(
                    ["ssh", *self._options, "--", self._destination, command],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,  # a pipe would be held open by the master connection
                    bufsize=0,
                )
            except FileNotFoundError:
                raise HostUnavailable(
                    "there is no ssh on this machine", hint="install OpenSSH's client"
                ) from None

    def send(self, *pieces: bytes) -> None:
        """Write to its standard input."""
        assert self._process is not None  # noqa: S101
        assert self._process.stdin is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):  # why is said by what comes back, or by ssh
            for piece in pieces:
                view = memoryview(piece)
                while view:
                    view = view[self._process.stdin.write(view) :]

    def end_input(self) -> None:
        """Close its standard input."""
        assert self._process is not None  # noqa: S101
        assert self._process.stdin is not None  # noqa: S101
        self._process.stdin.close()

    def next_line(self, seconds: float = BOOT_SECONDS) -> str:
        """Return the next line of its standard output.

        Raises:
            HostUnavailable: it has ended, or says nothing for so long.
        """
        assert self._process is not None  # noqa: S101
        while b"\n" not in self._heard:
            data = self._read(self._process.stdout, seconds)
            if not data and self._process.poll() is None and patience.is_over():
                raise patience.given_up(self._name)
            if not data:
                raise self._why_not()
            if not self._answered:
                self._answered = True
                self._on_answer()
            self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode(errors="replace").strip()

    def ended(self) -> int | None:
        """Wait for the end of the script, and return its exit status."""
        assert self._process is not None  # noqa: S101
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        return self._process.returncode

    def _hear(self) -> dict[str, Any]:
        """Return the facts of the next answer; lines that login shells print are passed over."""
        passed = 0
        while passed < NOISE_BYTES:
            text = self.next_line()
            passed += len(text) + 1
            if text.startswith(NO_PYTHON):
                raise self._no_python(text.removeprefix(NO_PYTHON))
            if text.startswith(boot.MARK.strip()):
                facts: dict[str, Any] = json.loads(text[len(boot.MARK) :])
                if "error" in facts:
                    raise HostUnavailable(
                        f"on {self._name}: {facts['error']}", hint=f"remote-exec doctor {self._name}"
                    )
                return facts
        raise HostUnavailable(
            f"the login shell on {self._name} prints without an end",
            hint=f"see what this prints: ssh {self._destination} true",
        )

    def _read(self, stdout: Any, seconds: float) -> bytes:
        deadline = time.monotonic() + seconds
        while (now := time.monotonic()) < deadline and not patience.is_over():
            if select.select([stdout], [], [], min(deadline - now, patience.left(LOOK_SECONDS)))[0]:
                return os.read(stdout.fileno(), 1 << 16)
        return b""

    def _why_not(self) -> HostUnavailable:
        code = self.ended()
        said = last_words(self._log)
        return explain(said, code, name=self._name, destination=self._destination)

    def _no_python(self, told: str) -> NoPython:
        system, _, found = (part.strip(" ;") for part in told.partition(";"))
        listed = f"found: {found}" if found else "there is no python3 on its PATH or in the usual places"
        return NoPython(
            f"{self._name} has no Python 3.10 or newer; {listed}",
            hint="the first call has uv bring one there",
            system=system,
        )


def _script(size: int) -> str:
    minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
    minors = (minor, *(one for one in _MINORS if one != minor))
    named = [place.format(name=f"python{one}", minor=one) for one in minors for place in _PLACES]
    first = len(_PLACES)
    candidates = [*named[:first], "python3", *named[first:], "python", "/usr/bin/python3"]
    return _SCRIPT.format(candidates=" ".join(candidates), size=size, no_python=NO_PYTHON)


def last_words(log: Path) -> str:
    """Return what ssh has said since the way was opened."""
    try:
        with open(log, "rb") as file:
            return file.read(1 << 16).decode(errors="replace").strip()
    except OSError:
        return ""


def _last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it does not say why"


# what ssh says: what that means, and what to do
_MEANINGS: tuple[tuple[str, str, str], ...] = (
    (
        "Could not resolve hostname",
        "its name is not known",
        "check `host` in the configuration, and ~/.ssh/config",
    ),
    (
        "Host key verification failed",
        "its host key is not known here, or has changed",
        "connect once by hand, and see to what it says: ssh {destination}",
    ),
    (
        "Permission denied",
        "it does not let this user in",
        "see which keys are offered: ssh -v {destination} true; a key with a passphrase needs an agent: ssh-add",
    ),
    ("Connection refused", "nothing listens at its port", "is sshd running there, and is `port` right?"),
    ("Connection timed out", "it does not answer", "is it up, and does a firewall or VPN stand between?"),
    (
        "No route to host",
        "there is no way to its network",
        "is it up, and does a firewall or VPN stand between?",
    ),
    ("Network is unreachable", "there is no way to its network", "is this machine online?"),
    ("Connection closed by", "it hung up", "its sshd may be overloaded or refuse this user; see its log"),
    ("not found", "its login shell cannot run the command", "it must have a POSIX shell called sh"),
)


def explain(said: str, code: int | None, *, name: str, destination: str) -> HostUnavailable:
    """Return what to raise for an ssh command that failed.

    Args:
        said: what ssh has printed.
        code: its exit status.
        name: of the host, for the message.
        destination: of the host, for the hint.
    """
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    detail = lines[-1] if lines else f"ssh ended with exit status {code}"
    for sign, meaning, fix in _MEANINGS:
        if sign in said:
            return HostUnavailable(
                f"{name} cannot be reached over ssh: {meaning} ({detail})",
                hint=fix.format(destination=destination),
            )
    return HostUnavailable(
        f"{name} cannot be reached over ssh: {detail}", hint=f"try by hand: ssh {destination} true"
    )
